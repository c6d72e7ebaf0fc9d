// The colours of the figures, those of src/plot/palette.rs: a test of the program holds the two together.

/** What was restored, as figures tell it apart: purple, green, red. */
export type Ramp = "hidden" | "mlp" | "attn";

const PURPLES = [0xfcfbfd, 0xefedf5, 0xdadaeb, 0xbcbddc, 0x9e9ac8, 0x807dba, 0x6a51a3, 0x54278f, 0x3f007d];
const GREENS = [0xf7fcf5, 0xe5f5e0, 0xc7e9c0, 0xa1d99b, 0x74c476, 0x41ab5d, 0x238b45, 0x006d2c, 0x00441b];
const REDS = [0xfff5f0, 0xfee0d2, 0xfcbba1, 0xfc9272, 0xfb6a4a, 0xef3b2c, 0xcb181d, 0xa50f15, 0x67000d];
const ORANGES = [0xfff5eb, 0xfee6ce, 0xfdd0a2, 0xfdae6b, 0xfd8d3c, 0xf16913, 0xd94801, 0xa63603, 0x7f2704];
const BLUES = [0xf7fbff, 0xdeebf7, 0xc6dbef, 0x9ecae1, 0x6baed6, 0x4292c6, 0x2171b5, 0x08519c, 0x08306b];

/** Each kind's ramp, palest first, and the one that stands opposite. */
const RAMPS: Record<Ramp, [readonly number[], readonly number[]]> = {
  hidden: [PURPLES, ORANGES],
  mlp: [GREENS, PURPLES],
  attn: [REDS, BLUES],
};

/** Line colours that stay apart under the common colour-vision deficiencies (Okabe and Ito). */
export const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"] as const;
/** Dashes of the curves in the same order, for print without colour. */
export const DASHES = ["", "7 3", "4 2", "8 3 2 3"] as const;

/** A colour as red, green and blue, 0 to 255. */
export type Rgb = readonly [number, number, number];

const rgb = (hex: number): Rgb => [hex >> 16, (hex >> 8) & 255, hex & 255];

/** The anchors of a ramp; before them, where it has two sides, the opposite one's, darkest first. */
export function anchors(ramp: Ramp, twoSided: boolean): Rgb[] {
  const [own, opposite] = RAMPS[ramp];
  const below = twoSided ? opposite.slice(1).reverse() : [];
  return [...below, ...own].map(rgb);
}

/** The colour at a place in 0..1 of a scale, linear between its anchors. */
export function shade(of: readonly Rgb[], position: number): Rgb {
  const steps = of.length - 1;
  const at = Math.min(1, Math.max(0, position)) * steps;
  const low = Math.min(steps - 1, Math.floor(at));
  const part = at - low;
  const a = of[low] as Rgb;
  const b = of[low + 1] as Rgb;
  const mix = (i: 0 | 1 | 2) => Math.round(a[i] + (b[i] - a[i]) * part);
  return [mix(0), mix(1), mix(2)];
}

export function css([r, g, b]: Rgb): string {
  return `#${((r << 16) | (g << 8) | b).toString(16).padStart(6, "0")}`;
}

/** The line colour that stands for a kind. */
export function line(ramp: Ramp): string {
  return css(rgb(RAMPS[ramp][0][6] as number));
}
