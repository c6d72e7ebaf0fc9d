// Two sweeps over each other: averages as curves with both bands, a fact's maps with their difference, and the
// same of heads, a position a page.

import { signal } from "@preact/signals";
import { useMemo } from "preact/hooks";

import type { Job } from "../../contract/palimpsest/v1/job_pb";
import type { Grid, KindAverages, Metric } from "../../contract/palimpsest/v1/trace_pb";
import { kindWord, last, metricWord, number, roleWord, token } from "../format";
import { results } from "../job";
import { useLoad } from "../live";
import { Choice, Waiting } from "../parts/common";
import { Curves } from "../parts/Curves";
import { HeatMap } from "../parts/HeatMap";
import { asked, setQuery } from "../route";
import {
  effect,
  figure,
  isOfHeads,
  isOverTokens,
  peak,
  ramp,
  readings,
  roleSite,
  rows,
  site,
  type Reading,
} from "../sweep";
import { Prompt } from "./SweepFacts";

export interface Pair {
  key: string;
  left: Grid;
  right: Grid;
  units: [bigint, bigint];
}

const mean = (it: { rows: bigint; mean: number }) => (it.rows > 0n ? it.mean : NaN);

/** The averages of both at one role. */
export function Averages({ one, other }: { one: KindAverages; other: KindAverages }) {
  const heads = isOfHeads(one.kind);
  const roles = one.roles.filter((it) => it.byLayer.some((mean) => mean.rows > 0n));
  const usual = heads ? site(one)?.role : 3;
  const role =
    roles.find((it) => String(it.role) === asked("role"))?.role ??
    roles.find((it) => it.role === usual)?.role ??
    roles[0]?.role;
  if (role === undefined) return null;
  const of = (averages: KindAverages) => averages.roles.find((it) => it.role === role)?.byLayer ?? [];
  const said = (averages: KindAverages) => {
    const it = roleSite(averages, role);
    const head = it?.head === undefined ? "" : `, head ${it.head}`;
    return it ? `${figure(it.effect)} at layer ${it.layer}${head}` : "none";
  };
  const title = `${kindWord(one.kind)}, ${roleWord(role)}`;
  return (
    <section>
      <h2>Averages</h2>
      {roles.length > 1 && (
        <Choice
          label="At the"
          value={String(role)}
          options={roles.map((it) => [String(it.role), roleWord(it.role)] as const)}
          onChange={(it) => setQuery({ role: it })}
        />
      )}
      <p>
        Highest at the {roleWord(role)}: left {said(one)}; right {said(other)}.
      </p>
      {heads ? (
        <Three
          title={title}
          left={of(one).map(mean)}
          right={of(other).map(mean)}
          labels={Array.from({ length: one.heads }, (_, head) => `head ${head}`)}
          rowName="head"
          layers={one.layers}
          of={one}
          valueLabel="AIE"
          file="compare-averages"
        />
      ) : (
        <Curves
          title={title}
          xLabel="layer"
          yLabel="AIE"
          xName="layer"
          series={[one, other].map((averages, side) => ({
            name: ["left", "right"][side] ?? "",
            mean: of(averages).map(mean),
            half: of(averages).map((it) => it.halfWidth),
          }))}
          file="compare-averages"
        />
      )}
    </section>
  );
}

/** One fact in both. */
export function Fact({ a, b, pair, metric }: { a: Job; b: Job; pair: Pair; metric: Metric }) {
  const read = useLoad(`both ${a.name} ${b.name} ${pair.key} ${pair.units[1]}`, async (signal) => {
    const get = async (job: Job, first: bigint) => {
      const { items } = await results(last(job.name), { first }, signal, 1);
      return items[0]?.outcome.case === "grid" ? items[0].outcome.value : undefined;
    };
    const [left, right] = await Promise.all([get(a, pair.units[0]), get(b, pair.units[1])]);
    return { left, right };
  });
  const [left, right] = [read.data?.left, read.data?.right];
  if (!left || !right || left.layers === 0 || right.layers === 0)
    return read.data ? <p class="quiet">This fact was not traced in both.</p> : <Waiting of={read} what="maps" />;
  return (
    <section>
      <h2>
        <Prompt grid={left} />
      </h2>
      <Grids left={left} right={right} metric={metric} />
    </section>
  );
}

function Grids({ left, right, metric }: { left: Grid; right: Grid; metric: Metric }) {
  const in_ = (grid: Grid): Reading =>
    readings(grid).find((it) => it.metric === metric) ?? (readings(grid)[0] as Reading);
  const over = isOverTokens(left.kind);
  if (left.layers !== right.layers || left.heads !== right.heads)
    return <p class="quiet">The two models have other layers or heads: there is no cell that both have.</p>;
  if (!over && left.tokens.length !== right.tokens.length)
    return <p class="quiet">The prompt has other tokens in the two: they are looked at in their own sweeps.</p>;
  const [l, r] = [in_(left), in_(right)];
  const wanted = Number(asked("token", String(peak(left, l)?.token ?? 0)));
  const at = wanted < left.tokens.length ? wanted : 0;
  const shown = (grid: Grid, reading: Reading) =>
    rows(
      grid,
      reading.scores.map((score) => effect(score, reading, grid.direction)),
      at,
    );
  const paged = left.heads > 0 && !over;
  const one = shown(left, l);
  return (
    <>
      {paged && (
        <Choice
          label="Heads at"
          value={String(at)}
          options={left.tokens.map((text, n) => [String(n), `${n} ${token(text)}`] as const)}
          onChange={(it) => setQuery({ token: it })}
        />
      )}
      <Three
        title={paged ? `${kindWord(left.kind)} at ${token(left.tokens[at] ?? "")}` : kindWord(left.kind)}
        left={one.values}
        right={shown(right, r).values}
        labels={one.labels}
        starred={one.starred}
        rowName={one.of}
        layers={left.layers}
        of={left}
        valueLabel={l.metric === readings(left)[0]?.metric ? "effect" : `effect, ${metricWord(l.metric)}`}
        file="compare"
      />
    </>
  );
}

/** Left, right and what lies between them: the first two on one scale, with one cursor over all. */
function Three({
  title,
  left,
  right,
  labels,
  starred,
  rowName,
  layers,
  of,
  valueLabel,
  file,
}: {
  title: string;
  left: readonly number[];
  right: readonly number[];
  labels: readonly string[];
  starred?: readonly [number, number];
  rowName: string;
  layers: number;
  of: { kind: Grid["kind"] };
  valueLabel: string;
  file: string;
}) {
  const cursor = useMemo(() => signal<number | undefined>(undefined), [title]);
  const difference = right.map((value, i) => value - (left[i] ?? NaN));
  const most = Math.max(...[...left, ...right].filter(Number.isFinite));
  const line = (at: number) =>
    `${labels[Math.floor(at / layers)]}, layer ${at % layers}: left ${number(left[at] ?? NaN)}, right ${number(right[at] ?? NaN)}, difference ${number(difference[at] ?? NaN)}`;
  const sides = [
    ["Left", left, most],
    ["Right", right, most],
    ["Right less left", difference, undefined],
  ] as const;
  return (
    <div class="maps">
      {sides.map(([side, values, ceiling]) => (
        <HeatMap
          title={`${side}: ${title}`}
          xLabel="layer"
          valueLabel={valueLabel}
          rowName={rowName}
          labels={labels}
          starred={starred}
          layers={layers}
          values={values}
          ramp={ramp(of.kind)}
          low={0}
          signed
          ceiling={ceiling}
          cursor={cursor}
          line={line}
          file={`${file}-${side.toLowerCase().replaceAll(" ", "-")}`}
        />
      ))}
    </div>
  );
}
