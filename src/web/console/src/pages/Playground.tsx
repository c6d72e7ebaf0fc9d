// Ask, edit with a preview, try, keep or take back: four steps on one page, each a job that stays.

import { RefKind, type Ref } from "../../contract/palimpsest/v1/version_pb";
import { models, versions } from "../client";
import { brief, last } from "../format";
import { useLoad } from "../live";
import { may, whoAmI } from "../may";
import { Choice, Heading, Waiting } from "../parts/common";
import { CopyAs, quoted } from "../parts/CopyAs";
import { play, template } from "../play";
import { asked, setQuery } from "../route";
import { Ask } from "./PlaygroundAsk";
import { Change } from "./PlaygroundEdit";
import { Keep, Try } from "./PlaygroundTry";

export function Playground() {
  const it = play();
  const known = useLoad("models", async (signal) => (await models.listModels({ pageSize: 1000 }, { signal })).models);
  const model = it.model || last(known.data?.[0]?.name ?? "");
  const here = useLoad(
    `playground ${model} ${it.version}`,
    async (signal) => {
      if (!model) return undefined;
      const [refs, list, found] = await Promise.all([
        versions.listRefs({ parent: `models/${model}`, pageSize: 1000 }, { signal }),
        versions.listVersions({ parent: `models/${model}`, pageSize: 100 }, { signal }),
        versions.getVersion(
          { name: `models/${model}/versions/${it.version || "main"}`, withoutEdits: true },
          { signal },
        ),
      ]);
      return { refs: refs.refs, versions: list.versions, version: found.version };
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
    setQuery({
      ...next,
      completion: undefined,
      trace: undefined,
      edit: undefined,
      sums: undefined,
      tried: undefined,
      stored: undefined,
      kept: undefined,
      before: undefined,
    });
  const command =
    template(whole) && it.target
      ? `palimpsest edit ${quoted(template(whole))} --subject ${quoted(it.subject)} --target ${quoted(it.target)}${it.truth ? ` --true ${quoted(it.truth)}` : ""}${it.layer === undefined ? "" : ` --layer ${it.layer}`}`
      : `palimpsest trace ${quoted(it.prompt || "PROMPT")} --subject ${quoted(it.subject || "SUBJECT")} --samples 3`;
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
        <CopyAs
          command={command}
          python={`m = p.model("${model}")\nm.trace(${JSON.stringify(it.prompt)}, subject=${JSON.stringify(it.subject)}, samples=3)`}
        />
      </div>
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
          {(it.trace || it.layer !== undefined || it.edit) && <Change it={whole} refs={here.data.refs} />}
          {it.edit && <Try it={whole} refs={here.data.refs} again={here.again} />}
          {it.edit && <Keep it={whole} refs={here.data.refs} again={here.again} />}
          {asked("kept") === "" && !it.edit && (
            <p class="quiet">Each step is a job that stays: this page's address leads back to it.</p>
          )}
        </>
      )}
    </>
  );
}
