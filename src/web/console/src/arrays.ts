// Grids as NumPy files, in the form of the published causal tracing code: one a fact, kind and metric, with the
// arrays and names that `palimpsest job results --npz` gives them (src/cli/results/trace/files.rs).

import { Direction, Engine, Kind, Metric, type Grid } from "../contract/palimpsest/v1/trace_pb";
import { directionWord, inputWord, kindName } from "./format";
import { answerOf, foilOf, isOfHeads, isOverTokens, readings, type Reading } from "./sweep";
import { npz, type NpArray } from "./npz";

/** Most characters of a subject in a file's name. */
const LONGEST = 40;

const one = (name: string, text: string): NpArray => ({ name, shape: [], data: [text] });
const whole = (name: string, values: readonly number[], shape = [values.length]): NpArray => ({
  name,
  shape,
  data: BigInt64Array.from(values, BigInt),
});
const real = (name: string, values: readonly number[], shape = [values.length]): NpArray => ({
  name,
  shape,
  data: Float64Array.from(values),
});
const truth = (name: string, values: readonly boolean[], shape = [values.length]): NpArray => ({
  name,
  shape,
  data: values,
});

/** The files of a grid, one of each of these metrics. `fact` is its fact's place, of so many. */
export function files(
  grid: Grid,
  fact: number,
  facts: number,
  metrics: readonly Metric[],
): { name: string; data: Uint8Array<ArrayBuffer> }[] {
  const digits = Math.max(3, String(facts).length);
  const stem = `${String(fact + 1).padStart(digits, "0")}_${readable(grid.fact?.subject ?? "")}_${kindName(grid.kind)}`;
  const has = readings(grid);
  return metrics.flatMap((metric) => {
    const place = has.findIndex((it) => it.metric === metric);
    const reading = has[place];
    // What was not traced has no reading, and says why in a file of each.
    if (!reading && grid.layers > 0) return [];
    const end = metric === Metric.PROBABILITY ? "" : `_${metricName(metric)}`;
    return [{ name: `${stem}${end}.npz`, data: npz(reading ? arrays(grid, reading, place) : untraced(grid)) }];
  });
}

const metricName = (metric: Metric) => (Metric[metric] ?? "").toLowerCase();

/** A subject as a part of a file's name: letters and digits in lower case. */
function readable(subject: string): string {
  const words = subject
    .toLowerCase()
    .split(/[^\p{Alphabetic}\p{N}]+/u)
    .filter(Boolean);
  const name = Array.from(words.join("-")).slice(0, LONGEST).join("");
  return name.replace(/-+$/, "") || "fact";
}

function untraced(grid: Grid): NpArray[] {
  const known = truth("correct_prediction", [grid.untraced !== ""], []);
  return grid.untraced ? [known, one("untraced", grid.untraced)] : [known];
}

function arrays(grid: Grid, reading: Reading, place: number): NpArray[] {
  if (grid.layers === 0) return untraced(grid);
  const tokens = grid.tokens.length;
  const shape =
    grid.heads === 0
      ? [tokens, grid.layers]
      : isOverTokens(grid.kind)
        ? [grid.heads, grid.layers]
        : [tokens, grid.heads, grid.layers];
  const made: NpArray[] = [
    { name: "scores", shape, data: Float32Array.from(reading.scores) },
    real("low_score", [reading.corrupted], []),
    real("high_score", [reading.clean], []),
    whole("input_ids", grid.tokenIds),
    { name: "input_tokens", shape: [tokens], data: grid.tokens },
    whole("subject_range", [grid.subjectBegin, grid.subjectEnd]),
    one("answer", answerOf(grid)),
    whole("window", [grid.window], []),
    truth("correct_prediction", [true], []),
    one("kind", grid.kind === Kind.HIDDEN ? "" : kindName(grid.kind)),
  ];
  // What the published form has no arrays for.
  if (reading.metric !== Metric.PROBABILITY) made.push(one("metric", metricName(reading.metric)));
  if (grid.corrupted) {
    made.push(
      one("corrupted_prompt", grid.corrupted.prompt),
      whole(
        "corrupted_ids",
        grid.corrupted.tokens.map((it) => it.id),
      ),
      one("direction", directionWord(grid.direction || Direction.DENOISING)),
    );
  }
  const foil = foilOf(grid);
  if (foil !== undefined) made.push(one("foil", foil));
  if (grid.wholeAnswers) made.push(truth("whole_answers", [true], []));
  if (grid.paths) {
    const ends = grid.paths.receivers.map((it) => `${it.layer}.${it.head}.${inputWord(it.input).charAt(0)}`);
    made.push({ name: "receivers", shape: [ends.length], data: ends });
  }
  if (grid.engine === Engine.ATTRIBUTION) made.push(...estimated(grid, shape, place));
  return made;
}

/** What is said of estimates, and of the cells among them that were patched exactly. */
function estimated(grid: Grid, shape: number[], place: number): NpArray[] {
  const steps = grid.attributionSteps > 1 ? `, gradients of ${grid.attributionSteps} steps` : "";
  const cells = grid.verified;
  const made = [one("estimate", `first-order estimate${steps}${grid.gradDrop ? ", magnitudes by gradient drop" : ""}`)];
  if (grid.neurons.length > 0) {
    made.push(
      whole("neurons", grid.neurons, shape),
      whole(
        "verified_neurons",
        cells.flatMap((it) => (it.neuron === undefined ? [] : [it.neuron])),
      ),
    );
  }
  if (isOfHeads(grid.kind)) {
    const heads = cells.flatMap((it) => (it.head === undefined ? [] : [it.head]));
    made.push(whole("verified_heads", heads));
  }
  made.push(
    whole(
      "verified_cells",
      cells.flatMap((it) => [it.token, it.layer]),
      [cells.length, 2],
    ),
    truth(
      "verified_random",
      cells.map((it) => it.random),
    ),
    real(
      "verified_scores",
      cells.flatMap((it) => it.exact.slice(place, place + 1)),
    ),
  );
  return made;
}
