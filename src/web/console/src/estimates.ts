// How good the estimates of a grid are, by the cells that were patched exactly: as src/causal/verification.rs.

import { Engine, type Grid } from "../contract/palimpsest/v1/trace_pb";
import { number, token } from "./format";
import { effect, readings, type Reading } from "./sweep";

/** The ranks of values, of which equal ones share the mean. */
function ranks(values: readonly number[]): number[] {
  return values.map((value) => {
    const below = values.filter((it) => it < value).length;
    const equal = values.filter((it) => it === value).length;
    return below + (equal + 1) / 2;
  });
}

/** Spearman's rank correlation; nothing where all values of a side are equal. */
export function rankCorrelation(one: readonly number[], other: readonly number[]): number | undefined {
  const [a, b] = [ranks(one), ranks(other)];
  const middle = (one.length + 1) / 2;
  const sum = (of: (i: number) => number) => a.reduce((total, _, i) => total + of(i), 0);
  const [x, y] = [(i: number) => (a[i] as number) - middle, (i: number) => (b[i] as number) - middle];
  const spread = Math.sqrt(sum((i) => x(i) ** 2) * sum((i) => y(i) ** 2));
  return spread > 0 ? sum((i) => x(i) * y(i)) / spread : undefined;
}

/** What is said of a grid of estimates; nothing of an exact one. */
export function estimates(grid: Grid, reading: Reading): string[] {
  if (grid.engine !== Engine.ATTRIBUTION) return [];
  const steps = grid.attributionSteps > 1 ? `, gradients over ${grid.attributionSteps} inputs` : "";
  const said = [
    `Estimates by attribution patching${steps}${grid.gradDrop ? ", magnitudes without a sign" : ""}, not exact.`,
  ];
  const which = readings(grid).findIndex((it) => it.metric === reading.metric);
  const cells = grid.verified.flatMap((cell) => {
    const exact = cell.exact[Math.max(0, which)];
    // Of a neuron the grid shows the strongest alone, and this one may be another.
    const row = cell.token * Math.max(1, grid.heads) + (cell.head ?? 0);
    const score = cell.estimate[Math.max(0, which)] ?? reading.scores[row * grid.layers + cell.layer];
    if (exact === undefined || score === undefined) return [];
    const it = effect(exact, reading, grid.direction);
    return [{ cell, estimate: effect(score, reading, grid.direction), exact: grid.gradDrop ? Math.abs(it) : it }];
  });
  const [first] = cells;
  if (!first) return said;
  const far = (it: typeof first) => Math.abs(it.estimate - it.exact);
  const miss = cells.reduce((most, next) => (far(next) > far(most) ? next : most), first);
  const random = cells.filter(({ cell }) => cell.random);
  const ranked = rankCorrelation(
    cells.map((it) => it.estimate),
    cells.map((it) => it.exact),
  );
  said.push(
    `${cells.length - random.length} cells of the largest estimates and ${random.length} by chance were patched exactly: ${ranked === undefined ? "" : `ranks correlate with ${number(ranked)}; `}the furthest miss is ${number(far(miss))}, at ${token(grid.tokens[miss.cell.token] ?? "")}, layer ${miss.cell.layer}.`,
  );
  if (random.length > 0) {
    const most = Math.max(...random.map((it) => Math.abs(it.exact)));
    said.push(
      `At most ${Math.ceil(100 * (1 - 0.05 ** (1 / random.length)))} % of the other cells have an effect over ${number(most)} (95 %).`,
    );
  }
  return said;
}
