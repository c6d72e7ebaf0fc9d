// Ask, edit with a preview, try, keep or take back: four steps on one page, each a job that stays.

import { useEffect } from "preact/hooks";

import { RefKind, type Ref } from "../../contract/palimpsest/v1/version_pb";
import { models, versions } from "../client";
import { call, command } from "../copied";
import { brief, last } from "../format";
import { useLoad } from "../live";
import { may, whoAmI } from "../may";
import { Choice, Heading, Waiting } from "../parts/common";
import { scratch } from "../parts/changes";
import { CopyAs } from "../parts/CopyAs";
import { AFRESH, lines, play, setPlay, texts, type Play } from "../play";
import { allRefs } from "../refs";
import { asked } from "../route";
import { fact, template } from "../subject";
import { Ask } from "./PlaygroundAsk";
import { Change } from "./PlaygroundEdit";
import { Keep, Try } from "./PlaygroundTry";

/** What is seen, up to the preview, as lines that do the same on this version; the edit is on one's own branch. */
function copied(it: Play): { command: string; python: string } {
  const version = brief(it.version);
  const [on, model] = [{ model: it.model, ref: version }, call("m = p.model", [it.model, version || undefined])];
  // With the subject's place in it where that is not the first.
  const prompt = (fact(it).subjectStart === undefined ? it.prompt : template(it)) || "PROMPT";
  if (!it.subject)
    return {
      command: command("generate", [prompt], { "max-tokens": 8, ...on }),
      python: `${model}\n${call("m.complete", [prompt], { max_tokens: 8 })}`,
    };
  const { subject, target, layer } = it;
  const named = { subject, samples: 3 };
  if (!template(it) || !target)
    return {
      command: command("trace", [prompt], { ...named, ...on }),
      python: `${model}\n${call("m.trace", [prompt], named)}`,
    };
  const [paraphrases, neighbours] = [lines(it.paraphrases), lines(it.neighbours)];
  const what = { subject, target, true: it.truth, layer, method: it.method };
  return {
    command: [
      command("branch", [scratch(), version], { force: true, model: it.model }),
      command("edit", [template(it)], {
        ...what,
        paraphrase: paraphrases,
        neighbour: neighbours,
        why: it.why,
        ref: scratch(),
        model: it.model,
      }),
    ].join("\n"),
    python: `${model}\n${call("draft = m.edit", [template(it)], { ...what, paraphrases, neighbours })}`,
  };
}

export function Playground() {
  const it = play();
  const known = useLoad("models", async (signal) => (await models.listModels({ pageSize: 1000 }, { signal })).models);
  const model = it.model || last(known.data?.[0]?.name ?? "");
  const here = useLoad(
    `playground ${model} ${it.version}`,
    async (signal) => {
      if (!model) return undefined;
      const [refs, list, found] = await Promise.all([
        allRefs(`models/${model}`, signal),
        versions.listVersions({ parent: `models/${model}`, pageSize: 100 }, { signal }),
        versions.getVersion(
          { name: `models/${model}/versions/${it.version || "main"}`, withoutEdits: true },
          { signal },
        ),
      ]);
      return { refs, versions: list.versions, version: found.version };
    },
    true,
  );
  const digest = last(here.data?.version?.name ?? "");
  const whole = { ...it, model, version: digest };
  const tag = (refs: readonly Ref[], id: string) => {
    const names = refs
      .filter((ref) => last(ref.version) === id && ref.kind !== RefKind.UNSPECIFIED)
      .map((ref) => last(ref.name));
    return names.length ? ` (${names.join(", ")})` : "";
  };
  const change = (next: Record<string, string | undefined>) =>
    setPlay({ ...next, ...AFRESH, completion: undefined, trace: undefined, sums: undefined });
  // A link of another page may carry long texts: they are put where they do not hinder the next reload.
  useEffect(() => {
    if (texts() === "carried") setPlay({});
  }, []);
  if (!may("JobService/CreateJob")) {
    return (
      <>
        <Heading title="Playground">Playground</Heading>
        <p class="quiet">
          {whoAmI()}, who may not ask models. The results of others are under <a href="/jobs">jobs</a>.
        </p>
      </>
    );
  }
  return (
    <>
      <div class="title">
        <Heading title="Playground">Playground</Heading>
        <CopyAs {...copied(whole)} json={() => whole} />
      </div>
      {texts() !== "carried" && (
        <p class="quiet" id="texts">
          {texts() === "kept"
            ? "The texts are long: this tab keeps them, and a link to this page does not carry them."
            : "The texts are long, and the link does not carry them: write them again."}
        </p>
      )}
      <Waiting of={known} what="models" />
      <Waiting of={here} what="versions" />
      {known.data?.length === 0 && (
        <p>
          No model is here. <a href="/models">Import one</a> first.
        </p>
      )}
      {here.data && digest && (
        <>
          <form class="filters" onSubmit={(event) => event.preventDefault()}>
            <Choice
              label="Model"
              value={model}
              options={(known.data ?? []).map((one) => [last(one.name), last(one.name)] as const)}
              onChange={(name) => change({ model: name, version: undefined })}
            />
            <Choice
              label="Version"
              value={digest}
              options={[
                ...(here.data.versions.some((version) => last(version.name) === digest)
                  ? []
                  : [[digest, brief(digest)] as const]),
                ...here.data.versions.map(
                  (version) =>
                    [
                      last(version.name),
                      `v${version.number} ${brief(version.name, 6)}${tag(here.data?.refs ?? [], last(version.name))}`,
                    ] as const,
                ),
              ]}
              onChange={(version) => change({ version })}
            />
          </form>
          <Ask it={whole} />
          {(it.trace || it.layer !== undefined || it.edit || it.sums) && <Change it={whole} refs={here.data.refs} />}
          {it.edit && <Try it={whole} refs={here.data.refs} again={here.again} />}
          {it.edit && <Keep it={whole} refs={here.data.refs} known={here.data.versions} again={here.again} />}
          {asked("kept") === "" && !it.edit && (
            <p class="quiet">Each step is a job that stays: this page's address leads back to it.</p>
          )}
        </>
      )}
    </>
  );
}
