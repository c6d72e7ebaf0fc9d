// Tables: of a few rows as they are, of thousands only the rows that are seen. Sorting is in the address.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { asked, setQuery } from "../route";
import { Files } from "./Figure";

type Value = string | number | bigint | boolean | undefined;

export interface Column<T> {
  id: string;
  head: string;
  /** What is shown; where it is missing, the value itself. */
  cell?: (row: T) => ComponentChildren;
  /** What is sorted by and taken along. */
  value: (row: T) => Value;
  /** Numbers stand at the right. */
  right?: boolean;
  /** Its part of the width, where not all rows are drawn; 1 where it is not said. */
  wide?: number;
  /** Not in the page, only in the file. */
  hidden?: boolean;
}

export interface TableProps<T> {
  columns: readonly Column<T>[];
  rows: readonly T[];
  /** What the rows are, for those who do not see them. */
  label: string;
  /** The name of the sorting in the address. */
  name: string;
  rowKey: (row: T) => string;
  onPick?: (row: T) => void;
  picked?: string;
  file?: string;
  /** Whether rows keep the order in which they came. */
  fixed?: boolean;
  foot?: ComponentChildren;
}

const ROW = 30;
/** More rows than this are not all drawn. */
const WHOLE = 150;

export function Table<T>(props: TableProps<T>) {
  const { rows, label, name, rowKey, onPick, picked } = props;
  const columns = props.columns.filter((column) => !column.hidden);
  const order = asked(`${name}-by`);
  const sorted = useMemo(() => (props.fixed ? rows : sort(rows, props.columns, order)), [rows, order, props.fixed]);
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [seen, setSeen] = useState(600);
  const virtual = rows.length > WHOLE;
  useEffect(() => {
    if (box.current) setSeen(box.current.clientHeight);
  }, [virtual]);
  const first = virtual ? Math.max(0, Math.floor(top / ROW) - 8) : 0;
  const end = virtual ? Math.min(sorted.length, Math.ceil((top + seen) / ROW) + 8) : sorted.length;
  const by = order.replace(/^-/, "");
  const all = columns.reduce((sum, column) => sum + (column.wide ?? 1), 0);
  const head = (column: Column<T>) => {
    const is = column.id === by ? (order.startsWith("-") ? "descending" : "ascending") : undefined;
    if (column.head === "") {
      return (
        <th scope="col">
          <span class="sr">What can be done</span>
        </th>
      );
    }
    if (props.fixed) {
      return (
        <th scope="col" class={column.right ? "right" : ""}>
          {column.head}
        </th>
      );
    }
    const next = is === "ascending" ? `-${column.id}` : is === "descending" ? undefined : column.id;
    return (
      <th scope="col" class={column.right ? "right" : ""} aria-sort={is}>
        <button type="button" class="plain" onClick={() => setQuery({ [`${name}-by`]: next })}>
          {column.head}
          <span aria-hidden="true">{is === "ascending" ? " ↑" : is === "descending" ? " ↓" : ""}</span>
        </button>
      </th>
    );
  };
  return (
    <div class="table">
      <div
        class={virtual ? "wide virtual" : "wide"}
        ref={box}
        tabIndex={0}
        role="region"
        aria-label={label}
        onScroll={virtual ? (event) => setTop(event.currentTarget.scrollTop) : undefined}
      >
        <table aria-rowcount={virtual ? sorted.length + 1 : undefined}>
          {virtual && (
            <colgroup>
              {columns.map((column) => (
                <col style={{ width: `${(100 * (column.wide ?? 1)) / all}%` }} />
              ))}
            </colgroup>
          )}
          <thead>
            <tr>{columns.map(head)}</tr>
          </thead>
          <tbody>
            {first > 0 && <tr aria-hidden="true" style={{ height: `${first * ROW}px` }} />}
            {sorted.slice(first, end).map((row, i) => {
              const key = rowKey(row);
              return (
                <tr
                  key={key}
                  aria-rowindex={virtual ? first + i + 2 : undefined}
                  class={key === picked ? "picked" : onPick ? "pick" : ""}
                  onClick={
                    onPick &&
                    ((event) => {
                      if (!(event.target as Element).closest("a, button, input")) onPick(row);
                    })
                  }
                >
                  {columns.map((column) => (
                    <td class={column.right ? "right" : ""}>
                      {column.cell ? column.cell(row) : shown(column.value(row))}
                    </td>
                  ))}
                </tr>
              );
            })}
            {end < sorted.length && <tr aria-hidden="true" style={{ height: `${(sorted.length - end) * ROW}px` }} />}
          </tbody>
        </table>
      </div>
      {(props.foot || props.file) && (
        <p class="tools">
          {props.foot}
          {props.file && rows.length > 0 && (
            <Files
              file={props.file}
              sheet={() => ({
                head: props.columns.map((c) => c.head),
                rows: sorted.map((row) => props.columns.map((c) => c.value(row))),
              })}
              lines={() =>
                sorted.map((row) => Object.fromEntries(props.columns.map((c) => [c.id, c.value(row) ?? null])))
              }
            />
          )}
        </p>
      )}
    </div>
  );
}

function shown(value: Value): ComponentChildren {
  return typeof value === "bigint" ? value.toString() : typeof value === "boolean" ? (value ? "yes" : "no") : value;
}

function sort<T>(rows: readonly T[], columns: readonly Column<T>[], order: string): readonly T[] {
  const column = columns.find((it) => it.id === order.replace(/^-/, ""));
  if (!column) return rows;
  const sign = order.startsWith("-") ? -1 : 1;
  const keyed = rows.map((row, at) => ({ row, at, value: column.value(row) }));
  keyed.sort((a, b) => sign * compare(a.value, b.value) || a.at - b.at);
  return keyed.map(({ row }) => row);
}

/** What is missing, or not a number, comes last. */
function compare(a: Value, b: Value): number {
  const gone = (value: Value) =>
    value === undefined || value === "" || (typeof value === "number" && Number.isNaN(value));
  if (gone(a) || gone(b)) return Number(gone(a)) - Number(gone(b));
  if (typeof a === "string" || typeof b === "string")
    return String(a).localeCompare(String(b), "en", { numeric: true });
  return Number(a) - Number(b);
}
