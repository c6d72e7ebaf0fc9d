// The facts of a sweep: a line each from the peaks, and the maps of the one that is looked at.

import { signal } from "@preact/signals";
import { useMemo, useState } from "preact/hooks";

import { ResultView, type Job, type UnitResult } from "../../contract/palimpsest/v1/job_pb";
import { Engine, Metric, type Grid } from "../../contract/palimpsest/v1/trace_pb";
import { brief, count, kindName, kindWord, last, metricWord, number, roleWord, some, token, visible } from "../format";
import { files } from "../arrays";
import { jsonLines, save } from "../download";
import { results } from "../job";
import { useLoad } from "../live";
import { Zip } from "../npz";
import { factsOf, kindsOf, metricsOf, type Look } from "../look";
import { may } from "../may";
import { Choice, Waiting } from "../parts/common";
import { HeatMap } from "../parts/HeatMap";
import { Table } from "../parts/Table";
import { TakeFigure } from "../parts/TakeFigure";
import { asked, setQuery, to } from "../route";
import { startOf } from "../subject";
import {
  answerOf,
  cellLine,
  editLayer,
  effect,
  foilOf,
  isOverTokens,
  peak,
  ramp,
  readings,
  rows,
  type Reading,
} from "../sweep";
import { estimates } from "../estimates";

/** Most facts that are listed. */
const MOST = 20_000;

export interface FactRow {
  fact: number;
  grid: Grid;
}

/** Facts of one kind, without their scores. */
export function factRows(job: Job, items: readonly UnitResult[]): FactRow[] {
  const kinds = BigInt(kindsOf(job).length);
  return items.flatMap((item) =>
    item.outcome.case === "grid" ? [{ fact: Number(item.unit / kinds), grid: item.outcome.value }] : [],
  );
}

export function SweepFacts({ job, look, turn }: { job: Job; look: Look; turn: string }) {
  const id = last(job.name);
  const [soFar, setSoFar] = useState(0);
  const key = `facts ${id} ${look.kind} ${look.relation} ${look.correct} ${turn}`;
  const read = useLoad(
    key,
    (signal) =>
      results(
        id,
        { view: ResultView.PEAKS, kind: look.kind, relation: look.relation, correct: look.correct },
        signal,
        MOST,
        (items) => setSoFar(items.length),
      ),
    true,
  );
  const all = useMemo(() => factRows(job, read.data?.items ?? []), [read.data, job.name]);
  const text = look.text.toLowerCase();
  const shown = useMemo(
    () =>
      text
        ? all.filter(({ grid }) =>
            `${grid.fact?.prompt} ${grid.fact?.subject} ${answerOf(grid)}`.toLowerCase().includes(text),
          )
        : all,
    [all, text],
  );
  const chosen = asked("fact");
  const picked =
    shown.find((row) => String(row.fact) === chosen) ?? (shown.length === 1 || chosen === "" ? shown[0] : undefined);
  return (
    <>
      <Waiting of={read} what={soFar ? `facts, ${count(soFar)} so far` : "facts"} />
      {picked && <FactMaps job={job} fact={picked.fact} look={look} />}
      {read.data && all.length === 0 && <p>No fact passes these filters, or none is there yet.</p>}
      {read.data && all.length > 0 && (
        <Table
          label={`Facts, ${kindWord(look.kind)}`}
          name="facts"
          rows={shown}
          rowKey={(row) => String(row.fact)}
          picked={String(picked?.fact)}
          onPick={(row) => setQuery({ fact: row.fact })}
          file={`facts-${brief(id)}-${kindName(look.kind)}`}
          columns={[
            {
              id: "fact",
              head: "#",
              value: (row) => row.fact,
              right: true,
              wide: 0.5,
              cell: (row) => (
                <button
                  type="button"
                  class="plain"
                  onClick={() => setQuery({ fact: row.fact })}
                  aria-label={`Maps of fact ${row.fact}`}
                >
                  {row.fact}
                </button>
              ),
            },
            {
              id: "prompt",
              head: "Prompt",
              value: (row) => row.grid.fact?.prompt ?? "",
              wide: 4,
              cell: (row) => <Prompt grid={row.grid} />,
            },
            { id: "relation", head: "Relation", value: (row) => row.grid.fact?.relation ?? "" },
            {
              id: "expects",
              head: "Expects",
              value: (row) => row.grid.fact?.attribute ?? "",
              cell: (row) => visible(row.grid.fact?.attribute ?? ""),
            },
            {
              id: "says",
              head: "Says",
              value: (row) => answerOf(row.grid),
              cell: (row) => (
                <span class={row.grid.correctPrediction ? "" : "otherwise"}>{token(answerOf(row.grid))}</span>
              ),
            },
            {
              id: "clean",
              head: "Clean",
              value: (row) => row.grid.high,
              cell: (row) => number(row.grid.high),
              right: true,
            },
            {
              id: "corrupted",
              head: "Corrupted",
              value: (row) => (row.grid.layers ? row.grid.low : undefined),
              cell: (row) => (row.grid.layers ? number(row.grid.low) : ""),
              right: true,
            },
            {
              id: "peak",
              head: "Peak effect",
              value: (row) => row.grid.peak?.effect,
              cell: (row) => (row.grid.peak ? number(row.grid.peak.effect) : ""),
              right: true,
            },
            {
              id: "at",
              head: "At",
              value: (row) => (row.grid.peak ? `${roleWord(row.grid.peak.role)} ${row.grid.peak.text}` : ""),
              wide: 2,
              cell: (row) =>
                row.grid.peak ? (
                  <span title={roleWord(row.grid.peak.role)}>
                    {row.grid.peak.text ? token(row.grid.peak.text) : roleWord(row.grid.peak.role)}
                    {row.grid.peak.head === undefined ? "" : ` head ${row.grid.peak.head}`}
                    {row.grid.peak.neuron === undefined ? "" : ` neuron ${row.grid.peak.neuron}`}
                  </span>
                ) : (
                  visible(row.grid.untraced)
                ),
            },
            { id: "layer", head: "Layer", value: (row) => row.grid.peak?.layer, right: true, wide: 0.7 },
          ]}
          foot={
            <span class="quiet">
              {count(shown.length)} of {some(all.length, "fact")}
              {read.data.more ? `, the first ${count(MOST)}` : ""}
            </span>
          }
        />
      )}
    </>
  );
}

/** A prompt with its subject underlined. */
export function Prompt({ grid }: { grid: Grid }) {
  const prompt = grid.fact?.prompt ?? "";
  const subject = grid.fact?.subject ?? "";
  const start =
    grid.fact?.subjectStart === undefined ? prompt.indexOf(subject) : byteIndex(prompt, grid.fact.subjectStart);
  if (start < 0) return <>{visible(prompt)}</>;
  return (
    <span title={visible(prompt)}>
      {visible(prompt.slice(0, start))}
      <u>{visible(subject)}</u>
      {visible(prompt.slice(start + subject.length))}
    </span>
  );
}

/** Where a byte of UTF-8 is in a text. */
function byteIndex(text: string, at: number): number {
  return new TextDecoder().decode(new TextEncoder().encode(text).slice(0, at)).length;
}

/** All kinds of a fact side by side, with one cursor and, unless it is asked otherwise, one scale. */
export function FactMaps({ job, fact, look }: { job: Job; fact: number; look: Look }) {
  const id = last(job.name);
  const kinds = kindsOf(job);
  const read = useLoad(
    `grids ${id} ${fact} ${job.counts?.unitsDone === job.counts?.units ? "all" : String(job.counts?.unitsDone)}`,
    async (signal) => {
      const first = BigInt(fact * kinds.length);
      const { items } = await results(id, { first }, signal, kinds.length);
      return items.flatMap((item) =>
        item.outcome.case === "grid" && item.unit < first + BigInt(kinds.length) ? [item.outcome.value] : [],
      );
    },
    true,
  );
  const grids = read.data ?? [];
  return (
    <>
      <Waiting of={read} what="maps" />
      {grids.length > 0 && (
        <Maps
          grids={grids}
          look={look}
          model={last(job.model)}
          name={`${brief(id)}-fact${fact}`}
          fact={fact}
          facts={factsOf(job)}
          job={job}
        />
      )}
    </>
  );
}

export function Maps({
  grids,
  look,
  model,
  name,
  fact = 0,
  facts = 1,
  job,
}: {
  grids: Grid[];
  look: Look;
  model: string;
  name: string;
  /** The fact's place, of so many. */
  fact?: number;
  facts?: number;
  job?: Job;
}) {
  const first = grids[0];
  // Cells of grids of tokens are at the same places: their maps have one cursor.
  const cursor = useMemo(() => signal<number | undefined>(undefined), [name]);
  const large = asked("large");
  if (!first) return null;
  const wrong = !first.correctPrediction;
  const untraced = grids.every((grid) => grid.layers === 0);
  const drawn = grids.filter((grid) => grid.layers > 0);
  const ofMetric = (grid: Grid): Reading =>
    readings(grid).find((it) => it.metric === look.metric) ?? (readings(grid)[0] as Reading);
  const value = (grid: Grid, reading: Reading) =>
    look.effects ? reading.scores.map((score) => effect(score, reading, grid.direction)) : reading.scores;
  const most = look.common
    ? Math.max(...drawn.flatMap((grid) => value(grid, ofMetric(grid)).filter(Number.isFinite)))
    : undefined;
  const layer = grids.map(editLayer).find((it) => it);
  const zipped = () => {
    const zip = new Zip();
    const metrics = job ? metricsOf(job) : [Metric.PROBABILITY];
    for (const grid of drawn) for (const file of files(grid, fact, facts, metrics)) zip.add(file.name, file.data);
    save(`${name}-npz.zip`, "application/zip", ...zip.end());
  };
  return (
    <section class="fact">
      <h2>
        <Prompt grid={first} /> <span class="quiet">→</span> {token(answerOf(first))}
      </h2>
      {first.corrupted && (
        <p class="quiet">
          Corrupted by: {visible(first.corrupted.prompt)}
          {first.foil ? `; foil ${token(foilOf(first) ?? "")}` : ""}
        </p>
      )}
      {wrong && (
        <p>
          The model says {token(answerOf(first))} and not {visible(first.fact?.attribute ?? "")}: this fact was not
          traced.
        </p>
      )}
      {!wrong && untraced && <p>{visible(first.untraced)}</p>}
      {!untraced && (
        <p>
          p({answerOf(first).trim()}) is {number(first.high)} clean and {number(first.low)} corrupted.
          {layer &&
            ` Its MLP effect is highest at layer ${layer.layer} at the subject's last token: ${number(layer.effect)}. `}
          {layer && job && may("JobService/CreateJob") && (
            <a
              href={to("/playground", {
                model,
                version: last(job.version),
                prompt: first.fact?.prompt,
                subject: first.fact?.subject,
                at: startOf(first.fact),
                layer: layer.layer,
              })}
            >
              edit it in the playground
            </a>
          )}
        </p>
      )}
      <div class={large ? "maps one" : "maps"}>
        {drawn
          .filter((grid) => !large || kindName(grid.kind) === large)
          .map((grid) => {
            const reading = ofMetric(grid);
            const best = peak(grid, reading);
            const chosen = Number(asked("token", String(best?.token ?? 0)));
            const shownToken = chosen < grid.tokens.length ? chosen : 0;
            const row = rows(grid, reading.scores, shownToken);
            const shown = look.effects ? rows(grid, value(grid, reading), shownToken).values : row.values;
            const isP = reading.metric === Metric.PROBABILITY;
            const low = look.effects ? 0 : reading.corrupted;
            return (
              <div>
                {grid.heads > 0 && !isOverTokens(grid.kind) && (
                  <Choice
                    label="Heads at"
                    value={String(shownToken)}
                    options={grid.tokens.map((text, at) => [String(at), `${at} ${token(text)}`] as const)}
                    onChange={(at) => setQuery({ token: at })}
                  />
                )}
                <HeatMap
                  title={`${kindWord(grid.kind)}${grid.engine === Engine.ATTRIBUTION ? ", estimated" : ""}`}
                  xLabel={
                    grid.window > 1 ? `centre of ${grid.window} restored layers` : `restored layer within ${model}`
                  }
                  valueLabel={
                    look.effects ? "effect" : isP ? `p(${answerOf(grid).trim()})` : metricWord(reading.metric)
                  }
                  rowName={row.of}
                  labels={row.labels}
                  starred={row.starred}
                  layers={row.layers}
                  values={shown}
                  ramp={ramp(grid.kind)}
                  low={low}
                  signed={look.effects || !isP}
                  ceiling={most}
                  cursor={row.of === "token" ? cursor : undefined}
                  line={(at) => cellLine(grid, reading, row, at, shownToken)}
                  notes={[
                    `${metricWord(reading.metric)}: clean ${number(reading.clean)}, corrupted ${number(reading.corrupted)}.`,
                    ...estimates(grid, reading),
                  ]}
                  file={`${name}-${kindName(grid.kind)}`}
                />
                <button
                  type="button"
                  class="plain"
                  onClick={() => setQuery({ large: large ? undefined : kindName(grid.kind) })}
                >
                  {large ? "all kinds" : "full width"}
                </button>
                {job && (
                  <TakeFigure
                    path={`jobs/${last(job.name)}/units/${fact * kindsOf(job).length + kindsOf(job).indexOf(grid.kind)}.svg`}
                    file={`${name}-${kindName(grid.kind)}-figure`}
                    metric={look.metric}
                  >
                    Figure
                  </TakeFigure>
                )}
              </div>
            );
          })}
      </div>
      {!untraced && (
        <p class="tools">
          <button type="button" onClick={zipped}>
            NPZ
          </button>
          <button type="button" onClick={() => save(`${name}.jsonl`, "application/jsonl", jsonLines(drawn))}>
            JSON lines
          </button>
        </p>
      )}
    </section>
  );
}
