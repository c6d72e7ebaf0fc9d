// All facts of a sweep in one picture: a row a fact, layers across, at one role of a token.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { ResultView, type Job } from "../../contract/palimpsest/v1/job_pb";
import { Metric, TokenRole, type Grid } from "../../contract/palimpsest/v1/trace_pb";
import { jobs, problem, type Problem } from "../client";
import { brief, count, kindName, kindWord, last, number, roleWord, some } from "../format";
import { Choice, Wrong } from "../parts/common";
import { HeatMap } from "../parts/HeatMap";
import { asked, setQuery } from "../route";
import { effect, isOfHeads, isOverTokens, ramp, readings, ROLES, rolesOf } from "../sweep";
import { factsOf, kindsOf, type Look } from "../look";

/** Facts that are read without being asked. */
const MOST = 2000;
/** Facts that are read again with every twentieth of a running job. */
const FEW = 500;

interface Line {
  fact: number;
  text: string;
  relation: string;
  values: number[];
}

/** The mean effect over the tokens of a role, by layer; of heads the highest of a layer. */
function reduced(grid: Grid, metric: Metric, role: TokenRole): number[] | undefined {
  if (grid.layers === 0) return undefined;
  const reading = readings(grid).find((it) => it.metric === metric) ?? readings(grid)[0];
  if (!reading) return undefined;
  const heads = Math.max(1, grid.heads);
  const over = isOverTokens(grid.kind);
  const tokens = over ? [0] : grid.tokens.map((_, at) => at).filter((at) => rolesOf(at, grid).includes(role));
  if (tokens.length === 0) return undefined;
  return Array.from({ length: grid.layers }, (_, layer) => {
    const each = tokens.map((at) => {
      const ofHeads = Array.from({ length: heads }, (_, head) =>
        effect(reading.scores[(at * heads + head) * grid.layers + layer] ?? NaN, reading, grid.direction),
      );
      return ofHeads.length === 1 ? (ofHeads[0] as number) : Math.max(...ofHeads);
    });
    return each.reduce((sum, it) => sum + it, 0) / each.length;
  });
}

export function SweepMap({ job, look, turn }: { job: Job; look: Look; turn: string }) {
  const id = last(job.name);
  const role = ROLES.find((it) => String(it) === asked("role")) ?? TokenRole.LAST_SUBJECT;
  const order = asked("map-by");
  const [lines, setLines] = useState<Line[]>([]);
  const [left, setLeft] = useState<"reading" | "more" | "all">("reading");
  const [wrong, setWrong] = useState<Problem | undefined>(undefined);
  const [most, setMost] = useState(MOST);
  const token = useRef("");
  const key = `${id} ${look.kind} ${look.metric} ${look.relation} ${look.correct} ${role}`;
  // Of a running job what comes is read with what was there, for units end in no order; of many facts at its end only.
  const now = factsOf(job) > FEW && turn !== "end" ? "" : turn;
  const had = useRef({ key: "", now, lines: [] as Line[] });
  // A page of grids becomes a line a fact as it comes, and is let go: all of them may be tens of megabytes.
  useEffect(() => {
    const stop = new AbortController();
    if (had.current.key !== key) setLines([]);
    if (had.current.key !== key || had.current.now !== now) {
      had.current = { key, now, lines: [] };
      token.current = "";
    }
    setLeft("reading");
    setWrong(undefined);
    const read = async () => {
      const kinds = BigInt(kindsOf(job).length);
      do {
        const answer = await jobs.listResults(
          {
            parent: job.name,
            pageSize: 200,
            pageToken: token.current,
            view: ResultView.FULL,
            kind: look.kind,
            relation: look.relation,
            correct: look.correct,
          },
          { signal: stop.signal },
        );
        for (const item of answer.results) {
          if (item.outcome.case !== "grid") continue;
          const grid = item.outcome.value;
          const values = reduced(grid, look.metric, role);
          if (values)
            had.current.lines.push({
              fact: Number(item.unit / kinds),
              text: grid.fact?.prompt ?? "",
              relation: grid.fact?.relation ?? "",
              values,
            });
        }
        token.current = answer.nextPageToken;
        // What is shown stays until there is more of it.
        const found = had.current.lines;
        setLines((was) => (found.length >= was.length ? [...found] : was));
      } while (token.current && had.current.lines.length < most);
      setLeft(token.current ? "more" : "all");
    };
    read().catch((error: unknown) => {
      if (stop.signal.aborted) return;
      setWrong(problem(error));
      setLeft("more");
    });
    return () => stop.abort();
  }, [key, now, most]);
  const sorted = useMemo(() => {
    const best = (line: Line) =>
      line.values.reduce((at, value, layer) => (value > (line.values[at] ?? -Infinity) ? layer : at), 0);
    const by: Record<string, (a: Line, b: Line) => number> = {
      "": (a, b) => best(a) - best(b) || a.fact - b.fact,
      relation: (a, b) => a.relation.localeCompare(b.relation) || best(a) - best(b),
      effect: (a, b) => Math.max(...b.values) - Math.max(...a.values),
      fact: (a, b) => a.fact - b.fact,
    };
    const text = look.text.toLowerCase();
    return lines.filter((line) => !text || line.text.toLowerCase().includes(text)).sort(by[order] ?? by[""]);
  }, [lines, order, look.text]);
  const layers = sorted[0]?.values.length ?? 0;
  const values = useMemo(() => sorted.flatMap((line) => line.values), [sorted]);
  const line = (at: number) => {
    const it = sorted[Math.floor(at / layers)];
    return it
      ? `${it.text} (fact ${it.fact}${it.relation ? `, ${it.relation}` : ""}), layer ${at % layers}: effect ${number(it.values[at % layers] ?? NaN)}`
      : "";
  };
  return (
    <>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        {!isOverTokens(look.kind) && (
          <Choice
            label="At the"
            value={String(role)}
            options={ROLES.map((it) => [String(it), roleWord(it)] as const)}
            onChange={(it) => setQuery({ role: it })}
          />
        )}
        <Choice
          label="Sorted by"
          value={order}
          options={[
            ["", "peak layer"],
            ["effect", "highest effect"],
            ["relation", "relation"],
            ["fact", "order of the facts"],
          ]}
          onChange={(it) => setQuery({ "map-by": it })}
        />
      </form>
      <p role="status" class="quiet">
        {some(lines.length, "fact")}
        {left === "reading" ? " so far…" : left === "more" ? " are drawn" : ""}
        {isOfHeads(look.kind) ? "; of each layer its highest head" : ""}
      </p>
      <Wrong of={wrong} />
      {left === "more" && (
        <button type="button" onClick={() => setMost(most + MOST)}>
          {count(MOST)} more
        </button>
      )}
      {values.length > 0 && (
        <HeatMap
          title={`${kindWord(look.kind)}, ${isOverTokens(look.kind) ? "every token" : roleWord(role)}`}
          xLabel="layer"
          valueLabel="effect"
          rowName="fact"
          labels={sorted.map((it) => it.text)}
          layers={layers}
          values={values}
          ramp={ramp(look.kind)}
          low={0}
          signed
          dense={sorted.length > 60}
          line={line}
          onPick={(at) => setQuery({ tab: "facts", fact: sorted[Math.floor(at / layers)]?.fact }, true)}
          file={`map-${brief(id)}-${kindName(look.kind)}`}
        />
      )}
      <p class="quiet">A click on a row shows its maps.</p>
    </>
  );
}
