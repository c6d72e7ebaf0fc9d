// A version: its edits in order, its matrices, and what can be done with it.

import { RefKind, type Edit } from "../../contract/palimpsest/v1/version_pb";
import { versions } from "../client";
import { call, command } from "../copied";
import { brief, count, last, moment, some, versionWord, visible } from "../format";
import { useLoad } from "../live";
import { may } from "../may";
import { Facts, Heading, Quiet, Waiting } from "../parts/common";
import { NameIt, RefLabels, refsAt, Revert, RollBack } from "../parts/changes";
import { CopyAs } from "../parts/CopyAs";
import { Sentence, sentenceOf } from "../parts/EditCard";
import { Table } from "../parts/Table";
import { to } from "../route";

export function VersionPage({ model, version }: { model: string; version: string }) {
  const name = `models/${model}/versions/${version}`;
  const read = useLoad(
    name,
    async (signal) => (await versions.getVersion({ name, withoutEdits: true }, { signal })).version,
  );
  const edits = useLoad(`edits ${name}`, (signal) => versions.listEdits({ parent: name, pageSize: 200 }, { signal }));
  const refs = useLoad(
    `refs ${model}`,
    async (signal) => (await versions.listRefs({ parent: `models/${model}`, pageSize: 1000 }, { signal })).refs,
  );
  const it = read.data;
  const id = last(it?.name ?? version);
  const word = it ? `v${it.number}` : version;
  const here = refsAt(refs.data ?? [], id);
  const branch = last(here.find((ref) => ref.kind === RefKind.BRANCH)?.name ?? "main");
  const again = () => {
    refs.again();
    read.again();
  };
  return (
    <>
      <div class="title">
        <Heading title={`${word} of ${model}`}>
          {word} of <a href={`/models/${model}`}>{model}</a> <RefLabels refs={here} />
        </Heading>
        <CopyAs
          command={command("show", [brief(id)], { model })}
          python={call(call("p.model", [model]) + ".version", [brief(id)])}
          json={() => it}
        />
      </div>
      <Waiting of={read} what="the version" />
      {it && (
        <>
          {it.warnings.length > 0 && (
            <ul class="warning">
              {it.warnings.map((warning) => (
                <li>{visible(warning)}</li>
              ))}
            </ul>
          )}
          <p class="buttons">
            <RollBack model={model} version={it.name} word={word} refs={refs.data ?? []} done={again} branch="main" />
            <NameIt model={model} version={it.name} word={word} kind={RefKind.BRANCH} done={again} />
            <NameIt model={model} version={it.name} word={word} kind={RefKind.TAG} done={again} />
            {it.parent && (
              <a class="button" href={to(`/models/${model}/diff`, { left: it.parent, right: id })}>
                What it changed
              </a>
            )}
            <a class="button" href={to(`/models/${model}/diff`, { left: "v0", right: id })}>
              Compare with v0
            </a>
            {may("JobService/CreateJob") && (
              <a class="button" href={to("/playground", { model, version: id })}>
                Playground
              </a>
            )}
          </p>
          <Quiet method="VersionService/UpdateRef" what="move refs" />
          <Facts
            of={[
              ["digest", <span class="mono break">{id}</span>],
              ["came by", versionWord(it.kind)],
              [
                "parent",
                it.parent ? (
                  <a class="mono" href={`/models/${model}/versions/${it.parent}`}>
                    {brief(it.parent)}
                  </a>
                ) : (
                  ""
                ),
              ],
              ["author", it.author],
              ["when", moment(it.createTime)],
              ["why", visible(it.why)],
              ["edits", count(it.editCount)],
              ["take it elsewhere", <code>{command("export", ["out/"], { model, ref: brief(id) })}</code>],
            ]}
          />
          <section>
            <h2>Edits, in their order</h2>
            <Waiting of={edits} what="edits" />
            {edits.data && edits.data.edits.length === 0 && <p>It is the model as it was imported.</p>}
            {edits.data && edits.data.edits.length > 0 && (
              <Table
                label="Edits"
                name="edits"
                fixed
                rows={edits.data.edits}
                rowKey={(edit) => edit.name}
                file={`edits-${brief(id)}`}
                columns={[
                  {
                    id: "edit",
                    head: "Edit",
                    value: (edit) => last(edit.name),
                    cell: (edit) => (
                      <a class="mono" href={`/${edit.name}`}>
                        {brief(edit.name, 8)}
                      </a>
                    ),
                  },
                  {
                    id: "fact",
                    head: "Fact",
                    value: (edit) => sentenceOf(edit.requests[0]),
                    cell: (edit) => <FactsIn edit={edit} />,
                    wide: 3,
                  },
                  { id: "method", head: "Method", value: (edit) => edit.method },
                  {
                    id: "layers",
                    head: "Layers",
                    value: (edit) => edit.factors.map((factor) => factor.layer).join(", "),
                  },
                  { id: "author", head: "Author", value: (edit) => edit.author },
                  {
                    id: "act",
                    head: "",
                    value: () => undefined,
                    cell: (edit) => (
                      <Revert
                        model={model}
                        edit={last(edit.name)}
                        refs={refs.data ?? []}
                        done={again}
                        branch={branch}
                      />
                    ),
                  },
                ]}
                foot={
                  <span class="quiet">
                    {count(edits.data.edits.length)} of {count(it.editCount)}
                  </span>
                }
              />
            )}
          </section>
          {it.matrices.length > 0 && (
            <section>
              <h2>Matrices that differ from the base</h2>
              <Table
                label="Matrices"
                name="matrices"
                rows={it.matrices}
                rowKey={(matrix) => matrix.tensorName}
                columns={[
                  { id: "layer", head: "Layer", value: (matrix) => matrix.layer, right: true },
                  { id: "tensor", head: "Matrix", value: (matrix) => matrix.tensorName },
                  { id: "dtype", head: "Type", value: (matrix) => matrix.dtype },
                  {
                    id: "digest",
                    head: "BLAKE3 of its elements",
                    value: (matrix) => matrix.digest,
                    cell: (matrix) => <span class="mono">{brief(matrix.digest, 16)}</span>,
                  },
                ]}
              />
            </section>
          )}
        </>
      )}
    </>
  );
}

export function FactsIn({ edit }: { edit: Edit }) {
  const [first, ...others] = edit.requests;
  return (
    <>
      <Sentence request={first} />
      {others.length > 0 && <span class="quiet"> and {some(others.length, "fact")}</span>}
    </>
  );
}
