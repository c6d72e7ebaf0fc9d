// Before and after of every prompt of an edit: an empty ring before, a full one after.

import { useRef } from "preact/hooks";

import { EditProbeKind, type EditProbe } from "../../contract/palimpsest/v1/edit_pb";
import { number, visible } from "../format";
import { LINES } from "../colours";
import { cut, FONTS, INK, measured, ticks } from "./ticks";
import { useWidth } from "./common";
import { Figure } from "./Figure";

export function probeWord(kind: EditProbeKind): string {
  return {
    [EditProbeKind.UNSPECIFIED]: "",
    [EditProbeKind.REWRITE]: "rewrite",
    [EditProbeKind.PARAPHRASE]: "paraphrase",
    [EditProbeKind.NEIGHBOUR]: "neighbour",
  }[kind];
}

export function Dumbbell({
  probes,
  target,
  truth,
  file,
}: {
  probes: readonly EditProbe[];
  target: string;
  truth: string | undefined;
  file: string;
}) {
  const [box, width] = useWidth();
  const svg = useRef<SVGSVGElement>(null);
  const total = Math.max(240, Math.min(width, 700));
  const names = [target.trim(), truth?.trim() ?? ""];
  const label = Math.min(110, Math.max(...names.map((name) => measured(name, 12))) + 14);
  const numbers = 108;
  const plot = total - label - numbers;
  const x = (p: number) => label + 6 + Math.min(1, Math.max(0, p)) * (plot - 12);
  const block = (probe: EditProbe) => (probe.trueBefore === undefined ? 40 : 58);
  const tops: number[] = [];
  let bottom = 20;
  for (const probe of probes) {
    tops.push(bottom);
    bottom += block(probe);
  }
  const height = bottom + 24;
  const pair = (before: number, after: number, name: string, colour: string, y: number) => (
    <g>
      <text class="ink" x={label - 6} y={y + 4} text-anchor="end" fill={INK}>
        {cut(name, 12, label - 8)}
      </text>
      <line x1={x(before)} x2={x(after)} y1={y} y2={y} stroke={colour} stroke-width={2} />
      <circle class="paper" cx={x(before)} cy={y} r={4.5} fill="#ffffff" stroke={colour} stroke-width={1.8} />
      <circle cx={x(after)} cy={y} r={4.5} fill={colour} />
      <text class="ink" x={total - 2} y={y + 4} text-anchor="end" fill={INK}>
        {number(before)} → {number(after)}
      </text>
    </g>
  );
  return (
    <Figure
      kind="dumbbell"
      title="Probes"
      file={file}
      box={box}
      svg={() => svg.current}
      sheet={() => ({
        head: ["kind", "prompt", "new_before", "new_after", "true_before", "true_after"],
        rows: probes.map((p) => [probeWord(p.kind), p.prompt, p.newBefore, p.newAfter, p.trueBefore, p.trueAfter]),
      })}
      table={() => ({
        head: ["prompt", "is a", `${names[0]} before`, "after", `${names[1] || "true"} before`, "after"],
        rows: probes.map((p) => [
          visible(p.prompt),
          probeWord(p.kind),
          p.newBefore,
          p.newAfter,
          p.trueBefore,
          p.trueAfter,
        ]),
      })}
      caption={<p class="quiet">Probability a token; ○ before, ● after the edit.</p>}
    >
      {width > 0 && (
        <svg
          ref={svg}
          class="figure"
          role="img"
          aria-label={`Probability of ${names.filter(Boolean).join(" and ")} before and after, prompt by prompt.`}
          width={total}
          height={height}
          viewBox={`0 0 ${total} ${height}`}
          font-family={FONTS}
          font-size={12}
        >
          <rect class="paper" width={total} height={height} fill="#ffffff" />
          {ticks(0, 1, 4).map(([value, text]) => (
            <g>
              <line class="grid" x1={x(value)} x2={x(value)} y1={14} y2={bottom} stroke="#e6e6e6" stroke-width={0.8} />
              <text class="ink" x={x(value)} y={bottom + 16} text-anchor="middle" fill={INK}>
                {text}
              </text>
            </g>
          ))}
          {probes.map((probe, i) => {
            const top = tops[i] ?? 0;
            return (
              <g>
                <text class="ink" x={4} y={top + 10} fill={INK}>
                  {cut(`${visible(probe.prompt)}  (${probeWord(probe.kind)})`, 12, total - 8)}
                </text>
                {pair(probe.newBefore, probe.newAfter, names[0] ?? "", LINES[0], top + 24)}
                {probe.trueBefore !== undefined &&
                  probe.trueAfter !== undefined &&
                  pair(probe.trueBefore, probe.trueAfter, names[1] || "true", LINES[1], top + 42)}
              </g>
            );
          })}
        </svg>
      )}
    </Figure>
  );
}
