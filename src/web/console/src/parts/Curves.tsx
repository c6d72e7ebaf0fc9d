// Lines with their 95 % bands, as src/plot/curves.rs draws them: by layer, by step, by batch.

import { useId, useRef, useState } from "preact/hooks";

import { number } from "../format";
import { DASHES, LINES } from "../colours";
import { cut, FONTS, INK, layerTicks, measured, ticks } from "./ticks";
import { useWidth } from "./common";
import { Figure } from "./Figure";

const BODY = 12;
const TITLE = 14;

export interface Series {
  name: string;
  mean: readonly number[];
  /** Half of the 95 % interval; empty where there is none. */
  half?: readonly (number | undefined)[];
  colour?: string;
  dashes?: string;
}

export interface CurvesProps {
  title: string;
  xLabel: string;
  yLabel: string;
  series: readonly Series[];
  /** What a place on the x axis is called: "layer". */
  xName: string;
  /** Numbers of the places, where they do not count from 0. */
  xs?: readonly number[];
  file: string;
  height?: number;
  /** Whether the y axis begins at 0 whatever the values are. */
  fromZero?: boolean;
}

export function Curves(props: CurvesProps) {
  const { series, xName } = props;
  const [box, width] = useWidth();
  const [at, setAt] = useState<number | undefined>(undefined);
  const [focused, setFocused] = useState(false);
  const svg = useRef<SVGSVGElement>(null);
  const id = useId();
  const places = series.reduce((most, it) => Math.max(most, it.mean.length), 0);
  if (places === 0) return <p class="quiet">There is nothing to draw yet.</p>;
  const xs = props.xs ?? Array.from({ length: places }, (_, i) => i);

  const [low, high] = bounds(series, props.fromZero ?? false);
  const yTicks = ticks(low, high, 6);
  const yWidth = yTicks.reduce((wide, [, text]) => Math.max(wide, measured(text, BODY)), 0);
  const total = Math.max(240, Math.min(width, 700));
  const legend = series.reduce((wide, it) => Math.max(wide, measured(it.name, BODY)), 0) + 40;
  const beside = total >= 560 && series.length > 1;
  const left = Math.ceil(yWidth + 30);
  const right = beside ? Math.min(legend, 200) + 14 : 12;
  const plotWidth = total - left - right;
  const plotHeight = props.height ?? 230;
  const top = TITLE + 16;
  const bottom = top + plotHeight;
  const perRow = Math.max(1, Math.floor((total - left) / Math.max(1, legend)));
  const legendRows = series.length > 1 && !beside ? Math.ceil(series.length / perRow) : 0;
  const height = bottom + 40 + legendRows * 17;
  const inset = 10;
  const step = places > 1 ? (plotWidth - 2 * inset) / (places - 1) : 0;
  const x = (i: number) => left + (places > 1 ? inset + i * step : plotWidth / 2);
  const y = (value: number) => top + plotHeight * (1 - (value - low) / (high - low));
  const style = (i: number) => ({
    colour: series[i]?.colour ?? LINES[i % LINES.length] ?? INK,
    dashes: series[i]?.dashes ?? DASHES[i % DASHES.length] ?? "",
  });
  const tickEvery = layerTicks(places, step > 0 ? Math.ceil(34 / step) : 1);

  const said = () => {
    if (at === undefined) return `${series.map((it) => it.name).join(", ")} by ${xName}.`;
    const parts = series
      .filter((it) => Number.isFinite(it.mean[at]))
      .map((it) => {
        const half = it.half?.[at];
        return `${it.name} ${number(it.mean[at] ?? NaN)}${half === undefined ? "" : ` ± ${number(half)}`}`;
      });
    return `${xName} ${xs[at]}: ${parts.join("; ")}`;
  };
  const keys = (event: KeyboardEvent) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    setAt(Math.min(places - 1, Math.max(0, (at ?? -move) + move)));
  };
  const hover = (event: MouseEvent) => {
    const bounds = svg.current?.getBoundingClientRect();
    if (!bounds) return;
    const px = ((event.clientX - bounds.left) * total) / bounds.width;
    const i = step > 0 ? Math.round((px - left - inset) / step) : 0;
    setAt(i >= 0 && i < places ? i : undefined);
  };
  const table = () => {
    const head = [xName, ...series.flatMap((it) => (it.half ? [it.name, `${it.name} ±`] : [it.name]))];
    const rows = xs.map((place, i) => [
      place,
      ...series.flatMap((it) => (it.half ? [it.mean[i], it.half[i]] : [it.mean[i]])),
    ]);
    return { head, rows };
  };
  return (
    <Figure
      kind="curves"
      title={props.title}
      file={props.file}
      box={box}
      svg={() => svg.current}
      sheet={table}
      caption={
        <p class="readout" aria-live={focused ? "polite" : "off"}>
          {said()}
        </p>
      }
    >
      {width > 0 && (
        <svg
          ref={svg}
          class="figure"
          role="img"
          aria-label={`${props.title}. ${said()} Arrow keys go along it.`}
          tabIndex={0}
          width={total}
          height={height}
          viewBox={`0 0 ${total} ${height}`}
          font-family={FONTS}
          font-size={BODY}
          onMouseMove={hover}
          onMouseLeave={() => setAt(undefined)}
          onKeyDown={keys}
          onFocus={() => setFocused(true)}
          onBlur={() => setFocused(false)}
        >
          <rect class="paper" width={total} height={height} fill="#ffffff" />
          <clipPath id={`plot${id}`}>
            <rect x={left} y={top - 2} width={plotWidth} height={plotHeight + 4} />
          </clipPath>
          <text class="ink" x={left + plotWidth / 2} y={TITLE + 4} text-anchor="middle" font-size={TITLE} fill={INK}>
            {cut(props.title, TITLE, total - 16)}
          </text>
          <g stroke-width={0.8}>
            {yTicks.map(([value]) => (
              <line
                class={value === 0 ? "zero" : "grid"}
                x1={left}
                x2={left + plotWidth}
                y1={y(value)}
                y2={y(value)}
                stroke={value === 0 ? "#9a9a9a" : "#e6e6e6"}
              />
            ))}
          </g>
          <g class="ink" text-anchor="end" fill={INK}>
            {yTicks.map(([value, label]) => (
              <text x={left - 6} y={y(value) + 0.34 * BODY}>
                {label}
              </text>
            ))}
          </g>
          <g class="ink" text-anchor="middle" fill={INK}>
            {tickEvery.map((i) => (
              <text x={x(i)} y={bottom + 16}>
                {xs[i]}
              </text>
            ))}
            <text x={left + plotWidth / 2} y={bottom + 33}>
              {cut(props.xLabel, BODY, total - 16)}
            </text>
            <text transform={`translate(${BODY} ${top + plotHeight / 2}) rotate(-90)`}>
              {cut(props.yLabel, BODY, plotHeight)}
            </text>
          </g>
          <g clip-path={`url(#plot${id})`}>
            {series.map((it, i) =>
              runs(it).map((run) => <Band run={run} series={it} x={x} y={y} colour={style(i).colour} />),
            )}
            {series.map((it, i) => runs(it).map((run) => <Line run={run} series={it} x={x} y={y} {...style(i)} />))}
          </g>
          <rect
            class="rule"
            x={left}
            y={top}
            width={plotWidth}
            height={plotHeight}
            fill="none"
            stroke="#9a9a9a"
            stroke-width={0.8}
          />
          {at !== undefined && <line data-page class="cursor" x1={x(at)} x2={x(at)} y1={top} y2={bottom} />}
          {series.length > 1 && (
            <g class="ink" fill={INK}>
              {series.map((it, i) => {
                const lx = beside ? left + plotWidth + 14 : left + (i % perRow) * legend;
                const ly = beside ? top + 10 + 18 * i : bottom + 48 + 17 * Math.floor(i / perRow);
                const { colour, dashes } = style(i);
                return (
                  <g>
                    <line
                      x1={lx}
                      x2={lx + 24}
                      y1={ly}
                      y2={ly}
                      stroke={colour}
                      stroke-width={1.8}
                      stroke-dasharray={dashes}
                      class={colour === "#000000" ? "black" : undefined}
                    />
                    <text x={lx + 30} y={ly + 0.34 * BODY}>
                      {cut(it.name, BODY, beside ? right - 44 : legend - 36)}
                    </text>
                  </g>
                );
              })}
            </g>
          )}
        </svg>
      )}
    </Figure>
  );
}

/** The values and their bands, with a little air. */
function bounds(series: readonly Series[], fromZero: boolean): [number, number] {
  let [low, high] = [fromZero ? 0 : Infinity, fromZero ? 0 : -Infinity];
  for (const it of series) {
    it.mean.forEach((mean, i) => {
      if (!Number.isFinite(mean)) return;
      const half = it.half?.[i] ?? 0;
      low = Math.min(low, mean - half);
      high = Math.max(high, mean + half);
    });
  }
  if (!Number.isFinite(low)) return [0, 1];
  if (high - low < 1e-12) return [low - 0.5, high + 0.5];
  const air = (high - low) * 0.05;
  return [fromZero && low >= 0 ? 0 : low - air, high + air];
}

/** Runs of places whose means are numbers. */
function runs(series: Series): [number, number][] {
  const found: [number, number][] = [];
  series.mean.forEach((mean, i) => {
    if (!Number.isFinite(mean)) return;
    const run = found.at(-1);
    if (run && run[1] === i - 1) run[1] = i;
    else found.push([i, i]);
  });
  return found;
}

interface Drawn {
  run: [number, number];
  series: Series;
  x: (i: number) => number;
  y: (value: number) => number;
  colour: string;
}

function span([from, until]: [number, number]): number[] {
  return Array.from({ length: until - from + 1 }, (_, i) => from + i);
}

function Band({ run, series, x, y, colour }: Drawn) {
  const { half, mean } = series;
  if (!half) return null;
  const end = (i: number, side: 1 | -1) => `${x(i).toFixed(2)} ${y((mean[i] ?? 0) + side * (half[i] ?? 0)).toFixed(2)}`;
  if (run[0] === run[1])
    return <path d={`M${end(run[0], 1)}L${end(run[0], -1)}`} stroke={colour} stroke-opacity={0.4} />;
  const outline = [
    ...span(run).map((i) => end(i, 1)),
    ...span(run)
      .reverse()
      .map((i) => end(i, -1)),
  ];
  return <path d={`M${outline.join("L")}Z`} fill={colour} fill-opacity={0.15} />;
}

function Line({ run, series, x, y, colour, dashes }: Drawn & { dashes: string }) {
  const at = (i: number) => `${x(i).toFixed(2)} ${y(series.mean[i] ?? 0).toFixed(2)}`;
  const black = colour === "#000000" ? "black" : undefined;
  if (run[0] === run[1]) return <circle cx={x(run[0])} cy={y(series.mean[run[0]] ?? 0)} r={2.4} fill={colour} />;
  return (
    <path
      d={`M${span(run).map(at).join("L")}`}
      fill="none"
      stroke={colour}
      stroke-width={1.8}
      stroke-dasharray={dashes}
      class={black}
    />
  );
}
