// An edit of many facts: what was to be expected, what came out, fact by fact.

import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";

import { EditProbeKind, type EditProbe, type OverwrittenFact } from "../../contract/palimpsest/v1/edit_pb";
import type { Job } from "../../contract/palimpsest/v1/job_pb";
import type { MassEditFact } from "../../contract/palimpsest/v1/mass_edit_pb";
import type { Edit } from "../../contract/palimpsest/v1/version_pb";
import { command } from "../copied";
import { brief, count, last, number, some, visible } from "../format";
import { results } from "../job";
import { useLoad } from "../live";
import { Facts, Tabs, Waiting } from "../parts/common";
import { Curves } from "../parts/Curves";
import { Dumbbell, probeWord } from "../parts/Dumbbell";
import { beside, figureOf, Gates, LeftOut, Overwritten, Sentence, sentenceOf } from "../parts/EditCard";
import { ResultsTitle } from "../parts/ResultsTitle";
import { Table, type Column } from "../parts/Table";
import { asked, setQuery } from "../route";
import { Checked } from "./MassEditCheck";

const MOST = 20_000;

export function MassEdit({ job, note }: { job: Job; note: ComponentChildren }) {
  const id = last(job.name);
  const turn = String((20n * (job.counts?.unitsDone ?? 0n)) / (job.counts?.units || 1n));
  const read = useLoad(`mass ${id} ${turn}`, (signal) => results(id, {}, signal, MOST), true);
  const items = read.data?.items ?? [];
  const found = useMemo(() => {
    const edits = items.flatMap((item) =>
      item.outcome.case === "edit" && item.outcome.value.edit
        ? [{ outcome: item.outcome.value, edit: item.outcome.value.edit }]
        : [],
    );
    const facts = items.flatMap((item) =>
      item.outcome.case === "massEditFact" ? [{ unit: Number(item.unit), fact: item.outcome.value }] : [],
    );
    const checked = items.flatMap((item) => (item.outcome.case === "massEditChecked" ? [item.outcome.value] : []));
    const failures = items.flatMap((item) =>
      item.outcome.case === "failure" ? [{ unit: Number(item.unit), message: item.outcome.value.message }] : [],
    );
    return { edits, facts, checked, failures };
  }, [read.data]);
  const tabs = [
    {
      id: "edits",
      title: `Edits ${found.edits.length}`,
      body: () => <Edits model={last(job.model)} edits={found.edits} />,
    },
    {
      id: "facts",
      title: `Facts ${count(found.facts.length)}`,
      body: () => <FactsOf rows={found.facts} file={`facts-${brief(id)}`} />,
    },
    {
      id: "check",
      title: "What was to be expected",
      body: () =>
        found.checked.length ? (
          found.checked.map((it) => <Checked key={it.batch} it={it} />)
        ) : (
          <p class="quiet">The pre-flight has not been made yet.</p>
        ),
    },
    ...(found.failures.length
      ? [
          {
            id: "failures",
            title: `Failures ${count(found.failures.length)}`,
            body: () => (
              <Table
                label="Failures"
                name="failures"
                rows={found.failures}
                rowKey={(row) => String(row.unit)}
                file={`failures-${brief(id)}`}
                columns={[
                  { id: "unit", head: "Unit", value: (row) => row.unit, right: true, wide: 0.2 },
                  { id: "message", head: "What was said", value: (row) => visible(row.message) },
                ]}
              />
            ),
          },
        ]
      : []),
  ];
  // What there is comes first: failures before an edit that was not made, the pre-flight before one that is not yet.
  const leading =
    found.edits.length > 0
      ? "edits"
      : found.failures.length > 0
        ? "failures"
        : found.checked.length > 0
          ? "check"
          : "edits";
  const first = [...tabs.filter((tab) => tab.id === leading), ...tabs.filter((tab) => tab.id !== leading)];
  return (
    <>
      <ResultsTitle
        job={job}
        title="Mass edit"
        note={note}
        copied={{ command: command("job results", [id], { averages: true }), json: () => items }}
      />
      <Waiting of={read} what="results" />
      {read.data?.more && <p class="warning">The first {count(MOST)} results.</p>}
      {read.data && <Tabs name="tab" label="Parts of the results" tabs={first} />}
    </>
  );
}

const SCORES: [string, string][] = [
  ["es", "new target likelier, rewritten prompts (ES)"],
  ["ps", "new target likelier, paraphrases (PS)"],
  ["ns", "true target likelier, neighbours (NS)"],
  ["rewrite.new", "probability of the new target"],
  ["rewrite.true", "probability of the true target"],
];

function Edits({
  model,
  edits,
}: {
  model: string;
  edits: {
    outcome: { version: string; overwritten: OverwrittenFact[] };
    edit: Edit;
  }[];
}) {
  const chosen = edits[Number(asked("batch", String(edits.length - 1)))] ?? edits.at(-1);
  if (!chosen) return <p class="quiet">No edit was made so far.</p>;
  const { edit, outcome } = chosen;
  const score = (key: string, when: string) => {
    const value = figureOf(edit.figures, `${key}.${when}`);
    const half = figureOf(edit.figures, `${key}.${when}.half`);
    return value === undefined ? "" : `${value.toFixed(3)}${half === undefined ? "" : ` ± ${half.toFixed(3)}`}`;
  };
  const layer = (factor: Edit["factors"][0], key: string) => figureOf(edit.figures, `layer.${factor.layer}.${key}`);
  const text = (value: number | undefined) => (value === undefined ? "" : value.toFixed(3));
  const over = (key: string) => edits.map(({ edit: it }) => figureOf(it.figures, `${key}.after`) ?? NaN);
  const half = (key: string) => edits.map(({ edit: it }) => figureOf(it.figures, `${key}.after.half`));
  return (
    <>
      {edits.length > 1 && (
        <>
          <Curves
            title="Efficacy of each batch after it"
            xLabel="batch"
            yLabel="share of facts"
            xName="batch"
            xs={edits.map((_, i) => i + 1)}
            fromZero
            file="efficacy"
            series={[
              { name: "ES", mean: over("es"), half: half("es") },
              { name: "PS", mean: over("ps"), half: half("ps") },
              { name: "NS", mean: over("ns"), half: half("ns") },
            ].filter((it) => it.mean.some(Number.isFinite))}
          />
          <Table
            label="Batches"
            name="batches"
            fixed
            rows={edits.map((it, i) => ({ ...it, i }))}
            rowKey={(row) => String(row.i)}
            picked={String(edits.indexOf(chosen))}
            onPick={(row) => setQuery({ batch: row.i })}
            columns={[
              {
                id: "batch",
                head: "Batch",
                value: (row) => row.i + 1,
                cell: (row) => (
                  <button type="button" class="plain" onClick={() => setQuery({ batch: row.i })}>
                    {row.i + 1}
                  </button>
                ),
                right: true,
              },
              { id: "facts", head: "Facts", value: (row) => row.edit.requests.length, right: true },
              {
                id: "version",
                head: "Version",
                value: (row) => row.outcome.version,
                cell: (row) =>
                  row.outcome.version ? (
                    <a class="mono" href={`/models/${model}/versions/${last(row.outcome.version)}`}>
                      {brief(row.outcome.version)}
                    </a>
                  ) : (
                    ""
                  ),
              },
              {
                id: "es",
                head: "ES after",
                value: (row) => figureOf(row.edit.figures, "es.after"),
                cell: (row) => text(figureOf(row.edit.figures, "es.after")),
                right: true,
              },
            ]}
          />
        </>
      )}
      <p class="said">
        {some(edit.requests.length, "fact")} by {edit.method}
      </p>
      <Gates edit={edit} />
      <Facts of={beside(edit)} />
      <Table
        label="Scores"
        name="scores"
        fixed
        rows={SCORES.filter(([key]) => figureOf(edit.figures, `${key}.after`) !== undefined)}
        rowKey={([key]) => key}
        file="scores"
        columns={[
          { id: "what", head: "Measure", value: ([, words]) => words },
          {
            id: "before",
            head: "Before",
            value: ([key]) => figureOf(edit.figures, `${key}.before`),
            cell: ([key]) => score(key, "before"),
            right: true,
          },
          {
            id: "after",
            head: "After",
            value: ([key]) => figureOf(edit.figures, `${key}.after`),
            cell: ([key]) => score(key, "after"),
            right: true,
          },
        ]}
      />
      <Table
        label="Layers"
        name="layers"
        fixed
        rows={edit.factors}
        rowKey={(factor) => factor.tensorName}
        file="layers"
        columns={[
          { id: "layer", head: "Layer", value: (it) => it.layer, right: true },
          { id: "rank", head: "Rank", value: (it) => it.rank || "whole", right: true },
          {
            id: "norm",
            head: "Norm",
            value: (it) => layer(it, "norm"),
            cell: (it) => text(layer(it, "norm")),
            right: true,
          },
          {
            id: "relative",
            head: "Of the matrix",
            value: (it) => layer(it, "relative_norm"),
            cell: (it) => text(layer(it, "relative_norm")),
            right: true,
          },
          {
            id: "share",
            head: "Mean share",
            value: (it) => layer(it, "share.mean"),
            cell: (it) => text(layer(it, "share.mean")),
            right: true,
          },
          {
            id: "least",
            head: "Least",
            value: (it) => layer(it, "share.least"),
            cell: (it) => text(layer(it, "share.least")),
            right: true,
          },
        ]}
      />
      <Facts
        of={[
          [
            "edit",
            edit.name ? (
              <a class="mono" href={`/${edit.name}`}>
                {brief(edit.name)}
              </a>
            ) : (
              ""
            ),
          ],
          [
            "version",
            outcome.version ? (
              <a class="mono" href={`/models/${model}/versions/${last(outcome.version)}`}>
                {brief(outcome.version)}
              </a>
            ) : (
              ""
            ),
          ],
          [
            "drift of other text",
            figureOf(edit.figures, "text.drift") === undefined
              ? "not measured"
              : `${number(figureOf(edit.figures, "text.drift") ?? NaN)} nats a token`,
          ],
          [
            "in the place of",
            edit.replaces ? (
              <a class="mono" href={`/models/${model}/edits/${edit.replaces}`}>
                {brief(edit.replaces)}
              </a>
            ) : (
              ""
            ),
          ],
        ]}
      />
      <LeftOut edit={edit} />
      <Overwritten rows={outcome.overwritten} />
    </>
  );
}

const rewrite = (fact: MassEditFact): EditProbe | undefined =>
  fact.probes.find((probe) => probe.kind === EditProbeKind.REWRITE);

export function FactsOf({ rows, file }: { rows: readonly { unit: number; fact: MassEditFact }[]; file: string }) {
  const text = asked("text").toLowerCase();
  const shown = text ? rows.filter(({ fact }) => sentenceOf(fact.request).toLowerCase().includes(text)) : rows;
  const chosen = shown.find((row) => String(row.unit) === asked("fact"));
  const p = (id: string, head: string, of: (probe: EditProbe) => number | undefined): Column<(typeof rows)[0]> => ({
    id,
    head,
    right: true,
    value: (row) => {
      const probe = rewrite(row.fact);
      return probe && of(probe);
    },
    cell: (row) => {
      const probe = rewrite(row.fact);
      const value = probe && of(probe);
      return value === undefined ? "" : number(value);
    },
  });
  const drift = (fact: MassEditFact) =>
    fact.neighbourDrifts.length
      ? fact.neighbourDrifts.reduce((sum, it) => sum + it, 0) / fact.neighbourDrifts.length
      : undefined;
  return (
    <>
      {chosen && (
        <section class="detail">
          <h2>
            <Sentence request={chosen.fact.request} />
          </h2>
          <Dumbbell
            probes={chosen.fact.probes}
            target={chosen.fact.request?.targetNew ?? ""}
            truth={chosen.fact.request?.targetTrue}
            file={`fact-${chosen.unit}`}
          />
          <p class="quiet">{chosen.fact.probes.map((probe) => probeWord(probe.kind)).join(", ")}</p>
        </section>
      )}
      <Table
        label="Facts"
        name="facts"
        rows={shown}
        rowKey={(row) => String(row.unit)}
        picked={String(chosen?.unit)}
        onPick={(row) => setQuery({ fact: row.unit })}
        file={file}
        columns={[
          {
            id: "unit",
            head: "Unit",
            value: (row) => row.unit,
            right: true,
            wide: 0.5,
            cell: (row) => (
              <button
                type="button"
                class="plain"
                aria-label={`Probes of unit ${row.unit}`}
                onClick={() => setQuery({ fact: row.unit })}
              >
                {row.unit}
              </button>
            ),
          },
          { id: "batch", head: "Batch", value: (row) => row.fact.batch + 1, right: true, wide: 0.5 },
          {
            id: "fact",
            head: "Fact",
            value: (row) => sentenceOf(row.fact.request),
            cell: (row) => <Sentence request={row.fact.request} />,
            wide: 4,
          },
          p("new-before", "p(new) before", (probe) => probe.newBefore),
          p("new-after", "after", (probe) => probe.newAfter),
          p("true-before", "p(true) before", (probe) => probe.trueBefore),
          p("true-after", "after", (probe) => probe.trueAfter),
          {
            id: "drift",
            head: "Neighbour drift",
            value: (row) => drift(row.fact),
            cell: (row) => number(drift(row.fact) ?? NaN).replace("NaN", ""),
            right: true,
          },
        ]}
      />
    </>
  );
}
