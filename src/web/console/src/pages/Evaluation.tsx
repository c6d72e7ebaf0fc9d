// An evaluation: measures with their intervals, before against after, then every record.

import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";

import type { Job } from "../../contract/palimpsest/v1/job_pb";
import { command } from "../copied";
import { brief, count, last, number, setWord, some, visible } from "../format";
import { evaluated, scaleOf, valueOf, type EvalLine, type MeanOf, type Record_ } from "../evaluation";
import { results } from "../job";
import { useLoad } from "../live";
import { Tabs, Waiting } from "../parts/common";
import { ResultsTitle } from "../parts/ResultsTitle";
import { Table, type Column } from "../parts/Table";
import { asked, setQuery, to } from "../route";

/** Most units that are read: their answers are some hundred bytes each. */
const MOST = 40_000;

export function Evaluation({ job, note }: { job: Job; note: ComponentChildren }) {
  const id = last(job.name);
  const spec = job.spec.case === "eval" ? job.spec.value : undefined;
  const turn = String((20n * (job.counts?.unitsDone ?? 0n)) / (job.counts?.units || 1n));
  const read = useLoad(`eval ${id} ${turn}`, (signal) => results(id, {}, signal, MOST), true);
  const found = useMemo(
    () => evaluated(job, read.data?.items ?? [], (name) => (name ? brief(name, 8) : "as imported")),
    [read.data],
  );
  return (
    <>
      <ResultsTitle
        job={job}
        title="Evaluation"
        note={note}
        copied={{ command: command("job results", [id], { averages: true }), json: () => found.lines }}
      >
        ; {setWord(spec?.set ?? 0)}, {some(spec?.recordCount || BigInt(spec?.records.length ?? 0), "record")}
      </ResultsTitle>
      <Waiting of={read} what="results" />
      {read.data?.more && <p class="warning">The first {count(MOST)} results.</p>}
      {spec && spec.leftOut > 0n && (
        <p class="quiet">{some(spec.leftOut, "record")} left out, whose facts the unedited model does not know.</p>
      )}
      {spec && spec.spoiled > 0n && (
        <p class="quiet">{some(spec.spoiled, "neighbour")} left out, which speak of the subject of another record.</p>
      )}
      <p class="buttons">
        <a class="button" href={to("/compare", { left: id })}>
          Compare
        </a>
      </p>
      <Means lines={found.lines} columns={found.columns} ofTexts={found.ofTexts} file={`means-${brief(id)}`} />
      <Records found={found.records} metrics={found.metrics} columns={found.columns} file={`records-${brief(id)}`} />
    </>
  );
}

export function Means({
  lines,
  columns,
  ofTexts,
  file,
}: {
  lines: readonly EvalLine[];
  columns: readonly string[];
  ofTexts: boolean;
  file: string;
}) {
  const cells = (name: string, of: (line: EvalLine) => MeanOf | undefined, digits: number): Column<EvalLine>[] => [
    {
      id: name,
      head: name,
      value: (line) => scaled(of(line)?.mean, line),
      cell: (line) => fixed(of(line)?.mean, line, digits),
      right: true,
    },
    { id: `${name} 95 %`, head: "95 %", value: (line) => interval(of(line), line, digits), right: true },
  ];
  return (
    <section>
      <h2>Measures</h2>
      <Table
        label="Measures"
        name="means"
        fixed
        rows={lines}
        rowKey={(line) => line.name}
        file={file}
        columns={[
          {
            id: "measure",
            head: "Measure",
            value: (line) => line.name,
            cell: (line) => <abbr title={line.meaning}>{line.name}</abbr>,
          },
          { id: "n", head: "N", value: (line) => line.means[0]?.count, right: true },
          ...columns.flatMap((name, n) => cells(name, (line) => line.means[n], 1)),
          ...(columns.length > 1 ? cells(ofTexts ? "ratio" : "change", (line) => line.change, ofTexts ? 3 : 1) : []),
          { id: "meaning", head: "Is", value: (line) => line.meaning },
        ]}
      />
    </section>
  );
}

const scaled = (value: number | undefined, line: EvalLine) => (value === undefined ? undefined : value * line.scale);
const fixed = (value: number | undefined, line: EvalLine, digits: number) =>
  value === undefined || Number.isNaN(value) ? "" : (value * line.scale).toFixed(digits);

function interval(it: MeanOf | undefined, line: EvalLine, digits: number): string {
  if (it?.half === undefined) return "";
  return `${fixed(it.mean - it.half, line, digits)} to ${fixed(it.mean + it.half, line, digits)}`;
}

function Records({
  found,
  metrics,
  columns,
  file,
}: {
  found: readonly Record_[];
  metrics: readonly string[];
  columns: readonly string[];
  file: string;
}) {
  const chosen = found.find((row) => String(row.n) === asked("record"));
  return (
    <section>
      <h2>Records</h2>
      {chosen && <RecordDetail record={chosen} columns={columns} />}
      <Table
        label="Records"
        name="records"
        rows={found}
        rowKey={(row) => String(row.n)}
        picked={String(chosen?.n)}
        onPick={(row) => setQuery({ record: row.n })}
        file={file}
        columns={[
          {
            id: "n",
            head: "#",
            value: (row) => row.n + 1,
            right: true,
            wide: 0.5,
            cell: (row) => (
              <button
                type="button"
                class="plain"
                aria-label={`Answers of record ${row.n + 1}`}
                onClick={() => setQuery({ record: row.n })}
              >
                {row.n + 1}
              </button>
            ),
          },
          { id: "subject", head: "Subject", value: (row) => visible(row.subject), wide: 2 },
          { id: "true", head: "True", value: (row) => visible(row.truth) },
          { id: "new", head: "New", value: (row) => visible(row.target) },
          ...metrics.map((metric): Column<Record_> => ({
            id: metric,
            head: metric,
            right: true,
            value: (row) => {
              const it = row.measured.at(-1);
              const value = it && valueOf(it, metric);
              return value === undefined ? undefined : value * scaleOf(metric);
            },
            cell: (row) => {
              const it = row.measured.at(-1);
              const value = it && valueOf(it, metric);
              return value === undefined ? visible(row.failure).slice(0, 40) : (value * scaleOf(metric)).toFixed(1);
            },
          })),
        ]}
      />
    </section>
  );
}

/** What each prompt gave, and the texts that were generated. */
function RecordDetail({ record, columns }: { record: Record_; columns: readonly string[] }) {
  const kinds = ["", "rewrite", "paraphrase", "neighbour"];
  const answers = Math.max(0, ...record.measured.map((it) => it?.answers.length ?? 0));
  const p = (nll: number | undefined) => (nll === undefined ? "" : number(Math.exp(-nll)));
  return (
    <section class="detail">
      <h3>
        {visible(record.subject)}: {visible(record.truth)} → {visible(record.target)}
      </h3>
      <Table
        label="Answers"
        name="answers"
        fixed
        rows={Array.from({ length: answers }, (_, i) => i)}
        rowKey={String}
        columns={[
          {
            id: "kind",
            head: "Prompt",
            value: (i) => kinds[record.measured.find((it) => it)?.answers[i]?.kind ?? 0] ?? "",
          },
          ...columns.flatMap((name, n): Column<number>[] => [
            {
              id: `${name} new`,
              head: `${name}: p(new)`,
              value: (i) => p(record.measured[n]?.answers[i]?.newObject?.nll),
              right: true,
            },
            {
              id: `${name} true`,
              head: `${name}: p(true)`,
              value: (i) => p(record.measured[n]?.answers[i]?.trueObject?.nll),
              right: true,
            },
          ]),
        ]}
      />
      {record.measured.some((it) => it && it.texts.length > 0) && (
        <Tabs
          name="texts"
          label="Generated texts"
          tabs={columns.map((name, n) => ({
            id: String(n),
            title: `Texts, ${name}`,
            body: () => (
              <ul>
                {record.measured[n]?.texts.map((text) => (
                  <li>{visible(text)}</li>
                ))}
              </ul>
            ),
          }))}
        />
      )}
      {record.failure && <p class="wrong">{visible(record.failure)}</p>}
    </section>
  );
}
