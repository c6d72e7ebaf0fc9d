// Two sweeps, or one on two versions: what differs in settings, in the averages, and fact by fact.

import { useMemo, useState } from "preact/hooks";

import { ResultView, type Job } from "../../contract/palimpsest/v1/job_pb";
import { Kind, Metric, type Grid } from "../../contract/palimpsest/v1/trace_pb";
import { jobs } from "../client";
import { call, command } from "../copied";
import {
  brief,
  count,
  ended,
  jobId,
  kindName,
  kindWord,
  last,
  number,
  some,
  stateWord,
  token,
  visible,
  work,
} from "../format";
import { requestId, results, useJob } from "../job";
import { useDoing, useLoad } from "../live";
import { Act, Choice, Heading, Text, Waiting, Wrong } from "../parts/common";
import { CopyAs } from "../parts/CopyAs";
import { Computed } from "../parts/Fingerprints";
import { again } from "../parts/jobActs";
import { settings } from "../parts/settings";
import { Table } from "../parts/Table";
import { evaluated } from "../evaluation";
import { asked, setQuery, to } from "../route";
import { answerOf } from "../sweep";
import { kindsOf, look } from "../look";
import { Averages, Fact, type Pair } from "./CompareMaps";
import { Means } from "./Evaluation";
import { Prompt } from "./SweepFacts";

const MOST = 20_000;

export function Compare() {
  const [left, right] = [asked("left"), asked("right")];
  const [whole, second] = [useWhole(left), useWhole(right)];
  const [one, other] = [useJob(whole.data), useJob(second.data)];
  const wrong = whole.problem ?? second.problem ?? one.problem ?? other.problem;
  const ids = [whole.data, second.data].flatMap((id) => id || []);
  const [a, b] = [one.job, other.job];
  const waiting = (left && !a) || (right && !b);
  return (
    <>
      <div class="title">
        <Heading title="Compare">Compare</Heading>
        {ids.length > 0 && (
          <CopyAs
            command={ids.map((id) => command("job results", [id], { averages: true })).join("\n")}
            python={ids.map((id, i) => `${"ab"[i]} = ${call("p.job", [id])}`).join("\n")}
            json={() => [a, b].filter(Boolean)}
          />
        )}
      </div>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Text label="Left" value={left} onChange={(value) => setQuery({ left: value })} hint="A job's identifier, or its end." />
        <Text label="Right" value={right} onChange={(value) => setQuery({ right: value })} />
        <button type="button" onClick={() => setQuery({ left: right, right: left })}>
          Swap
        </button>
      </form>
      <Wrong of={wrong} />
      {waiting && !wrong && <p class="quiet">Reading the jobs…</p>}
      {a && !right && (
        <p>
          Choose the other one: among{" "}
          <a href={to("/jobs", { kind: a.spec.case === "eval" ? "eval" : "trace", model: last(a.model) })}>
            the jobs on {last(a.model)}
          </a>
          , pick two.
        </p>
      )}
      {a && !waiting && <OnBoth job={a} other={b} />}
      {a && b && (
        <>
          <p>
            Left: <JobLink job={a} /> — right: <JobLink job={b} />
          </p>
          <p role="status" class="quiet">
            {[a, b]
              .filter((job) => !ended(job.state))
              .map(soFar)
              .join(" ")}
          </p>
          <Settings a={a} b={b} />
          {a.spec.case === "trace" && b.spec.case === "trace" ? (
            <Sweeps a={a} b={b} />
          ) : a.spec.case === "eval" && b.spec.case === "eval" ? (
            <Evaluations a={a} b={b} />
          ) : (
            <p class="warning">
              These are a {work(a).word} and a {work(b).word}: only jobs of one kind are compared.
            </p>
          )}
        </>
      )}
    </>
  );
}

/** The whole identifier of a job, of its end as pages show it. */
function useWhole(end: string) {
  return useLoad(`job ${end}`, async (signal) => {
    if (!/^[0-9a-f-]{4,35}$/.test(end)) return end || undefined;
    const found = (await jobs.listJobs({ text: end, pageSize: 1000 }, { signal })).jobs.filter((job) =>
      job.name.endsWith(end),
    );
    if (found.length > 1) throw new Error(`${found.length} jobs end in ${end}: give more of its identifier`);
    return found[0] ? last(found[0].name) : end;
  });
}

function JobLink({ job }: { job: Job }) {
  return (
    <>
      <a class="mono" href={`/jobs/${last(job.name)}/results`}>
        {jobId(job.name)}
      </a>{" "}
      {visible(job.displayName)} on {last(job.model)} @ <span class="mono">{brief(job.version, 8)}</span>
    </>
  );
}

const soFar = (job: Job) =>
  `${jobId(job.name)} is ${stateWord(job.state)}: ${count(job.counts?.unitsDone ?? 0n)} of ${count(job.counts?.units ?? 0n)} units so far.`;

/** The facts of a sweep, traced on another version: that of the other job, if nobody names one. */
function OnBoth({ job, other }: { job: Job; other: Job | undefined }) {
  const there = other && other.model === job.model && other.version !== job.version ? brief(other.version) : "";
  const [version, setVersion] = useState(there);
  const doing = useDoing();
  if (job.spec.case !== "trace") return null;
  const run = () =>
    doing.run(async () => {
      const wanted = { ...again(job), version: `${job.model}/versions/${version}` };
      const made = await jobs.createJob({ requestId: requestId(), job: wanted });
      setQuery({ left: last(job.name), right: last(made.job?.name ?? "") });
    });
  return (
    <details>
      <summary>Trace the left one's facts on another version</summary>
      <Text
        label="Version"
        value={version}
        onInput={setVersion}
        hint="A ref, v3, or a digest's beginning. With the same settings, and what the store has is taken from there."
      />
      <Act method="JobService/CreateJob" disabled={doing.busy || !version} onClick={() => void run()}>
        Trace
      </Act>
      <Wrong of={doing.problem} />
    </details>
  );
}

function Settings({ a, b }: { a: Job; b: Job }) {
  const rows = useMemo(() => {
    const of = (job: Job) =>
      new Map<string, string>([
        ["model", last(job.model)],
        ["version", brief(job.version)],
        ...settings(job).map(([name, value]) => [name, String(value ?? "")] as [string, string]),
      ]);
    const [left, right] = [of(a), of(b)];
    return [...new Set([...left.keys(), ...right.keys()])]
      .map((name) => ({ name, left: left.get(name) ?? "", right: right.get(name) ?? "" }))
      .filter((row) => row.left !== row.right);
  }, [a, b]);
  return (
    <section>
      <h2>Settings that differ</h2>
      {rows.length === 0 ? (
        <p>None.</p>
      ) : (
        <Table
          label="Settings that differ"
          name="settings"
          fixed
          rows={rows}
          rowKey={(row) => row.name}
          columns={[
            { id: "name", head: "Setting", value: (row) => row.name },
            { id: "left", head: "Left", value: (row) => row.left },
            { id: "right", head: "Right", value: (row) => row.right },
          ]}
        />
      )}
    </section>
  );
}

function Sweeps({ a, b }: { a: Job; b: Job }) {
  const kinds = kindsOf(a).filter((kind) => kindsOf(b).includes(kind));
  const kind = kinds.find((it) => kindName(it) === asked("kind")) ?? kinds[0] ?? Kind.HIDDEN;
  // Of jobs that run the numbers are asked for with every twentieth of them.
  const turn = [a, b].map((job) => (20n * (job.counts?.unitsDone ?? 0n)) / (job.counts?.units || 1n)).join();
  const sums = useLoad(
    `sums ${a.name} ${b.name} ${kind} ${turn}`,
    async (signal) => {
      const [left, right] = await Promise.all([
        jobs.getSweepSummary({ name: a.name, kinds: [kind] }, { signal }),
        jobs.getSweepSummary({ name: b.name, kinds: [kind] }, { signal }),
      ]);
      return { left: left.averages, right: right.averages };
    },
    true,
  );
  const facts = useLoad(
    `pairs ${a.name} ${b.name} ${kind} ${turn}`,
    async (signal) => {
      const [left, right] = await Promise.all([
        results(last(a.name), { view: ResultView.PEAKS, kind }, signal, MOST),
        results(last(b.name), { view: ResultView.PEAKS, kind }, signal, MOST),
      ]);
      const name = (grid: Grid) => JSON.stringify([grid.fact?.prompt, grid.fact?.subject]);
      const of = new Map(
        right.items.flatMap((item) =>
          item.outcome.case === "grid"
            ? [[name(item.outcome.value), { grid: item.outcome.value, unit: item.unit }] as const]
            : [],
        ),
      );
      const pairs: Pair[] = [];
      for (const item of left.items) {
        if (item.outcome.case !== "grid") continue;
        const other = of.get(name(item.outcome.value));
        if (other)
          pairs.push({
            key: `${item.unit}`,
            left: item.outcome.value,
            right: other.grid,
            units: [item.unit, other.unit],
          });
      }
      return {
        pairs,
        left: left.items.length,
        right: of.size,
        computed: [left.fingerprints, right.fingerprints] as const,
      };
    },
    true,
  );
  const metric = look(a).metric;
  const one = sums.data?.left.find((it) => (it.metric || Metric.PROBABILITY) === metric) ?? sums.data?.left[0];
  const other = sums.data?.right.find(
    (it) => (it.metric || Metric.PROBABILITY) === (one?.metric || Metric.PROBABILITY),
  );
  const changed = facts.data?.pairs.filter((pair) => pair.left.answerId !== pair.right.answerId) ?? [];
  const chosen = facts.data?.pairs.find((pair) => pair.key === asked("fact")) ?? facts.data?.pairs[0];
  return (
    <>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Choice
          label="Kind"
          value={kindName(kind)}
          options={kinds.map((it) => [kindName(it), kindWord(it)] as const)}
          onChange={(it) => setQuery({ kind: it, token: undefined, role: undefined })}
        />
      </form>
      <Waiting of={sums} what="averages" />
      {facts.data && <Computed left={facts.data.computed[0]} right={facts.data.computed[1]} />}
      {one && other && <Averages one={one} other={other} />}
      <Waiting of={facts} what="facts" />
      {chosen && <Fact a={a} b={b} pair={chosen} metric={metric} />}
      {facts.data && (
        <section>
          <h2>Facts</h2>
          <p id="both">
            {some(facts.data.pairs.length, "fact")} in both (left {count(facts.data.left)}, right{" "}
            {count(facts.data.right)});{" "}
            {changed.length === 0 ? "no answer changed" : `${count(changed.length)} changed their answer`}.
          </p>
          <Table
            label="Facts of both"
            name="facts"
            rows={facts.data.pairs}
            rowKey={(pair) => pair.key}
            picked={chosen?.key}
            onPick={(pair) => setQuery({ fact: pair.key })}
            file="compare"
            columns={[
              {
                id: "prompt",
                head: "Prompt",
                value: (pair) => pair.left.fact?.prompt,
                wide: 4,
                cell: (pair) => (
                  <button type="button" class="plain" onClick={() => setQuery({ fact: pair.key })}>
                    <Prompt grid={pair.left} />
                  </button>
                ),
              },
              {
                id: "says-left",
                head: "Left says",
                value: (pair) => answerOf(pair.left),
                cell: (pair) => token(answerOf(pair.left)),
              },
              {
                id: "says-right",
                head: "Right says",
                value: (pair) => answerOf(pair.right),
                cell: (pair) => (
                  <span class={pair.left.answerId === pair.right.answerId ? "" : "otherwise"}>
                    {token(answerOf(pair.right))}
                  </span>
                ),
              },
              {
                id: "left",
                head: "Left peak",
                value: (pair) => pair.left.peak?.effect,
                cell: (pair) =>
                  pair.left.peak ? `${number(pair.left.peak.effect)}, layer ${pair.left.peak.layer}` : "",
                right: true,
              },
              {
                id: "right",
                head: "Right peak",
                value: (pair) => pair.right.peak?.effect,
                cell: (pair) =>
                  pair.right.peak ? `${number(pair.right.peak.effect)}, layer ${pair.right.peak.layer}` : "",
                right: true,
              },
              {
                id: "difference",
                head: "Difference",
                value: (pair) =>
                  pair.left.peak && pair.right.peak ? pair.right.peak.effect - pair.left.peak.effect : undefined,
                cell: (pair) =>
                  pair.left.peak && pair.right.peak ? number(pair.right.peak.effect - pair.left.peak.effect) : "",
                right: true,
              },
            ]}
          />
        </section>
      )}
    </>
  );
}

function Evaluations({ a, b }: { a: Job; b: Job }) {
  const read = useLoad(`evals ${a.name} ${b.name}`, async (signal) => {
    const [left, right] = await Promise.all([
      results(last(a.name), {}, signal, MOST),
      results(last(b.name), {}, signal, MOST),
    ]);
    return {
      left: evaluated(a, left.items, (name) => brief(name, 8)),
      right: evaluated(b, right.items, (name) => brief(name, 8)),
    };
  });
  if (!read.data) return <Waiting of={read} what="both" />;
  const { left, right } = read.data;
  // What each measured on its own version: the last column.
  const lines = left.lines.flatMap((line) => {
    const other = right.lines.find((it) => it.name === line.name);
    const [x, y] = [line.means.at(-1), other?.means.at(-1)];
    return x && y
      ? [
          {
            ...line,
            means: [x, y],
            change: {
              count: Math.min(x.count, y.count),
              mean: left.ofTexts ? y.mean / x.mean : y.mean - x.mean,
              half: undefined,
            },
          },
        ]
      : [];
  });
  return (
    <>
      <Means
        lines={lines}
        columns={[`left, ${left.columns.at(-1)}`, `right, ${right.columns.at(-1)}`]}
        ofTexts={left.ofTexts}
        file="compare-means"
      />
      <p class="quiet">Of each job its own records; the change has no interval, for they need not be the same.</p>
    </>
  );
}
