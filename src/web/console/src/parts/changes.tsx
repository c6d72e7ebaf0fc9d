// Changes of refs, from wherever a version or an edit is shown: roll back, branch, tag, revert, pick, commit.

import type { Ref } from "../../contract/palimpsest/v1/version_pb";
import { RefKind } from "../../contract/palimpsest/v1/version_pb";
import { versions, type Problem } from "../client";
import { brief, last, moment, part, some, visible } from "../format";
import { now } from "../may";
import { Act } from "./common";
import { ask } from "./Confirm";

/** Says who was faster, and offers to look again. */
export function moved(problem: Problem, again: () => void): void {
  const by = problem.metadata.moved_by;
  ask({
    title: "The branch moved meanwhile",
    body: (
      <>
        <p>{problem.message}</p>
        <p>
          {by ? `${by} moved it` : "It was moved"} to version{" "}
          <span class="mono">{brief(problem.metadata.version ?? "")}</span> after this page read it. Nothing of yours
          was done: look at what is there now, and decide again.
        </p>
      </>
    ),
    action: "Read it again",
    method: "VersionService/GetRef",
    run: () => Promise.resolve(again()),
  });
}

/** Moves a branch to a version, back or forth. */
export function RollBack({
  model,
  version,
  word,
  refs,
  done,
  branch,
}: {
  model: string;
  version: string;
  word: string;
  refs: readonly Ref[];
  done: () => void;
  branch: string;
}) {
  const ref = refs.find((it) => last(it.name) === branch);
  if (!ref || last(ref.version) === last(version)) return null;
  const move = () =>
    ask({
      title: `Move ${branch} to ${word}?`,
      body: (
        <p>
          {branch} is at <span class="mono">{brief(ref.version)}</span>, moved {moment(ref.updateTime)} by {ref.author}.
          What it moves away from stays, and can be gone back to.
        </p>
      ),
      action: `Move ${branch}`,
      method: "VersionService/UpdateRef",
      why: true,
      danger: true,
      run: async ({ why }) => {
        await versions.updateRef({ ref: { name: `models/${model}/refs/${branch}`, version, etag: ref.etag, why } });
        done();
      },
      onMoved: (problem) => moved(problem, done),
    });
  return (
    <Act method="VersionService/UpdateRef" onClick={move} label={`Roll back ${branch} to ${word}`}>
      Roll back
    </Act>
  );
}

/** Names a version: another branch from here, or a tag that stays. */
export function NameIt({
  model,
  version,
  word,
  kind,
  done,
}: {
  model: string;
  version: string;
  word: string;
  kind: RefKind.BRANCH | RefKind.TAG;
  done: () => void;
}) {
  const what = kind === RefKind.TAG ? "tag" : "branch";
  const make = () =>
    ask({
      title: kind === RefKind.TAG ? `Tag ${word}` : `A branch from ${word}`,
      body: <p>{kind === RefKind.TAG ? "A tag stays where it is." : "A branch moves with every edit made on it."}</p>,
      text: { label: "Name", value: "", hint: "Lower-case letters, digits, '.', '_' and '-'." },
      action: `Make the ${what}`,
      method: "VersionService/CreateRef",
      why: true,
      run: async ({ why, text }) => {
        await versions.createRef({ parent: `models/${model}`, refId: text, ref: { version, kind, why } });
        done();
      },
    });
  return (
    <Act method="VersionService/CreateRef" onClick={make} label={`${what} ${word}`}>
      {kind === RefKind.TAG ? "Tag" : "Branch"}
    </Act>
  );
}

/** Takes an edit out of a branch. */
export function Revert({
  model,
  edit,
  refs,
  done,
  branch,
}: {
  model: string;
  edit: string;
  refs: readonly Ref[];
  done: () => void;
  branch: string;
}) {
  const ref = refs.find((it) => last(it.name) === branch);
  if (!ref) return null;
  const revert = () =>
    ask({
      title: `Take edit ${brief(edit, 8)} out of ${branch}?`,
      body: (
        <p>
          {branch} moves to a version without it; the other edits stay in their order. Edits that were computed on top
          of it are kept, and the new version's warnings name them.
        </p>
      ),
      action: "Revert it",
      method: "VersionService/RevertEdit",
      why: true,
      danger: true,
      run: async ({ why }) => {
        await versions.revertEdit({ name: `models/${model}/edits/${edit}`, refId: branch, etag: ref.etag, why });
        done();
      },
      onMoved: (problem) => moved(problem, done),
    });
  return (
    <Act method="VersionService/RevertEdit" onClick={revert} label={`Revert from ${branch}: edit ${brief(edit, 8)}`}>
      Revert from {branch}
    </Act>
  );
}

/** Adds an edit at the end of a branch. */
export function Pick({
  model,
  edit,
  refs,
  done,
  branch,
}: {
  model: string;
  edit: string;
  refs: readonly Ref[];
  done: () => void;
  branch: string;
}) {
  const ref = refs.find((it) => last(it.name) === branch);
  if (!ref) return null;
  const pick = () =>
    ask({
      title: `Pick edit ${brief(edit, 8)} onto ${branch}?`,
      body: (
        <p>
          It is added at the end of {branch}. Where that has not the version that the edit was computed on, the new
          version's warnings say so.
        </p>
      ),
      action: "Pick it",
      method: "VersionService/CherryPickEdit",
      why: true,
      run: async ({ why }) => {
        await versions.cherryPickEdit({ name: `models/${model}/edits/${edit}`, refId: branch, etag: ref.etag, why });
        done();
      },
      onMoved: (problem) => moved(problem, done),
    });
  return (
    <Act method="VersionService/CherryPickEdit" onClick={pick} label={`Pick onto ${branch}: edit ${brief(edit, 8)}`}>
      Pick onto {branch}
    </Act>
  );
}

/** Makes a version of a job's result. */
export function Commit({
  job,
  unit,
  model,
  refs,
  word,
  done,
}: {
  job: string;
  unit: bigint | number;
  model: string;
  refs: readonly Ref[];
  word: string;
  done: (version: string) => void;
}) {
  const branches = refs.filter((it) => it.kind === RefKind.BRANCH);
  const commit = () =>
    ask({
      title: "Make a version of it?",
      body: (
        <p>
          {word} A branch moves to the version that has it: {branches.map((it) => last(it.name)).join(", ")}.
        </p>
      ),
      text: { label: "Branch", value: "main" },
      action: "Commit",
      method: "VersionService/CreateEdit",
      why: true,
      run: async ({ why, text }) => {
        const ref = branches.find((it) => last(it.name) === text);
        const answer = await versions.createEdit({
          parent: `models/${model}`,
          source: { case: "result", value: `jobs/${job}/results/${unit}` },
          refId: text,
          etag: ref?.etag ?? "",
          why,
        });
        done(last(answer.version?.name ?? ""));
      },
      onMoved: (problem) => moved(problem, () => done("")),
    });
  return (
    <Act method="VersionService/CreateEdit" kind="main" onClick={commit}>
      Commit
    </Act>
  );
}

/** The branch of one person for trying things out. */
export function scratch(): string {
  const name = (now.value?.caller?.principal ?? "somebody")
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, "-")
    .replace(/^[^a-z0-9]+/, "");
  return `scratch-${name || "somebody"}`;
}

export function refsAt(refs: readonly Ref[], version: string): Ref[] {
  return refs.filter((ref) => last(ref.version) === last(version));
}

/** Refs of a version that are shown in a row: one with a tag a night has hundreds. */
const LABELS = 12;

export function RefLabels({ refs }: { refs: readonly Ref[] }) {
  // Branches are what one looks for.
  const sorted = [...refs].sort((a, b) => a.kind - b.kind);
  return (
    <>
      {sorted.slice(0, LABELS).map((ref) => (
        <span
          class={ref.kind === RefKind.TAG ? "ref tag" : "ref"}
          title={`${ref.kind === RefKind.TAG ? "tag" : "branch"}, moved ${moment(ref.updateTime)} by ${ref.author}${ref.why ? `: ${visible(ref.why)}` : ""}`}
        >
          {part(ref.name, "refs")}
        </span>
      ))}
      {refs.length > LABELS && <span class="quiet"> and {some(refs.length - LABELS, "more ref")}</span>}
    </>
  );
}
