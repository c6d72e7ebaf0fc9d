// Lines of versions as a graph: a column a line of descent, by the algorithm of src/plot/history.rs.

import { LINES } from "../colours";

export interface Node {
  id: string;
  parent: string | undefined;
}

/** What is drawn beside a version. */
export interface Lead {
  /** The column of the version. */
  at: number;
  /** Columns that pass by above it, and below it. */
  above: number[];
  below: number[];
  /** Columns whose lines end here, in this version. */
  joined: number[];
}

/** The graph of nodes that come before their parents: one lead a node, in their order. */
export function leads(nodes: readonly Node[]): Lead[] {
  // What each column waits for.
  const columns: (string | undefined)[] = [];
  return nodes.map((node) => {
    const waiting = columns.flatMap((id, column) => (id === node.id ? [column] : []));
    const above = columns.flatMap((id, column) => (id === undefined ? [] : [column]));
    let at = waiting[0];
    if (at === undefined) {
      const free = columns.indexOf(undefined);
      at = free < 0 ? columns.length : free;
    }
    const joined = waiting.slice(1);
    for (const column of joined) columns[column] = undefined;
    columns[at] = node.parent;
    while (columns.length > 0 && columns.at(-1) === undefined) columns.pop();
    const below = columns.flatMap((id, column) => (id === undefined ? [] : [column]));
    return { at, above, below, joined };
  });
}

const STEP = 16;
const MIDDLE = 18;

export function graphWidth(of: readonly Lead[]): number {
  const most = of.reduce((wide, lead) => Math.max(wide, lead.at, ...lead.above, ...lead.below), 0);
  return (most + 1) * STEP + 4;
}

/** The graph's part beside one row: as high as the row is. */
export function GraphCell({ lead, width }: { lead: Lead; width: number }) {
  const x = (column: number) => 10 + column * STEP;
  const colour = (column: number) => LINES[column % 6] as string;
  return (
    <svg class="graph" width={width} height="100%" aria-hidden="true">
      {lead.above
        .filter((column) => !lead.joined.includes(column))
        .map((column) => (
          <line x1={x(column)} x2={x(column)} y1={0} y2={MIDDLE} stroke={colour(column)} stroke-width={2} />
        ))}
      {lead.below.map((column) => (
        <line x1={x(column)} x2={x(column)} y1={MIDDLE} y2="100%" stroke={colour(column)} stroke-width={2} />
      ))}
      {lead.joined.map((column) => (
        <path
          d={`M${x(column)} 0C${x(column)} ${MIDDLE} ${x(column)} ${MIDDLE} ${x(lead.at)} ${MIDDLE}`}
          fill="none"
          stroke={colour(column)}
          stroke-width={2}
        />
      ))}
      <circle cx={x(lead.at)} cy={MIDDLE} r={5} fill={colour(lead.at)} class="node" />
    </svg>
  );
}
