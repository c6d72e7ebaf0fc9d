// Scales, round tick values and widths of labels, as src/plot/axis.rs has them.

import { number } from "../format";

/** The typefaces of every figure, Times first as in the paper. */
export const FONTS = "'Times New Roman', 'Liberation Serif', 'Nimbus Roman', Times, serif";
export const INK = "#1a1a1a";
export const SOFT = "#666666";

export interface Scale {
  floor: number;
  ceiling: number;
}

const finite = (values: readonly number[]) => values.filter(Number.isFinite);
const most = (values: readonly number[], from: number) => values.reduce((best, value) => Math.max(best, value), from);
const least = (values: readonly number[], from: number) => values.reduce((best, value) => Math.min(best, value), from);

/** From `floor` to `ceiling`, by default the highest value that is a number. */
export function scale(values: readonly number[], floor: number, ceiling?: number): Scale {
  return { floor, ceiling: Math.max(floor, ceiling ?? most(finite(values), floor)) };
}

/** The same to both sides of `middle`, where a value lies visibly below it. */
export function around(values: readonly number[], middle: number, ceiling?: number): Scale | undefined {
  const above = scale(values, middle, ceiling).ceiling - middle;
  const below = middle - least(finite(values), middle);
  const far = Math.max(above, below);
  // Less is paler than the first step of a ramp.
  return below > far / 32 ? { floor: middle - far, ceiling: middle + far } : undefined;
}

/** Where a value lies in 0..1; nothing for one that is not a number, which has no place on a scale. */
export function position(value: number, { floor, ceiling }: Scale): number | undefined {
  if (!Number.isFinite(value)) return undefined;
  if (ceiling <= floor) return 0;
  return Math.min(1, Math.max(0, (value - floor) / (ceiling - floor)));
}

/** Round values inside `low..high`, parted into about `count` intervals, with their labels. */
export function ticks(low: number, high: number, count: number): [number, string][] {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [[low, number(low)]];
  const rough = span / Math.max(1, count);
  let exponent = Math.floor(Math.log10(rough));
  const m = rough / 10 ** exponent;
  let unit = m < Math.SQRT2 ? 1 : m < Math.sqrt(10) ? 2 : m < Math.sqrt(50) ? 5 : 10;
  if (unit === 10) {
    unit = 1;
    exponent += 1;
  }
  const step = unit * 10 ** exponent;
  const first = Math.ceil(low / step - 5e-4);
  const last = Math.floor(high / step + 5e-4);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => {
    const value = (first + i) * step;
    const label =
      exponent < -4
        ? first + i === 0
          ? "0"
          : value.toExponential(3).replace(/\.?0+e/, "e")
        : value.toFixed(Math.max(0, -exponent));
    return [value, label];
  });
}

/** Layers to label so that labels stand at least `spacing` cells apart. */
export function layerTicks(layers: number, spacing: number): number[] {
  let step = 1;
  for (let turn = 0; step < Math.max(1, spacing); turn++)
    step = ([2, 5, 10][turn % 3] as number) * 10 ** Math.floor(turn / 3);
  return Array.from({ length: Math.ceil(layers / step) }, (_, i) => i * step);
}

let measuring: CanvasRenderingContext2D | null | undefined;

/** How wide a text is drawn here: of the typeface that this browser really has. */
export function measured(text: string, size: number): number {
  measuring ??= document.createElement("canvas").getContext("2d");
  if (!measuring) return text.length * size * 0.6;
  measuring.font = `${size}px ${FONTS}`;
  return measuring.measureText(text).width;
}

/** A text cut to a width, with a sign where something is missing. */
export function cut(text: string, size: number, width: number): string {
  if (measured(text, size) <= width) return text;
  const signs = Array.from(text);
  let [low, high] = [0, signs.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (measured(`${signs.slice(0, middle).join("")}…`, size) <= width) low = middle;
    else high = middle - 1;
  }
  return `${signs.slice(0, low).join("")}…`;
}
