// What two versions say to the same prompts, side by side.

import type { Job, UnitResult } from "../../contract/palimpsest/v1/job_pb";
import { count, ended, last, some, visible } from "../format";
import { results, useJob } from "../job";
import { useLoad } from "../live";
import { Wrong } from "../parts/common";
import { JobLine } from "../parts/JobLine";
import { Table } from "../parts/Table";

const textOf = (item: UnitResult | undefined) =>
  item?.outcome.case === "completion"
    ? item.outcome.value.text
    : item?.outcome.case === "failure"
      ? item.outcome.value.message
      : "";

/** Where two texts part: the words that both begin with, and what follows in each. */
function parted(a: string, b: string): [string, string, string] {
  const split = (text: string) => text.match(/\s*\S+|\s+$/g) ?? [];
  const [left, right] = [split(a), split(b)];
  let same = 0;
  while (same < left.length && same < right.length && left[same] === right[same]) same += 1;
  return [left.slice(0, same).join(""), left.slice(same).join(""), right.slice(same).join("")];
}

/** A text with the first word marked that the other has not. */
function Parted({ same, rest }: { same: string; rest: string }) {
  const [, first = "", after = ""] = /^(\s*\S+)([\s\S]*)$/.exec(rest) ?? [];
  return (
    <span>
      {visible(same)}
      {first && <mark>{visible(first)}</mark>}
      {visible(after)}
    </span>
  );
}

/** The answers of two jobs. Those that asked other versions than these are not answers to what is seen here. */
export function Answers({
  pair,
  versions,
  heads,
  label,
  file,
}: {
  pair: readonly string[];
  versions: readonly [string, string];
  heads: readonly [string, string];
  label: string;
  file: string;
}) {
  const watched = [useJob(pair[0]), useJob(pair[1])];
  const sides = versions.map((version) => watched.find(({ job }) => job && last(job.version) === version));
  const [left, right] = sides.map((it) => it?.job);
  const over = [left, right].every((job) => job && ended(job.state));
  const read = useLoad(`answers ${left?.name} ${right?.name} ${over}`, async (signal) => {
    if (!over) return [];
    const all = (job: Job | undefined) => results(last(job?.name ?? ""), {}, signal, 1000);
    const [one, other] = await Promise.all([all(left), all(right)]);
    const after = new Map(other.items.map((item) => [item.unit, item]));
    return one.items.map((item) => ({
      unit: String(item.unit),
      prompt: item.outcome.case === "completion" ? item.outcome.value.prompt : "",
      texts: [textOf(item), textOf(after.get(item.unit))] as const,
    }));
  });
  const wrong = watched.find((it) => it.problem)?.problem;
  if (wrong) return <Wrong of={wrong} />;
  if (!left || !right) return null;
  const rows = read.data ?? [];
  return (
    <>
      {sides.map((it) => it && <JobLine id={last(it.job?.name ?? "")} watched={it} />)}
      <Wrong of={read.problem} />
      {rows.length > 0 && (
        <Table
          label={label}
          name={file}
          fixed
          rows={rows}
          rowKey={(row) => row.unit}
          file={file}
          columns={[
            { id: "prompt", head: "Prompt", value: (row) => row.prompt, cell: (row) => visible(row.prompt) },
            ...([0, 1] as const).map((side) => ({
              id: `side-${side}`,
              head: heads[side],
              value: (row: (typeof rows)[number]) => row.texts[side],
              cell: (row: (typeof rows)[number]) => {
                const [same, ...rest] = parted(...row.texts);
                return <Parted same={same} rest={rest[side]} />;
              },
            })),
          ]}
          foot={
            <span class="quiet">
              {some(rows.filter(({ texts }) => texts[0] !== texts[1]).length, "answer")} of {count(rows.length)} differ
            </span>
          }
        />
      )}
    </>
  );
}
