// The results of a sweep: averages first, then facts, one map of all, failures.

import type { ComponentChildren } from "preact";

import { ResultView, type Job } from "../../contract/palimpsest/v1/job_pb";
import {
  Direction,
  Engine,
  Kind,
  Metric,
  TokenRole,
  type KindAverages,
  type Mean,
} from "../../contract/palimpsest/v1/trace_pb";
import { jobs, type Problem } from "../client";
import { call, command } from "../copied";
import { brief, count, ended, kindName, kindWord, last, metricWord, number, roleWord, some, visible } from "../format";
import { results } from "../job";
import { useLoad } from "../live";
import { factsOf, kindsOf, look, type Look } from "../look";
import { may } from "../may";
import { Choice, Tabs, Text, Waiting } from "../parts/common";
import { Curves, type Series } from "../parts/Curves";
import { HeatMap } from "../parts/HeatMap";
import { ResultsTitle } from "../parts/ResultsTitle";
import { Table } from "../parts/Table";
import { TakeFigure } from "../parts/TakeFigure";
import { TakeSweep } from "../parts/TakeSweep";
import { asked, setQuery, to } from "../route";
import { figure, manner, plateau, ramp, roleSite, sentence, site } from "../sweep";
import { SweepFacts } from "./SweepFacts";
import { SweepMap } from "./SweepMap";

export function Sweep({ job, note }: { job: Job; note: ComponentChildren }) {
  const id = last(job.name);
  const wanted = look(job);
  const done = job.counts?.unitsDone ?? 0n;
  // Of a running job the averages are asked for with every twentieth of it.
  const turn = ended(job.state) ? "end" : String((20n * done) / (job.counts?.units || 1n));
  const summary = useLoad(
    `summary ${id} ${wanted.relation} ${turn}`,
    (signal) => jobs.getSweepSummary({ name: job.name, relation: wanted.relation }, { signal }),
    true,
  );
  const facts = factsOf(job);
  const relations = useLoad(`relations ${id} ${facts}`, async (signal) =>
    facts > 1
      ? (
          await jobs.getSweepSummary(
            { name: job.name, kinds: [kindsOf(job)[0] ?? Kind.MLP], byRelation: true },
            { signal },
          )
        ).averages
      : [],
  );
  const names = [...new Set(relations.data?.map((it) => it.relation ?? "") ?? [])];
  const averages = summary.data?.averages.filter((it) => it.kind === wanted.kind) ?? [];
  const shown = averages.find((it) => (it.metric || Metric.PROBABILITY) === wanted.metric) ?? averages[0];
  const rows = shown?.clean?.rows ?? 0n;
  const failed = job.counts?.unitsFailed ?? 0n;
  const kinds = kindsOf(job);
  const metrics = [...new Set(averages.map((it) => it.metric || Metric.PROBABILITY))];
  const tabs = [
    {
      id: "averages",
      title: "Averages",
      body: () => (
        <Averages job={job} averages={shown} loading={summary} look={wanted} all={summary.data?.averages ?? []} />
      ),
    },
    { id: "facts", title: `Facts ${count(facts)}`, body: () => <SweepFacts job={job} look={wanted} turn={turn} /> },
    { id: "map", title: "Map", body: () => <SweepMap job={job} look={wanted} turn={turn} /> },
    ...(failed > 0n ? [{ id: "failures", title: `Failures ${count(failed)}`, body: () => <Failed job={job} /> }] : []),
  ];
  return (
    <>
      <ResultsTitle
        job={job}
        title="Sweep"
        note={note}
        copied={{
          command: command("job results", [id], { averages: true, "by-relation": wanted.relation !== undefined }),
          python: `${call("p.job", [id])}.${call("averages", wanted.relation === undefined ? [] : ["relation"])}`,
          json: () => summary.data?.averages ?? [],
        }}
      >
        {shown && (
          <>
            ; {count(rows)} of {some(wanted.relation === undefined ? facts : rows + shown.wrong, "fact")} answered as
            expected
          </>
        )}
      </ResultsTitle>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Choice
          label="Kind"
          value={kindName(wanted.kind)}
          options={kinds.map((kind) => [kindName(kind), kindWord(kind)] as const)}
          onChange={(kind) => setQuery({ kind, token: undefined, head: undefined })}
        />
        {metrics.length > 1 && (
          <Choice
            label="Metric"
            value={metricWord(wanted.metric)}
            options={metrics.map((metric) => [metricWord(metric), metricWord(metric)] as const)}
            onChange={(metric) => setQuery({ metric })}
          />
        )}
        {names.length > 1 && (
          <Choice
            label="Relation"
            value={asked("relation")}
            // A mark before the name, so that facts without a relation are a choice of their own.
            options={[["", "all"], ...names.map((name) => [`=${name}`, name || "(none)"] as const)]}
            onChange={(relation) => setQuery({ relation })}
          />
        )}
        <Choice
          label="Answered"
          value={asked("correct")}
          options={[
            ["", "either way"],
            ["yes", "as expected"],
            ["no", "otherwise"],
          ]}
          onChange={(correct) => setQuery({ correct })}
        />
        <Text label="Text" value={asked("text")} onChange={(text) => setQuery({ text })} />
        <Choice
          label="Maps show"
          value={wanted.effects ? "effect" : ""}
          options={[
            ["", "the metric"],
            ["effect", "the effect"],
          ]}
          onChange={(values) => setQuery({ values })}
        />
        <Choice
          label="Scale"
          value={wanted.common ? "" : "own"}
          options={[
            ["", "common"],
            ["own", "each its own"],
          ]}
          onChange={(scale) => setQuery({ scale })}
        />
        <a class="button" href={to("/compare", { left: id })}>
          Compare
        </a>
      </form>
      <div class="tools">
        <TakeSweep job={job} />
        {shown && (
          <TakeFigure
            path={`jobs/${id}/averages.svg`}
            file={`averages-${brief(id)}${wanted.relation === undefined ? "" : `-${wanted.relation.replace(/\W+/g, "-") || "none"}`}`}
            metric={wanted.metric}
            relation={wanted.relation}
          >
            Figure of the averages
          </TakeFigure>
        )}
      </div>
      <Tabs name="tab" label="Parts of the results" tabs={tabs} />
    </>
  );
}

function Averages({
  job,
  averages,
  loading,
  look: wanted,
  all,
}: {
  job: Job;
  averages: KindAverages | undefined;
  loading: { loading: boolean; problem: Problem | undefined; data: unknown };
  look: Look;
  all: KindAverages[];
}) {
  if (!averages)
    return loading.data === undefined ? (
      <Waiting of={loading} what="averages" />
    ) : (
      <p>No grid of this kind is there yet.</p>
    );
  const best = site(averages);
  const mlp = all.find((it) => it.kind === Kind.MLP && (it.metric || Metric.PROBABILITY) === wanted.metric);
  const editAt = mlp && roleSite(mlp, TokenRole.LAST_SUBJECT);
  const window = job.spec.case === "trace" ? job.spec.value.window || 10 : 0;
  return (
    <>
      <p class="said" id="sentence">
        {sentence(averages)}
        {wanted.correct === false && " Averages are over facts that are answered as expected."}
      </p>
      {editAt && (
        <p>
          An edit of these facts belongs in the MLP of layer <strong>{editAt.layer}</strong>: {figure(editAt.effect)} at
          the last subject token{plateauWords(mlp, editAt)}.
          {mlp.engine === Engine.ATTRIBUTION &&
            " These are estimates: trace the facts exactly before one follows them."}{" "}
          {may("JobService/CreateJob") && (
            <a href={to("/playground", { model: last(job.model), version: last(job.version), layer: editAt.layer })}>
              edit here
            </a>
          )}
        </p>
      )}
      {manner(averages).map((line) => (
        <p class="quiet">{line}</p>
      ))}
      {averages.heads > 0 ? <HeadAverages averages={averages} /> : <RoleAverages averages={averages} window={window} />}
      <AverageTable all={all} metric={wanted.metric} />
      {best === undefined && <p class="quiet">There is nothing to average yet.</p>}
    </>
  );
}

function plateauWords(averages: KindAverages, at: NonNullable<ReturnType<typeof roleSite>>): string {
  const [low, high] = plateau(averages, at);
  return low === high ? "" : `; layers ${low} to ${high} are within its interval`;
}

const mean = (it: Mean | undefined) => (it && it.rows > 0n ? it.mean : NaN);

/** What an average is called. */
function valueName(averages: KindAverages): string {
  return averages.metric && averages.metric !== Metric.PROBABILITY ? `AIE, ${metricWord(averages.metric)}` : "AIE";
}

/** Six curves with their bands, and the same as a map. */
export function RoleAverages({ averages, window }: { averages: KindAverages; window: number }) {
  const roles = averages.roles.filter((it) => it.byLayer.some((one) => one.rows > 0n));
  const series: Series[] = roles.map((it) => ({
    name: roleWord(it.role),
    mean: it.byLayer.map(mean),
    half: it.byLayer.map((one) => one.halfWidth),
  }));
  const windowed = averages.kind === Kind.MLP || averages.kind === Kind.ATTN;
  const xLabel = windowed ? `centre of the restored ${kindWord(averages.kind)} layers` : "restored layer";
  const title = `Average ${averages.direction === Direction.NOISING ? "effect of corrupting" : "indirect effect of"} ${windowed ? `${window} ${kindWord(averages.kind)} layers` : `a single ${kindWord(averages.kind)}`}`;
  const values = roles.flatMap((it) => it.byLayer.map(mean));
  const line = (at: number) => {
    const [role, layer] = [roles[Math.floor(at / averages.layers)], at % averages.layers];
    const it = role?.byLayer[layer];
    const spread = it?.halfWidth === undefined ? "" : ` ± ${number(it.halfWidth)}`;
    const reach = windowed
      ? ` (window ${Math.max(0, layer - Math.floor(window / 2))} to ${Math.min(averages.layers - 1, layer - Math.floor(window / 2) + window - 1)})`
      : "";
    return `${roleWord(role?.role ?? TokenRole.UNSPECIFIED)}, layer ${layer}${reach}: ${number(mean(it))}${spread}, ${some(it?.rows ?? 0n, "row")}`;
  };
  const name = `averages-${kindName(averages.kind)}`;
  return (
    <div class="pair">
      <Curves
        title={title}
        xLabel={xLabel}
        yLabel={valueName(averages)}
        xName="layer"
        series={series}
        file={`${name}-curves`}
      />
      <HeatMap
        title={title}
        xLabel={xLabel}
        valueLabel={valueName(averages)}
        rowName="role"
        labels={roles.map((it) => roleWord(it.role))}
        layers={averages.layers}
        values={values}
        ramp={ramp(averages.kind)}
        low={0}
        signed
        least={168}
        line={line}
        file={`${name}-map`}
      />
    </div>
  );
}

/** Heads by layers, of the role that is asked for. */
function HeadAverages({ averages }: { averages: KindAverages }) {
  const best = site(averages);
  const roles = averages.roles.filter((it) => it.byLayer.some((one) => one.rows > 0n));
  const role =
    roles.find((it) => String(it.role) === asked("role")) ?? roles.find((it) => it.role === best?.role) ?? roles[0];
  if (!role) return null;
  const line = (at: number) => {
    const it = role.byLayer[at];
    return `head ${Math.floor(at / averages.layers)}, layer ${at % averages.layers}, ${roleWord(role.role)}: ${it ? figure(it) : "none"}`;
  };
  return (
    <>
      {roles.length > 1 && (
        <Choice
          label="At the"
          value={String(role.role)}
          options={roles.map((it) => [String(it.role), roleWord(it.role)] as const)}
          onChange={(it) => setQuery({ role: it })}
        />
      )}
      <HeatMap
        title={`Average effect of each head, ${roleWord(role.role)}`}
        xLabel="layer"
        valueLabel={valueName(averages)}
        rowName="head"
        labels={Array.from({ length: averages.heads }, (_, head) => `head ${head}`)}
        layers={averages.layers}
        values={role.byLayer.map(mean)}
        ramp={ramp(averages.kind)}
        low={0}
        signed
        line={line}
        file={`heads-${kindName(averages.kind)}`}
      />
    </>
  );
}

/** The table that `job results --averages` prints. */
function AverageTable({ all, metric }: { all: KindAverages[]; metric: Metric }) {
  const rows: { kind: string; effect: string; layer: number | undefined; it: Mean; share: Mean | undefined }[] = [];
  const of = all.filter((it) => (it.metric || Metric.PROBABILITY) === metric);
  const whole = (averages: KindAverages): [string, Mean | undefined][] => [
    ["clean", averages.clean],
    ["corrupted", averages.corrupted],
    ["total effect (ATE)", averages.totalEffect],
  ];
  // Clean and corrupted runs are shared by the kinds, unless some grids of a kind failed.
  const told = (averages: KindAverages | undefined) =>
    averages
      ? whole(averages)
          .map(([, it]) => `${it?.rows} ${it?.mean}`)
          .join()
      : "";
  const shared = of.every((averages) => told(averages) === told(of[0]));
  for (const averages of of) {
    const kind = kindWord(averages.kind);
    if (!shared || averages === of[0])
      for (const [effect, it] of whole(averages))
        if (it) rows.push({ kind: shared ? "all" : kind, effect, layer: undefined, it, share: undefined });
    for (const { role, share } of averages.roles) {
      const found = roleSite(averages, role);
      if (!found) continue;
      const head = found.head === undefined ? "" : `, head ${found.head}`;
      rows.push({
        kind,
        effect: `AIE, ${roleWord(role)}${head}`,
        layer: found.layer,
        it: found.effect,
        share: share[(found.head ?? 0) * averages.layers + found.layer],
      });
    }
  }
  const end = (it: Mean, side: 1 | -1) => (it.halfWidth === undefined ? undefined : it.mean + side * it.halfWidth);
  const text = (value: number | undefined) => (value === undefined ? "" : number(value));
  return (
    <section>
      <h2>Means, where they are highest</h2>
      <Table
        label="Averages"
        name="averages"
        fixed
        rows={rows}
        rowKey={(row) => `${row.kind} ${row.effect}`}
        file="averages"
        columns={[
          { id: "kind", head: "Kind", value: (row) => row.kind },
          { id: "effect", head: "Effect", value: (row) => row.effect },
          { id: "layer", head: "Layer", value: (row) => row.layer, right: true },
          { id: "mean", head: "Mean", value: (row) => row.it.mean, cell: (row) => number(row.it.mean), right: true },
          {
            id: "from",
            head: "95 % from",
            value: (row) => end(row.it, -1),
            cell: (row) => text(end(row.it, -1)),
            right: true,
          },
          { id: "to", head: "to", value: (row) => end(row.it, 1), cell: (row) => text(end(row.it, 1)), right: true },
          {
            id: "rows",
            head: "Rows",
            value: (row) => Number(row.it.rows),
            cell: (row) => count(row.it.rows),
            right: true,
          },
          {
            id: "share",
            head: "Share",
            value: (row) => row.share?.mean,
            cell: (row) => (row.share && row.share.rows > 0n ? `${(100 * row.share.mean).toFixed(0)} %` : ""),
            right: true,
          },
        ]}
      />
    </section>
  );
}

function Failed({ job }: { job: Job }) {
  const id = last(job.name);
  const read = useLoad(`failed ${id}`, (signal) =>
    results(id, { failuresOnly: true, view: ResultView.PEAKS }, signal, 1000),
  );
  const kinds = kindsOf(job).length;
  return (
    <>
      <Waiting of={read} what="failures" />
      {read.data && (
        <Table
          label="Failures"
          name="failed"
          rows={read.data.items}
          rowKey={(result) => String(result.unit)}
          columns={[
            { id: "unit", head: "Unit", value: (result) => Number(result.unit), right: true },
            { id: "fact", head: "Fact", value: (result) => Math.floor(Number(result.unit) / kinds), right: true },
            {
              id: "kind",
              head: "Kind",
              value: (result) => kindWord(kindsOf(job)[Number(result.unit) % kinds] ?? Kind.UNSPECIFIED),
            },
            {
              id: "message",
              head: "What was said",
              value: (result) => (result.outcome.case === "failure" ? visible(result.outcome.value.message) : ""),
            },
          ]}
          file={`failures-${id}`}
        />
      )}
    </>
  );
}
