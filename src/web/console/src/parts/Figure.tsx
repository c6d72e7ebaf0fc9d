// What every figure has around it: the line that is said of a place, the files that can be taken along, and its
// numbers as a table.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { csv, jsonLines, save, saveSvg, type Cell } from "../download";
import { number } from "../format";

/** Numbers in rows: the first cell of a row says what it is of. */
export interface Sheet {
  head: readonly (string | number)[];
  rows: readonly (readonly Cell[])[];
}

/** Buttons for what can be taken along, in each form that there is. */
export function Files({
  file,
  svg,
  sheet,
  lines,
}: {
  /** The file's name without its end. */
  file: string;
  svg?: () => SVGSVGElement | null;
  sheet: () => Sheet;
  lines?: () => readonly unknown[];
}) {
  const drawn = () => {
    const figure = svg?.();
    if (figure) saveSvg(`${file}.svg`, figure);
  };
  const written = () => {
    const { head, rows } = sheet();
    save(`${file}.csv`, "text/csv", csv(head, rows));
  };
  return (
    <>
      {svg && (
        <button type="button" onClick={drawn}>
          SVG
        </button>
      )}
      <button type="button" onClick={written}>
        CSV
      </button>
      {lines && (
        <button type="button" onClick={() => save(`${file}.jsonl`, "application/jsonl", jsonLines(lines()))}>
          JSON lines
        </button>
      )}
    </>
  );
}

export interface FigureProps {
  /** What it is to the style sheet. */
  kind: string;
  title: string;
  file: string;
  /** What its width is measured of. */
  box: (element: HTMLDivElement | null) => void;
  /** The drawing. */
  children: ComponentChildren;
  /** What is said below it. */
  caption: ComponentChildren;
  /** The drawing as a file has it. */
  svg: () => SVGSVGElement | null;
  /** Its numbers as CSV has them, and as the page shows them. */
  sheet: () => Sheet;
  /** Left out where it is as CSV has it; null where there are too many for a page. */
  table?: (() => Sheet) | null;
}

export function Figure(props: FigureProps) {
  const [asTable, setAsTable] = useState(false);
  const table = props.table === undefined ? props.sheet : props.table;
  return (
    <figure class={props.kind}>
      <div ref={props.box} class="fit">
        {props.children}
      </div>
      <figcaption>
        {props.caption}
        <p class="tools">
          <Files file={props.file} svg={props.svg} sheet={props.sheet} />
          {table && (
            <button type="button" aria-expanded={asTable} onClick={() => setAsTable(!asTable)}>
              as a table
            </button>
          )}
        </p>
        {asTable && table && <Numbers title={props.title} of={table()} />}
      </figcaption>
    </figure>
  );
}

function Numbers({ title, of }: { title: string; of: Sheet }) {
  const text = (value: Cell) => (typeof value === "number" ? number(value) : (value ?? ""));
  return (
    <div class="wide" tabIndex={0} role="region" aria-label={`${title}, as a table`}>
      <table class="numbers">
        <thead>
          <tr>
            {of.head.map((name) => (
              <th scope="col">{name}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {of.rows.map(([first, ...values]) => (
            <tr>
              <th scope="row">{first}</th>
              {values.map((value) => (
                <td>{text(value)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
