// The heat map, in the manner of the paper's figure 1 and of src/plot/heatmap.rs: cells as one picture of a
// pixel a cell, so that 2,000 rows cost what ten do; axes, scale and cursor as SVG over it.

import { signal, type Signal } from "@preact/signals";
import { useId, useMemo, useRef, useState } from "preact/hooks";

import { number } from "../format";
import { anchors, css, shade, type Ramp } from "../colours";
import { around, cut, FONTS, INK, layerTicks, measured, position, scale, SOFT, ticks, type Scale } from "./ticks";
import { useWidth } from "./common";
import { Figure } from "./Figure";

const BODY = 12;
const TITLE = 14;

export interface MapProps {
  title: string;
  xLabel: string;
  valueLabel: string;
  /** What a row is called in the table: "token". */
  rowName: string;
  labels: readonly string[];
  starred?: readonly [number, number];
  layers: number;
  /** Row by row. */
  values: readonly number[];
  ramp: Ramp;
  /** Floor of the scale, or the middle of one with two sides. */
  low: number;
  signed?: boolean;
  ceiling?: number;
  /** Sentences below the map. */
  notes?: readonly string[];
  /** What is said of a cell. */
  line: (at: number) => string;
  /** The cell that is looked at; common to maps that are read together. */
  cursor?: Signal<number | undefined>;
  /** What happens when a cell is chosen. */
  onPick?: (at: number) => void;
  /** How high the grid is at least. */
  least?: number;
  /** Rows are too many to be labelled. */
  dense?: boolean;
  /** The file's name without its end. */
  file: string;
}

export function HeatMap(props: MapProps) {
  const { labels, layers, values, ramp, low, line, onPick, dense } = props;
  const rows = labels.length;
  const [box, width] = useWidth();
  const own = useMemo(() => signal<number | undefined>(undefined), []);
  const cursor = props.cursor ?? own;
  const [focused, setFocused] = useState(false);
  const svg = useRef<SVGSVGElement>(null);
  const id = useId();
  const two = props.signed ? around(values, low, props.ceiling) : undefined;
  const range = two ?? scale(values, low, props.ceiling);
  const colours = anchors(ramp, two !== undefined);
  const gaps = values.filter((value) => !Number.isFinite(value)).length;
  const picture = useMemo(
    () => paint(values, layers, rows, range, colours),
    [values, layers, rows, range.floor, range.ceiling, ramp],
  );
  if (rows === 0 || layers === 0 || values.length < rows * layers)
    return <p class="quiet">There is nothing to draw.</p>;

  const frame = layout(props, range, width);
  const { left, top, cellWidth, cellHeight, gridWidth, gridHeight, barLeft, barHeight } = frame;
  const at = cursor.value !== undefined && cursor.value < rows * layers ? cursor.value : undefined;
  const place = (event: MouseEvent): number | undefined => {
    const bounds = svg.current?.getBoundingClientRect();
    if (!bounds) return undefined;
    const zoom = frame.width / bounds.width;
    const layer = Math.floor(((event.clientX - bounds.left) * zoom - left) / cellWidth);
    const row = Math.floor(((event.clientY - bounds.top) * zoom - top) / cellHeight);
    return layer >= 0 && layer < layers && row >= 0 && row < rows ? row * layers + layer : undefined;
  };
  const keys = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layers, ArrowDown: layers }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      const next = at === undefined ? 0 : at + step;
      if (next >= 0 && next < rows * layers) cursor.value = next;
    } else if (event.key === "Enter" && at !== undefined && onPick) onPick(at);
    else if (event.key === "Escape") cursor.value = undefined;
  };
  const said = summary(values, layers, labels, range);
  return (
    <Figure
      kind="map"
      title={props.title}
      file={props.file}
      box={box}
      svg={() => svg.current && withCells(svg.current, values, layers, range, colours, frame)}
      sheet={() => ({
        head: [props.rowName, "layer", "value"],
        rows: values.map((value, cell) => [labels[Math.floor(cell / layers)], cell % layers, value]),
      })}
      table={
        rows > 400
          ? null
          : () => ({
              head: [props.rowName, ...Array.from({ length: layers }, (_, layer) => layer)],
              rows: labels.map((label, row) => [label, ...values.slice(row * layers, (row + 1) * layers)]),
            })
      }
      caption={
        <>
          <p class="readout" aria-live={focused ? "polite" : "off"}>
            {at === undefined ? said : line(at)}
          </p>
          {gaps > 0 && <p class="quiet">{gaps} cells are not numbers (hatched).</p>}
          {props.notes?.map((note) => (
            <p class="quiet">{note}</p>
          ))}
        </>
      }
    >
      {width > 0 && (
        <svg
          ref={svg}
          class="figure"
          role="img"
          aria-label={`${props.title}. ${said} Arrow keys go from cell to cell.`}
          tabIndex={0}
          width={frame.width}
          height={frame.height}
          viewBox={`0 0 ${frame.width} ${frame.height}`}
          font-family={FONTS}
          font-size={BODY}
          onMouseMove={(event) => (cursor.value = place(event))}
          onMouseLeave={() => (cursor.value = undefined)}
          onClick={(event) => {
            const cell = place(event);
            if (cell !== undefined) onPick?.(cell);
          }}
          onKeyDown={keys}
          onFocus={() => setFocused(true)}
          onBlur={() => setFocused(false)}
        >
          <defs>
            <pattern id={`hatch${id}`} width={4} height={4} patternUnits="userSpaceOnUse">
              <rect width={4} height={4} fill="#ffffff" />
              <path d="M0 4L4 0M-1 1L1 -1M3 5L5 3" stroke="#777777" stroke-width={0.9} />
            </pattern>
            <linearGradient id={`scale${id}`} x1={0} y1={1} x2={0} y2={0}>
              {(range.ceiling <= range.floor ? colours.slice(0, 1) : colours).map((colour, i) => (
                <stop offset={i / (colours.length - 1)} stop-color={css(colour)} />
              ))}
            </linearGradient>
          </defs>
          <rect class="paper" data-paper width={frame.width} height={frame.height} fill="#ffffff" />
          <text class="ink" x={left + gridWidth / 2} y={TITLE + 4} text-anchor="middle" font-size={TITLE} fill={INK}>
            {cut(props.title, TITLE, frame.width - 16)}
          </text>
          <image
            data-cells
            href={picture}
            x={left}
            y={top}
            width={gridWidth}
            height={gridHeight}
            preserveAspectRatio="none"
            class="cells"
          />
          {gaps > 0 && gaps <= 4000 && (
            <g fill={`url(#hatch${id})`}>
              {values.map((value, cell) =>
                Number.isFinite(value) ? null : (
                  <rect
                    x={left + (cell % layers) * cellWidth}
                    y={top + Math.floor(cell / layers) * cellHeight}
                    width={cellWidth}
                    height={cellHeight}
                  />
                ),
              )}
            </g>
          )}
          <rect x={left} y={top} width={gridWidth} height={gridHeight} fill="none" class="rule" stroke="#9a9a9a" />
          {!dense && (
            <g class="ink" text-anchor="end" fill={INK}>
              {labels.map((_, row) => (
                <text
                  x={left - 6}
                  y={top + (row + 0.5) * cellHeight + 0.34 * BODY}
                  text-decoration={isStarred(props, row) ? "underline" : undefined}
                >
                  {frame.labels[row]}
                </text>
              ))}
            </g>
          )}
          <g class="ink" text-anchor="middle" fill={INK}>
            {layerTicks(layers, Math.ceil(26 / cellWidth)).map((layer) => (
              <text x={left + (layer + 0.5) * cellWidth} y={top + gridHeight + 15}>
                {layer}
              </text>
            ))}
            <text x={left + gridWidth / 2} y={top + gridHeight + 33}>
              {cut(props.xLabel, BODY, frame.width - 16)}
            </text>
          </g>
          <g class="ink" fill={INK}>
            <rect
              x={barLeft}
              y={top}
              width={12}
              height={barHeight}
              fill={`url(#scale${id})`}
              class="rule"
              stroke="#9a9a9a"
            />
            {barTicks(range, barHeight).map(([value, label]) => (
              <text x={barLeft + 17} y={top + (1 - (position(value, range) ?? 0.5)) * barHeight + 0.34 * BODY}>
                {label}
              </text>
            ))}
            <text x={barLeft} y={top + barHeight + 20} fill={SOFT} class="soft">
              {cut(props.valueLabel, BODY, frame.width - barLeft)}
            </text>
          </g>
          {at !== undefined && (
            <rect
              data-page
              class="cursor"
              x={left + (at % layers) * cellWidth}
              y={top + Math.floor(at / layers) * cellHeight}
              width={cellWidth}
              height={Math.max(cellHeight, 2)}
              fill="none"
            />
          )}
        </svg>
      )}
    </Figure>
  );
}

interface Frame {
  width: number;
  height: number;
  left: number;
  top: number;
  cellWidth: number;
  cellHeight: number;
  gridWidth: number;
  gridHeight: number;
  barLeft: number;
  barHeight: number;
  labels: string[];
}

/** Whole pixels a cell where there is room, so that no seams show; as wide as the page allows. */
function layout(props: MapProps, range: Scale, width: number): Frame {
  const rows = props.labels.length;
  const most = Math.min(16 * BODY, Math.max(60, width * 0.34));
  const labels = props.dense
    ? []
    : props.labels.map((text, row) =>
        isStarred(props, row) ? `${cut(text, BODY, most - 8)}*` : cut(text, BODY, most),
      );
  const label = labels.reduce((wide, text) => Math.max(wide, measured(text, BODY)), 0);
  const left = Math.ceil(props.dense ? 8 : label + 12);
  const top = TITLE + 16;
  const cellHeight = props.dense
    ? Math.max(1, Math.min(12, 900 / rows))
    : Math.max(16, Math.ceil((props.least ?? 96) / rows));
  const gridHeight = cellHeight * rows;
  const barHeight = Math.min(gridHeight, 320);
  const barText = barTicks(range, barHeight).reduce(
    (wide, [, text]) => Math.max(wide, measured(text, BODY)),
    measured(props.valueLabel, BODY) - 17,
  );
  const right = 16 + 17 + Math.min(barText, 90) + 6;
  const room = Math.max(80, Math.min(width, 760) - left - right);
  const natural = Math.max(Math.min(20, Math.max(6, Math.round(440 / props.layers))), Math.ceil(220 / props.layers));
  const fitting = room / props.layers;
  const cellWidth = fitting >= natural ? natural : fitting >= 3 ? Math.floor(fitting) : fitting;
  const gridWidth = cellWidth * props.layers;
  const barLeft = left + gridWidth + 16;
  return {
    width: Math.ceil(left + gridWidth + right),
    height: Math.ceil(top + gridHeight + 40),
    left,
    top,
    cellWidth,
    cellHeight,
    gridWidth,
    gridHeight,
    barLeft,
    barHeight,
    labels,
  };
}

function isStarred(props: MapProps, row: number): boolean {
  const [from, until] = props.starred ?? [0, 0];
  return row >= from && row < until;
}

function barTicks(range: Scale, height: number): [number, string][] {
  if (range.ceiling <= range.floor) return [[range.floor, number(range.floor)]];
  return ticks(range.floor, range.ceiling, Math.min(8, Math.max(4, Math.floor(height / 20))));
}

/** A picture of a pixel a cell. */
function paint(
  values: readonly number[],
  layers: number,
  rows: number,
  range: Scale,
  colours: ReturnType<typeof anchors>,
): string {
  if (layers === 0 || rows === 0) return "";
  const canvas = document.createElement("canvas");
  canvas.width = layers;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  if (!context) return "";
  const image = context.createImageData(layers, rows);
  for (let cell = 0; cell < layers * rows; cell++) {
    const where = position(values[cell] ?? NaN, range);
    // What is not a number is hatched over this; where cells are too small for that, it is grey.
    const [r, g, b] = where === undefined ? [150, 150, 150] : shade(colours, where);
    image.data.set([r, g, b, 255], 4 * cell);
  }
  context.putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}

/** The figure with a rectangle a cell in the place of the picture, for whoever prints it. */
function withCells(
  figure: SVGSVGElement,
  values: readonly number[],
  layers: number,
  range: Scale,
  colours: ReturnType<typeof anchors>,
  frame: Frame,
): SVGSVGElement {
  const copy = figure.cloneNode(true) as SVGSVGElement;
  if (values.length > 20_000) return copy;
  const group = document.createElementNS("http://www.w3.org/2000/svg", "g");
  group.setAttribute("shape-rendering", "crispEdges");
  values.forEach((value, cell) => {
    const where = position(value, range);
    if (where === undefined) return;
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const fields = {
      x: frame.left + (cell % layers) * frame.cellWidth,
      y: frame.top + Math.floor(cell / layers) * frame.cellHeight,
      width: frame.cellWidth,
      height: frame.cellHeight,
      fill: css(shade(colours, where)),
    };
    for (const [name, it] of Object.entries(fields)) rect.setAttribute(name, String(it));
    group.append(rect);
  });
  copy.querySelector("[data-cells]")?.replaceWith(group);
  return copy;
}

function summary(values: readonly number[], layers: number, labels: readonly string[], range: Scale): string {
  let best = -1;
  values.forEach((value, at) => {
    if (Number.isFinite(value) && (best < 0 || value > (values[best] ?? -Infinity))) best = at;
  });
  if (best < 0) return "No cell is a number.";
  return `Highest, ${number(values[best] ?? NaN)}, at ${labels[Math.floor(best / layers)]}, layer ${best % layers}; the scale goes from ${number(range.floor)} to ${number(range.ceiling)}.`;
}
