// What differs between two versions: facts, matrices, and what both say.

import { useMemo, useState } from "preact/hooks";

import type {
  CompareVersionsResponse,
  Edit,
  EditRequest,
  MatrixDifference,
} from "../../contract/palimpsest/v1/version_pb";
import { jobs, versions } from "../client";
import { call, command } from "../copied";
import { brief, count, ended, last, number, some, stateWord } from "../format";
import { requestId, useJob } from "../job";
import { useDoing, useLoad } from "../live";
import { Act, Heading, Quiet, Text, Waiting, Wrong } from "../parts/common";
import { CopyAs } from "../parts/CopyAs";
import { Sentence, sentenceOf } from "../parts/EditCard";
import { Table } from "../parts/Table";
import { asked, setQuery, to } from "../route";
import { Answers } from "./Answers";

/** Edits on the pages behind the first, of this comparison. */
interface Further {
  of: CompareVersionsResponse | undefined;
  left: Edit[];
  right: Edit[];
  next: string;
}

export function Diff({ model }: { model: string }) {
  const [left, right] = [asked("left", "v0"), asked("right", "main")];
  const name = (version: string) => `models/${model}/versions/${version}`;
  const read = useLoad(`diff ${model} ${left} ${right}`, (signal) =>
    versions.compareVersions({ left: name(left), right: name(right) }, { signal }),
  );
  const it = read.data;
  const [more, setMore] = useState<Further>({ of: undefined, left: [], right: [], next: "" });
  const doing = useDoing();
  // What came behind an answer belongs to that answer alone.
  const further = more.of === it ? more : { of: it, left: [], right: [], next: it?.nextPageToken ?? "" };
  const { next } = further;
  const load = () =>
    doing.run(async () => {
      const page = await versions.compareVersions({ left: name(left), right: name(right), pageToken: next });
      setMore({
        of: it,
        left: [...further.left, ...page.leftEdits],
        right: [...further.right, ...page.rightEdits],
        next: page.nextPageToken,
      });
    });
  const all = useMemo(
    () => ({
      left: [...(it?.leftEdits ?? []), ...further.left],
      right: [...(it?.rightEdits ?? []), ...further.right],
    }),
    [it, more],
  );
  const word = (side: "left" | "right") => (it?.[side] ? `v${it[side].number}` : side === "left" ? left : right);
  return (
    <>
      <div class="title">
        <Heading title={`${left} and ${right} of ${model}`}>
          What differs in <a href={`/models/${model}`}>{model}</a>
        </Heading>
        <CopyAs
          command={command("diff", [left, right], { model })}
          python={call(call("p.model", [model]) + ".diff", [left, right])}
          json={() => it}
        />
      </div>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Text
          label="Left"
          value={left}
          onChange={(value) => setQuery({ left: value })}
          hint="A ref, v3, or a digest's beginning."
        />
        <Text label="Right" value={right} onChange={(value) => setQuery({ right: value })} />
        <button type="button" onClick={() => setQuery({ left: right, right: left })}>
          Swap
        </button>
      </form>
      <Waiting of={read} what="what differs (the matrices are made for it)" />
      {it && (
        <>
          <div class="pair">
            {(["left", "right"] as const).map((side) => (
              <Side
                key={side}
                side={side}
                title={`Only ${word(side)} has`}
                edits={all[side]}
                version={it[side]?.name ?? ""}
              />
            ))}
          </div>
          {next && (
            <p class="buttons">
              <button type="button" disabled={doing.busy} onClick={() => void load()}>
                More of them
              </button>
              <span class="quiet">There are more edits than one answer holds.</span>
            </p>
          )}
          <Wrong of={doing.problem} />
          <Matrices rows={it.matrices} />
          <Probes
            model={model}
            left={last(it.left?.name ?? "")}
            right={last(it.right?.name ?? "")}
            words={[word("left"), word("right")]}
            edits={[...it.leftEdits, ...it.rightEdits]}
          />
          <Traces
            model={model}
            versions={[last(it.left?.name ?? ""), last(it.right?.name ?? "")]}
            edits={[...all.left, ...all.right]}
          />
        </>
      )}
    </>
  );
}

/** A fact that an edit writes. */
interface Written {
  key: string;
  edit: Edit;
  request: EditRequest | undefined;
}

function written(edits: readonly Edit[]): Written[] {
  return edits.flatMap((edit) =>
    // An edit from elsewhere may say nothing of what it writes.
    (edit.requests.length > 0 ? edit.requests : [undefined]).map((request, n) => ({
      key: `${edit.name} ${n}`,
      edit,
      request,
    })),
  );
}

function Side({
  side,
  title,
  edits,
  version,
}: {
  side: string;
  title: string;
  edits: readonly Edit[];
  version: string;
}) {
  const facts = useMemo(() => written(edits), [edits]);
  return (
    <section>
      <h2>{title}</h2>
      <p class="quiet">
        Version{" "}
        <a class="mono" href={`/${version}`}>
          {brief(version)}
        </a>
      </p>
      {facts.length === 0 ? (
        <p>No fact of its own.</p>
      ) : (
        <Table
          label={title}
          name={side}
          fixed
          rows={facts}
          rowKey={(fact) => fact.key}
          file={`facts-${side}-${brief(version)}`}
          columns={[
            {
              id: "fact",
              head: "Fact",
              value: (fact) => sentenceOf(fact.request),
              cell: (fact) => <Sentence request={fact.request} />,
              wide: 4,
            },
            {
              id: "edit",
              head: "Edit",
              value: (fact) => last(fact.edit.name),
              cell: (fact) => (
                <a class="mono" href={`/${fact.edit.name}`}>
                  {brief(fact.edit.name, 8)}
                </a>
              ),
            },
          ]}
          foot={
            <span class="quiet">
              {some(facts.length, "fact")} of {some(edits.length, "edit")}
            </span>
          }
        />
      )}
    </section>
  );
}

function Matrices({ rows }: { rows: readonly MatrixDifference[] }) {
  const most = Math.max(1e-12, ...rows.map((row) => row.differenceNorm / row.baseNorm));
  return (
    <section>
      <h2>Matrices</h2>
      {rows.length === 0 ? (
        <p>Every matrix is the same, byte by byte.</p>
      ) : (
        <Table
          label="Matrices that differ"
          name="matrices"
          rows={rows}
          rowKey={(row) => row.tensorName}
          file="matrices"
          columns={[
            { id: "layer", head: "Layer", value: (row) => row.layer, right: true },
            { id: "matrix", head: "Matrix", value: (row) => row.tensorName },
            {
              id: "norm",
              head: "Norm of the change",
              value: (row) => row.differenceNorm,
              cell: (row) => number(row.differenceNorm),
              right: true,
            },
            {
              id: "relative",
              head: "Over the base's",
              value: (row) => row.differenceNorm / row.baseNorm,
              cell: (row) => (
                <span class="progress">
                  <span class="bar" aria-hidden="true">
                    <span class="bar-done" style={{ width: `${(100 * row.differenceNorm) / row.baseNorm / most}%` }} />
                  </span>
                  <span>{number(row.differenceNorm / row.baseNorm)}</span>
                </span>
              ),
            },
          ]}
        />
      )}
    </section>
  );
}

/** Prompts that both versions complete. */
function Probes({
  model,
  left,
  right,
  words,
  edits,
}: {
  model: string;
  left: string;
  right: string;
  words: [string, string];
  edits: readonly Edit[];
}) {
  const proposed = [
    ...new Set(
      edits.flatMap((edit) =>
        edit.requests.slice(0, 3).map((request) => request.prompt.replace("{}", () => request.subject)),
      ),
    ),
  ].slice(0, 8);
  const [text, setText] = useState(proposed.join("\n"));
  const pair = asked("probes").split(",").filter(Boolean);
  const doing = useDoing();
  const run = () =>
    doing.run(async () => {
      const prompts = text.split("\n").filter((prompt) => prompt.trim());
      const make = async (version: string) => {
        const job = {
          model: `models/${model}`,
          version: `models/${model}/versions/${version}`,
          displayName: "probes of a diff",
          spec: { case: "generate" as const, value: { prompts, maxTokens: 12 } },
        };
        return last((await jobs.createJob({ requestId: requestId(), job })).job?.name ?? "");
      };
      const [a, b] = await Promise.all([make(left), make(right)]);
      setQuery({ probes: `${a},${b}` });
    });
  return (
    <section>
      <h2>What both say</h2>
      <Quiet method="JobService/CreateJob" what="ask a model" />
      {pair.length === 2 && (
        <Answers pair={pair} versions={[left, right]} heads={words} label="What both say" file="probes" />
      )}
      {proposed.length === 0 && text === "" && (
        <p class="quiet">{`${command("diff", ["A", "B"], { probe: "The Eiffel Tower is in" })} asks the same.`}</p>
      )}
      <Text label="Prompts, one a line" value={text} rows={4} onInput={setText} />
      <p class="buttons">
        <Act method="JobService/CreateJob" kind="main" disabled={doing.busy || !text.trim()} onClick={() => void run()}>
          Ask both
        </Act>
      </p>
      <Wrong of={doing.problem} />
    </section>
  );
}

/** Most facts that are traced for a comparison. */
const TRACED = 100;

/** The facts that differ, traced on both versions, and the two traces side by side. */
function Traces({
  model,
  versions: both,
  edits,
}: {
  model: string;
  versions: [string, string];
  edits: readonly Edit[];
}) {
  const doing = useDoing();
  const made = asked("traces").split(",").filter(Boolean);
  const [one, other] = [useJob(made[0]), useJob(made[1])];
  // Traces of other versions, of which the address may still tell, are not those of what is seen.
  const ours = made.length === 2 && [one, other].every(({ job }) => !job || both.includes(last(job.version)));
  // Two edits may write the same.
  const facts = new Map<string, { prompt: string; subject: string; subjectStart: number }>();
  for (const { prompt, subject } of edits.flatMap((edit) => edit.requests)) {
    const at = new TextEncoder().encode(prompt.split("{}")[0]).length;
    const fact = { prompt: prompt.replace("{}", () => subject), subject, subjectStart: at };
    if (facts.size < TRACED) facts.set(JSON.stringify(fact), fact);
  }
  if (facts.size === 0 || both[0] === both[1]) return null;
  const run = () =>
    doing.run(async () => {
      const make = async (version: string) => {
        const job = {
          model: `models/${model}`,
          version: `models/${model}/versions/${version}`,
          displayName: "facts of a diff",
          spec: { case: "trace" as const, value: { facts: [...facts.values()] } },
        };
        return last((await jobs.createJob({ requestId: requestId(), job })).job?.name ?? "");
      };
      // The same settings, so the same noise: what differs is the versions'.
      const [left, right] = [await make(both[0]), await make(both[1])];
      setQuery({ traces: `${left},${right}` });
    });
  return (
    <section>
      <h2>Where both keep them</h2>
      <Quiet method="JobService/CreateJob" what="trace facts" />
      {ours && (
        <>
          <div role="status">
            {" "}
            <ul id="traced">
              {[one.job, other.job].map(
                (job) =>
                  job && (
                    <li>
                      <a class="mono" href={`/${job.name}`}>
                        {last(job.name).slice(-8)}
                      </a>{" "}
                      is {stateWord(job.state)}
                      {ended(job.state)
                        ? ""
                        : `: ${count(job.counts?.unitsDone ?? 0n)} of ${some(job.counts?.units ?? 0n, "unit")}`}
                    </li>
                  ),
              )}
            </ul>
          </div>
          <Wrong of={one.problem ?? other.problem} />
          <p>
            <a class="button" href={to("/compare", { left: made[0], right: made[1] })}>
              Compare the two traces
            </a>
          </p>
        </>
      )}
      <p class="buttons">
        <Act method="JobService/CreateJob" disabled={doing.busy} onClick={() => void run()}>
          Trace {some(facts.size, "fact")} on both versions
        </Act>
      </p>
      <Wrong of={doing.problem} />
    </section>
  );
}
