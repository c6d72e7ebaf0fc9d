// Two sweeps, or one on two versions: what differs in settings, in the averages, and fact by fact.

import { useMemo, useState } from "preact/hooks";

import { ResultView, type Job } from "../../contract/palimpsest/v1/job_pb";
import { Kind, Metric, type Grid, type KindAverages } from "../../contract/palimpsest/v1/trace_pb";
import { jobs } from "../client";
import { brief, count, jobId, kindName, kindWord, last, number, roleWord, some, token, visible, work } from "../format";
import { requestId, results } from "../job";
import { useDoing, useLoad } from "../live";
import { Act, Choice, Heading, Text, Waiting, Wrong } from "../parts/common";
import { Curves } from "../parts/Curves";
import { HeatMap } from "../parts/HeatMap";
import { again } from "../parts/jobActs";
import { settings } from "../parts/settings";
import { Table } from "../parts/Table";
import { evaluated } from "../evaluation";
import { asked, setQuery, to } from "../route";
import { answerOf, effect, ramp, readings, ROLES, roleSite, figure, isOfHeads } from "../sweep";
import { kindsOf, look } from "../look";
import { Means } from "./Evaluation";
import { Prompt } from "./SweepFacts";

const MOST = 20_000;

export function Compare() {
  const [left, right] = [asked("left"), asked("right")];
  const read = useLoad(`compare ${left} ${right}`, async (signal) => {
    const get = async (id: string) => (id ? (await jobs.getJob({ name: `jobs/${id}` }, { signal })).job : undefined);
    const [a, b] = await Promise.all([get(left), get(right)]);
    return { left: a, right: b };
  });
  const [a, b] = [read.data?.left, read.data?.right];
  return (
    <>
      <div class="title">
        <Heading title="Compare">Compare</Heading>
      </div>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Text label="Left" value={left} onChange={(value) => setQuery({ left: value })} hint="A job's identifier." />
        <Text label="Right" value={right} onChange={(value) => setQuery({ right: value })} />
        <button type="button" onClick={() => setQuery({ left: right, right: left })}>
          Swap
        </button>
      </form>
      <Waiting of={read} what="the two" />
      {a && !b && (
        <p>
          Choose the other one: among{" "}
          <a href={to("/jobs", { kind: a.spec.case === "eval" ? "eval" : "trace", model: last(a.model) })}>
            the jobs on {last(a.model)}
          </a>
          , pick two.
        </p>
      )}
      {a && <OnBoth job={a} />}
      {a && b && (
        <>
          <p>
            Left: <JobLink job={a} /> — right: <JobLink job={b} />
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

/** The facts of a sweep, traced on another version. */
function OnBoth({ job }: { job: Job }) {
  const [version, setVersion] = useState("");
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
      <summary>Trace these facts on another version</summary>
      <Text label="Version" value={version} onInput={setVersion} hint="A ref, v3, or a digest's beginning." />
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

interface Pair {
  key: string;
  left: Grid;
  right: Grid;
  units: [bigint, bigint];
}

function Sweeps({ a, b }: { a: Job; b: Job }) {
  const kinds = kindsOf(a).filter((kind) => kindsOf(b).includes(kind));
  const kind = kinds.find((it) => kindName(it) === asked("kind")) ?? kinds[0] ?? Kind.HIDDEN;
  const sums = useLoad(`sums ${a.name} ${b.name} ${kind}`, async (signal) => {
    const [left, right] = await Promise.all([
      jobs.getSweepSummary({ name: a.name, kinds: [kind] }, { signal }),
      jobs.getSweepSummary({ name: b.name, kinds: [kind] }, { signal }),
    ]);
    return { left: left.averages, right: right.averages };
  });
  const facts = useLoad(`pairs ${a.name} ${b.name} ${kind}`, async (signal) => {
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
    return { pairs, left: left.items.length, right: of.size };
  });
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
          onChange={(it) => setQuery({ kind: it })}
        />
      </form>
      <Waiting of={sums} what="averages" />
      {one && other && <Overlaid one={one} other={other} />}
      <Waiting of={facts} what="facts" />
      {chosen && <Difference a={a} b={b} pair={chosen} />}
      {facts.data && (
        <section>
          <h2>Facts</h2>
          <p>
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

/** The averages of both over each other, with both bands, at one role. */
function Overlaid({ one, other }: { one: KindAverages; other: KindAverages }) {
  const role =
    ROLES.find((it) => String(it) === asked("role")) ??
    one.roles.find((it) => it.byLayer.some((mean) => mean.rows > 0n && it.role === 3))?.role ??
    one.roles[0]?.role ??
    3;
  const of = (averages: KindAverages) => averages.roles.find((it) => it.role === role)?.byLayer ?? [];
  const series = (name: string, averages: KindAverages) => ({
    name,
    mean: of(averages).map((mean) => (mean.rows > 0n ? mean.mean : NaN)),
    half: of(averages).map((mean) => mean.halfWidth),
  });
  const [l, r] = [roleSite(one, role), roleSite(other, role)];
  if (isOfHeads(one.kind)) return <p class="quiet">Averages of heads are compared fact by fact.</p>;
  return (
    <section>
      <h2>Averages</h2>
      {one.roles.length > 1 && (
        <Choice
          label="At the"
          value={String(role)}
          options={one.roles.map((it) => [String(it.role), roleWord(it.role)] as const)}
          onChange={(it) => setQuery({ role: it })}
        />
      )}
      <p>
        Highest at the {roleWord(role)}: left {l ? `${figure(l.effect)} at layer ${l.layer}` : "none"}; right{" "}
        {r ? `${figure(r.effect)} at layer ${r.layer}` : "none"}.
      </p>
      <Curves
        title={`${kindWord(one.kind)}, ${roleWord(role)}`}
        xLabel="layer"
        yLabel="AIE"
        xName="layer"
        series={[series("left", one), series("right", other)]}
        file="compare-averages"
      />
    </section>
  );
}

/** Left, right and the difference of one fact, on scales that fit. */
function Difference({ a, b, pair }: { a: Job; b: Job; pair: Pair }) {
  const read = useLoad(`both ${a.name} ${b.name} ${pair.key} ${pair.units[1]}`, async (signal) => {
    const get = async (job: Job, first: bigint) => {
      const { items } = await results(last(job.name), { first }, signal, 1);
      return items[0]?.outcome.case === "grid" ? items[0].outcome.value : undefined;
    };
    const [left, right] = await Promise.all([get(a, pair.units[0]), get(b, pair.units[1])]);
    return { left, right };
  });
  const [left, right] = [read.data?.left, read.data?.right];
  if (!left || !right || left.layers === 0 || right.layers === 0) {
    return read.data ? <p class="quiet">This fact was not traced in both.</p> : <Waiting of={read} what="maps" />;
  }
  const values = (grid: Grid) =>
    grid.scores.map((score) => effect(score, readings(grid)[0] as ReturnType<typeof readings>[0], grid.direction));
  const [l, r] = [values(left), values(right)];
  const same = l.length === r.length && left.heads === 0;
  const difference = r.map((value, i) => value - (l[i] ?? NaN));
  const most = Math.max(...l.filter(Number.isFinite), ...r.filter(Number.isFinite));
  const labels = left.tokens.map(token);
  const map = (title: string, of: readonly number[], ceiling: number | undefined, name: string) => (
    <HeatMap
      title={title}
      xLabel="layer"
      valueLabel="effect"
      rowName="token"
      labels={labels}
      starred={[left.subjectBegin, left.subjectEnd]}
      layers={left.layers}
      values={of}
      ramp={ramp(left.kind)}
      low={0}
      signed
      ceiling={ceiling}
      line={(at) =>
        `${labels[Math.floor(at / left.layers)]}, layer ${at % left.layers}: left ${number(l[at] ?? NaN)}, right ${number(r[at] ?? NaN)}, difference ${number(difference[at] ?? NaN)}`
      }
      file={`compare-${name}`}
    />
  );
  return (
    <section>
      <h2>
        <Prompt grid={left} />
      </h2>
      {same ? (
        <div class="maps">
          {map("Left", l, most, "left")}
          {map("Right", r, most, "right")}
          {map("Right less left", difference, undefined, "difference")}
        </div>
      ) : (
        <p class="quiet">Maps of heads, or of prompts with different tokens, are looked at in their own sweeps.</p>
      )}
    </section>
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
