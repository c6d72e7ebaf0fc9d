// Steps 3 and 4: the edit on a branch of one's own; then on main, and back.

import { useState } from "preact/hooks";

import { RefKind, type Ref, type Version } from "../../contract/palimpsest/v1/version_pb";
import { Code, problem, versions, type Problem } from "../client";
import { brief, last, moment, visible } from "../format";
import { useDoing } from "../live";
import { may } from "../may";
import { Act, Quiet, Text, Wrong } from "../parts/common";
import { scratch } from "../parts/changes";
import { AFRESH, lines, setPlay, submit, type Play } from "../play";
import { asked } from "../route";
import { Answers } from "./Answers";
import { useAccepted } from "./PlaygroundEdit";

/** Puts the edit onto the visitor's own branch, which is moved to where the edit was computed; nothing else moves. */
async function onScratch(it: Play, refs: readonly Ref[]): Promise<{ version: string; edit: string }> {
  const name = scratch();
  const base = `models/${it.model}/versions/${it.version}`;
  const there = refs.some((ref) => last(ref.name) === name);
  if (there)
    await versions.updateRef({
      ref: { name: `models/${it.model}/refs/${name}`, version: base, why: "the playground begins again" },
    });
  else
    await versions.createRef({
      parent: `models/${it.model}`,
      refId: name,
      ref: { version: base, kind: RefKind.BRANCH, why: "the playground's own branch" },
    });
  const made = await versions.createEdit({
    parent: `models/${it.model}`,
    source: { case: "result", value: `jobs/${it.edit}/results/0` },
    refId: name,
    why: it.why || "a try in the playground",
  });
  return { version: last(made.version?.name ?? ""), edit: last(made.edit?.name ?? "") };
}

export function Try({ it, refs, again }: { it: Play; refs: readonly Ref[]; again: () => void }) {
  const accepted = useAccepted(it.edit);
  const doing = useDoing();
  const [text, setText] = useState(
    [it.prompt, ...lines(it.paraphrases), ...lines(it.neighbours)].filter(Boolean).join("\n"),
  );
  const pair = asked("said").split(",").filter(Boolean);
  const ask = () =>
    doing.run(async () => {
      let tried = it.tried;
      if (!tried) {
        const made = await onScratch(it, refs);
        tried = made.version;
        // Another edit may have been asked for meanwhile: this is not its version.
        if (asked("edit") !== it.edit) return;
        setPlay({ tried, stored: made.edit });
        again();
      }
      const spec = () => ({ case: "generate" as const, value: { prompts: [...new Set(lines(text))], maxTokens: 12 } });
      const [before, after] = await Promise.all([
        submit(it, it.version, "playground, before", spec()),
        submit(it, tried, "playground, with the edit", spec()),
      ]);
      if (asked("edit") === it.edit) setPlay({ said: `${before},${after}` });
    });
  if (!accepted) return null;
  return (
    <section class="step open" aria-labelledby="try">
      <h2 id="try">3. Try</h2>
      <p>
        On your own branch <span class="ref">{scratch()}</span>: nothing else moves.
      </p>
      <Quiet method="VersionService/CreateEdit" what="make versions: the preview above is what there is" />
      {may("VersionService/CreateEdit") && (
        <>
          <Text label="Prompts, one a line" value={text} rows={4} onInput={setText} />
          <p class="buttons">
            <Act
              method="VersionService/CreateEdit"
              kind="main"
              disabled={doing.busy || lines(text).length === 0}
              onClick={() => void ask()}
            >
              Ask both
            </Act>
            {doing.busy && <span role="status">…</span>}
          </p>
          <Wrong of={doing.problem} />
          {it.tried && (
            <p class="quiet">
              Version{" "}
              <a class="mono" href={`/models/${it.model}/versions/${it.tried}`}>
                {brief(it.tried)}
              </a>{" "}
              has it.
            </p>
          )}
          {pair.length === 2 && it.tried && (
            <Answers
              pair={pair}
              versions={[it.version, it.tried]}
              heads={["Before", "With the edit"]}
              label="Before, and with the edit"
              file="tried"
            />
          )}
        </>
      )}
    </section>
  );
}

export function Keep({
  it,
  refs,
  known,
  again,
}: {
  it: Play;
  refs: readonly Ref[];
  known: readonly Version[];
  again: () => void;
}) {
  const word = (id: string) => {
    const found = known.find((version) => last(version.name) === id);
    return found ? `v${found.number}` : brief(id, 8);
  };
  const accepted = useAccepted(it.edit);
  const doing = useDoing();
  const [conflict, setConflict] = useState<Problem | undefined>(undefined);
  const [moved, setMoved] = useState<Ref | undefined>(undefined);
  const name = `models/${it.model}/refs/main`;
  const main = refs.find((ref) => ref.name === name);
  const done = (from: string, to: string) => {
    setConflict(undefined);
    setPlay({ before: from, kept: to });
    again();
  };
  const commit = () =>
    doing.run(async () => {
      const was = last(main?.version ?? it.version);
      try {
        const made = await versions.createEdit({
          parent: `models/${it.model}`,
          source: { case: "result", value: `jobs/${it.edit}/results/0` },
          refId: "main",
          etag: it.etag,
          why: it.why,
        });
        done(was, last(made.version?.name ?? ""));
      } catch (error) {
        if (problem(error).code !== Code.Aborted) throw error;
        setConflict(problem(error));
        setMoved((await versions.getRef({ name })).ref);
      }
    });
  const pick = () =>
    doing.run(async () => {
      const edit = it.stored || (await onScratch(it, refs)).edit;
      const from = last(moved?.version ?? "");
      const made = await versions.cherryPickEdit({
        name: `models/${it.model}/edits/${edit}`,
        refId: "main",
        etag: moved?.etag ?? "",
        why: it.why,
      });
      done(from, last(made.version?.name ?? ""));
    });
  const rebase = () =>
    // The same question on the version that main has now; what was computed for the old one stays in its job.
    setPlay({ ...AFRESH, version: last(moved?.version ?? ""), etag: moved?.etag });
  const back = () =>
    doing.run(async () => {
      const ref = (await versions.getRef({ name })).ref;
      if (last(ref?.version ?? "") !== it.kept)
        throw new Error(`main was moved since, by ${ref?.author}: look at the history`);
      const answer = await versions.updateRef({
        ref: {
          name,
          version: `models/${it.model}/versions/${it.before}`,
          etag: ref?.etag ?? "",
          why: "taken back in the playground",
        },
      });
      // Where main is now is this page's own doing, and nothing that was moved behind its back.
      setPlay({ kept: undefined, before: undefined, etag: answer.ref?.etag });
      again();
    });
  if (!accepted && !it.kept) return null;
  return (
    <section class="step open" aria-labelledby="keep">
      <h2 id="keep">4. Keep</h2>
      {!it.kept && (
        <p class="buttons">
          <Act method="VersionService/CreateEdit" kind="main" disabled={doing.busy} onClick={() => void commit()}>
            Commit to main
          </Act>
          {main && (
            <span class="quiet">
              main is at <span class="mono">{brief(main.version, 8)}</span>
              {last(main.version) !== it.version && ", which is not the version that the edit was computed on"}
            </span>
          )}
        </p>
      )}
      <Quiet method="VersionService/CreateEdit" what="commit it" />
      <Wrong of={doing.problem} />
      {conflict && (
        <div class="warning" role="alertdialog" aria-labelledby="conflict" id="conflict-box">
          <h3 id="conflict">main moved meanwhile</h3>
          <p>{conflict.message}</p>
          {moved && (
            <p>
              {moved.author} moved it to <span class="mono">{brief(moved.version)}</span>, {moment(moved.updateTime)}
              {moved.why && `: ${visible(moved.why)}`}. Nothing of yours was done.
            </p>
          )}
          <p class="buttons">
            <button type="button" class="main" onClick={rebase}>
              Compute again on the new version
            </button>
            <Act method="VersionService/CherryPickEdit" disabled={doing.busy} onClick={() => void pick()}>
              Cherry-pick all the same
            </Act>
            <button type="button" onClick={() => setConflict(undefined)}>
              Leave it
            </button>
          </p>
        </div>
      )}
      {it.kept && (
        <p class="kept" role="status" id="kept">
          main:{" "}
          <a class="mono" href={`/models/${it.model}/versions/${it.before}`}>
            {word(it.before)}
          </a>{" "}
          →{" "}
          <a class="mono" href={`/models/${it.model}/versions/${it.kept}`}>
            {word(it.kept)}
          </a>
          .{" "}
          <Act method="VersionService/UpdateRef" kind="danger" disabled={doing.busy} onClick={() => void back()}>
            Take back
          </Act>
        </p>
      )}
    </section>
  );
}
