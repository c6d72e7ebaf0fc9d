// What a sweep's numbers say: rows of a grid, effects, peaks and the sentences about them.

import {
  TokenRole,
  Kind,
  Metric,
  Direction,
  Engine,
  type Grid,
  type KindAverages,
  type Mean,
  type Paths,
} from "../contract/palimpsest/v1/trace_pb";
import { inputWord, kindWord, metricWord, number, roleWord, some, token } from "./format";
import type { Ramp } from "./colours";

/** The six roles of single tokens, in the order of a prompt. */
export const ROLES = [
  TokenRole.FIRST_SUBJECT,
  TokenRole.MIDDLE_SUBJECT,
  TokenRole.LAST_SUBJECT,
  TokenRole.FIRST_SUBSEQUENT,
  TokenRole.FURTHER,
  TokenRole.LAST,
] as const;

const OF_HEADS: Kind[] = [Kind.HEAD, Kind.HEAD_Q, Kind.HEAD_K, Kind.HEAD_V, Kind.HEAD_PATTERN];
const OVER_TOKENS: Kind[] = [Kind.HEAD_ALL, Kind.HEAD_Q_ALL, Kind.HEAD_K_ALL, Kind.HEAD_V_ALL, Kind.HEAD_PATTERN_ALL];

/** Whether a cell of this kind is of one head. */
export const isOfHeads = (kind: Kind) => OF_HEADS.includes(kind) || OVER_TOKENS.includes(kind);
/** Whether a cell of this kind restores every token. */
export const isOverTokens = (kind: Kind) => OVER_TOKENS.includes(kind);

/** The colours of a kind, as figures of the command line have them. */
export function ramp(kind: Kind): Ramp {
  if (kind === Kind.MLP) return "mlp";
  if (kind === Kind.ATTN || isOfHeads(kind)) return "attn";
  return "hidden";
}

/** A metric of a grid. */
export interface Reading {
  metric: Metric;
  clean: number;
  corrupted: number;
  scores: readonly number[];
}

/** What a grid shows, the probability first. */
export function readings(grid: Grid): Reading[] {
  const own = { metric: Metric.PROBABILITY, clean: grid.high, corrupted: grid.low, scores: grid.scores };
  return [own, ...grid.readings];
}

/** Whether a metric falls as the answer comes back. */
const falls = (metric: Metric) => metric === Metric.KL || metric === Metric.RANK;

/** What a score brings back; in noising, what it takes away. */
export function effect(score: number, reading: Reading, direction: Direction): number {
  const gained = direction === Direction.NOISING ? reading.clean - score : score - reading.corrupted;
  return falls(reading.metric) ? -gained : gained;
}

/** The rows of a grid that a map shows: tokens by layers, or heads by layers at a token. */
export interface Rows {
  labels: string[];
  starred: [number, number];
  values: number[];
  layers: number;
  /** What a row is: a token or a head. */
  of: "token" | "head";
}

/** `at` is the token at which heads are shown, where a grid has both. */
export function rows(grid: Grid, scores: readonly number[], at: number): Rows {
  const layers = grid.layers;
  if (grid.heads === 0) {
    const starred: [number, number] = [grid.subjectBegin, grid.subjectEnd];
    return { labels: grid.tokens.map(token), starred, values: [...scores], layers, of: "token" };
  }
  const labels = Array.from({ length: grid.heads }, (_, head) => `head ${head}`);
  const cells = grid.heads * layers;
  const first = isOverTokens(grid.kind) ? 0 : at * cells;
  return { labels, starred: [0, 0], values: scores.slice(first, first + cells), layers, of: "head" };
}

/** What the tokens of a prompt are to its subject; a token may be several. */
export function rolesOf(at: number, grid: Pick<Grid, "subjectBegin" | "subjectEnd" | "tokens">): TokenRole[] {
  const [b, e, n] = [grid.subjectBegin, grid.subjectEnd, grid.tokens.length];
  const holds: [TokenRole, boolean][] = [
    [TokenRole.LAST_SUBJECT, at === e - 1],
    [TokenRole.FIRST_SUBJECT, at === b],
    [TokenRole.MIDDLE_SUBJECT, at > b && at < e - 1],
    [TokenRole.LAST, at === n - 1],
    [TokenRole.FIRST_SUBSEQUENT, at === e],
    [TokenRole.FURTHER, at > e && at < n - 1],
  ];
  return holds.filter(([, it]) => it).map(([role]) => role);
}

/** The cell of a grid with the highest effect, the first one of equals. */
export function peak(
  grid: Grid,
  reading: Reading,
): { token: number; head: number | undefined; layer: number; effect: number } | undefined {
  let best: { at: number; effect: number } | undefined;
  reading.scores.forEach((score, at) => {
    const it = effect(score, reading, grid.direction);
    if (Number.isFinite(it) && (!best || it > best.effect)) best = { at, effect: it };
  });
  if (!best) return undefined;
  const layer = best.at % grid.layers;
  const row = Math.floor(best.at / grid.layers);
  if (grid.heads === 0) return { token: row, head: undefined, layer, effect: best.effect };
  const over = isOverTokens(grid.kind);
  return { token: over ? 0 : Math.floor(row / grid.heads), head: row % grid.heads, layer, effect: best.effect };
}

/** The layer where an edit of this fact belongs: the highest MLP effect at the subject's last token. */
export function editLayer(grid: Grid): { layer: number; effect: number } | undefined {
  if (grid.kind !== Kind.MLP || grid.layers === 0 || grid.subjectEnd === 0) return undefined;
  const [own] = readings(grid);
  if (!own) return undefined;
  const first = (grid.subjectEnd - 1) * grid.layers;
  let best = { layer: 0, effect: -Infinity };
  own.scores.slice(first, first + grid.layers).forEach((score, layer) => {
    const it = effect(score, own, grid.direction);
    if (it > best.effect) best = { layer, effect: it };
  });
  return best;
}

/** `0.231 (95 % 0.190 to 0.270, 11 rows)`. */
export function figure(mean: Mean): string {
  if (mean.halfWidth === undefined) return `${number(mean.mean)} (${some(mean.rows, "row")})`;
  const [from, to] = [mean.mean - mean.halfWidth, mean.mean + mean.halfWidth];
  return `${number(mean.mean)} (95 % ${number(from)} to ${number(to)}, ${some(mean.rows, "row")})`;
}

/** A place of averages. */
export interface Site {
  role: TokenRole;
  head: number | undefined;
  layer: number;
  effect: Mean;
}

/** The highest average of a role. */
export function roleSite(averages: KindAverages, role: TokenRole): Site | undefined {
  const found = averages.roles.find((it) => it.role === role);
  let best: Site | undefined;
  found?.byLayer.forEach((effect, at) => {
    if (effect.rows > 0n && (!best || effect.mean > best.effect.mean)) {
      const head = averages.heads > 0 ? Math.floor(at / averages.layers) : undefined;
      best = { role, head, layer: at % averages.layers, effect };
    }
  });
  return best;
}

/** The highest average of all. */
export function site(averages: KindAverages): Site | undefined {
  let best: Site | undefined;
  for (const { role } of averages.roles) {
    const found = roleSite(averages, role);
    if (found && (!best || found.effect.mean > best.effect.mean)) best = found;
  }
  return best;
}

/** The layers around a site whose mean lies in its interval: what the facts cannot tell from the peak. */
export function plateau(averages: KindAverages, at: Site): [number, number] {
  if (at.effect.halfWidth === undefined) return [at.layer, at.layer];
  const from = at.effect.mean - at.effect.halfWidth;
  const begin = (at.head ?? 0) * averages.layers;
  const row = averages.roles.find((it) => it.role === at.role)?.byLayer.slice(begin, begin + averages.layers) ?? [];
  let [low, high] = [at.layer, at.layer];
  while (low > 0 && (row[low - 1]?.mean ?? -Infinity) >= from) low -= 1;
  while (high + 1 < row.length && (row[high + 1]?.mean ?? -Infinity) >= from) high += 1;
  return [low, high];
}

/** What the averages of a kind say, in a sentence. */
export function sentence(averages: KindAverages): string {
  const best = site(averages);
  if (!best) return "No fact of this kind was traced.";
  const where = `layer ${best.layer}${best.head === undefined ? "" : `, head ${best.head}`}`;
  const of =
    best.role === TokenRole.EVERY
      ? `Effects of the ${kindWord(averages.kind)} peak at ${where}`
      : `${kindWord(averages.kind)} effects peak at the ${roleWord(best.role)}, ${where}`;
  return `${of.charAt(0).toUpperCase()}${of.slice(1)}: ${figure(best.effect)}.`;
}

/** What a reader must know of how the numbers came about. */
export function manner(averages: KindAverages): string[] {
  const said: string[] = [];
  if (averages.engine === Engine.ATTRIBUTION) {
    const steps = averages.attributionSteps > 1 ? `, gradients over ${averages.attributionSteps} inputs` : "";
    said.push(
      `These are estimates by attribution patching${steps}${averages.gradDrop ? ", magnitudes without a sign" : ""}, not exact.`,
    );
  }
  if (averages.direction === Direction.NOISING)
    said.push("The clean run is patched with corrupted states: an effect is what that takes away.");
  if (averages.wholeAnswers) said.push("Answers are read whole, by the mean over their tokens.");
  if (averages.paths) said.push(pathsWord(averages.paths));
  if (averages.wrong > 0n)
    said.push(`${some(averages.wrong, "fact")} answered otherwise than expected, in none of the means.`);
  if (averages.withoutShare > 0n)
    said.push(`${some(averages.withoutShare, "fact")} with a total effect too small to divide by.`);
  return said;
}

/** All of an answer, which has one token unless answers are read whole. */
export function answerOf(grid: Grid): string {
  return [grid.answer, ...grid.answerRest.map((it) => it.text)].join("");
}

/** The same of what it is compared with. */
export function foilOf(grid: Grid): string | undefined {
  return grid.foil && [grid.foil.text, ...grid.foilRest.map((it) => it.text)].join("");
}

export function pathsWord(paths: Paths): string {
  const ends = paths.receivers.map((it) => `${it.layer}.${it.head} ${inputWord(it.input)}`);
  return `Patched along the paths into ${ends.join(", ")}${paths.frozenMlps ? ", with the MLPs on the way held" : ""}.`;
}

/** The line that a cell says, the same for mouse and keys. */
export function cellLine(grid: Grid, reading: Reading, row: Rows, at: number, shownToken: number): string {
  const layer = at % row.layers;
  const index = Math.floor(at / row.layers);
  const score = row.values[at] ?? NaN;
  const it = effect(score, reading, grid.direction);
  const total = falls(reading.metric) ? reading.corrupted - reading.clean : reading.clean - reading.corrupted;
  const where =
    row.of === "token"
      ? `${row.labels[index] ?? ""}${rolesOf(index, grid).length ? ` (${roleWord(rolesOf(index, grid)[0] as TokenRole)})` : ""}`
      : `${row.labels[index] ?? ""}${isOverTokens(grid.kind) ? "" : ` at ${token(grid.tokens[shownToken] ?? "")}`}`;
  const window =
    grid.window > 1
      ? ` (window ${Math.max(0, layer - Math.floor(grid.window / 2))} to ${Math.min(grid.layers - 1, layer - Math.floor(grid.window / 2) + grid.window - 1)})`
      : "";
  const name = reading.metric === Metric.PROBABILITY ? `p(${answerOf(grid).trim()})` : metricWord(reading.metric);
  const share = Math.abs(total) > 1e-6 ? `, ${((100 * it) / total).toFixed(0)} % of the total effect` : "";
  const neuron = grid.neurons[at] === undefined ? "" : `, neuron ${grid.neurons[at]}`;
  return `${where}, layer ${layer}${window}${neuron}: ${name} ${number(score)}, effect ${number(it)}${share}`;
}
