// An edit: what it says, what it did, and where it is.

import { RefKind } from "../../contract/palimpsest/v1/version_pb";
import { versions } from "../client";
import { call, command } from "../copied";
import { brief, count, last, moment, some } from "../format";
import { results } from "../job";
import { useLoad } from "../live";
import { Heading, Quiet, Waiting } from "../parts/common";
import { Pick, Revert } from "../parts/changes";
import { CopyAs } from "../parts/CopyAs";
import { EditCard, Sentence, sentenceOf } from "../parts/EditCard";
import { Table } from "../parts/Table";
import { allRefs } from "../refs";

/** Results of a job among which an edit's own is looked for. */
const MOST = 2000;
/** Versions whose edits are read, of all that refs are at. */
const VERSIONS = 50;

export function EditPage({ model, edit }: { model: string; edit: string }) {
  const name = `models/${model}/edits/${edit}`;
  const read = useLoad(name, async (signal) => (await versions.getEdit({ name }, { signal })).edit);
  const it = read.data;
  const job = it?.job ?? "";
  const digest = it?.factors[0]?.digest ?? "";
  // Steps and probes lie in the job that computed it, in the unit with the same factor.
  const outcome = useLoad(`outcome ${job} ${digest}`, async (signal) => {
    if (!job) return undefined;
    const { items } = await results(last(job), {}, signal, MOST);
    for (const item of items) {
      if (item.outcome.case === "edit" && item.outcome.value.edit?.factors[0]?.digest === digest)
        return item.outcome.value;
    }
    return undefined;
  });
  const refs = useLoad(`refs ${model}`, async (signal) => {
    const all = await allRefs(`models/${model}`, signal);
    // Branches first: on them something can be done. Many tags are at one version.
    const sorted = [...all].sort((a, b) => a.kind - b.kind);
    const names = [...new Set(sorted.map((ref) => ref.version))];
    const read = names.slice(0, VERSIONS).map(async (version) => {
      const found = (await versions.getVersion({ name: version }, { signal })).version;
      // Of more edits than an answer has room for, none is listed.
      const listed = found !== undefined && BigInt(found.edits.length) === found.editCount;
      return [version, listed ? new Set(found.edits) : undefined] as const;
    });
    const edits = new Map(await Promise.all(read));
    return { all, at: sorted.map((ref) => ({ ref, edits: edits.get(ref.version) })) };
  });
  const id = last(it?.name ?? edit);
  const having = refs.data?.at.filter(({ edits }) => edits?.has(id)) ?? [];
  const unread = refs.data?.at.filter(({ edits }) => edits === undefined).length ?? 0;
  const plain = refs.data?.all ?? [];
  const branches = refs.data?.at.filter(({ ref, edits }) => ref.kind === RefKind.BRANCH && edits) ?? [];
  const again = () => refs.again();
  return (
    <>
      <div class="title">
        <Heading title={`Edit ${brief(id, 8)}`}>
          Edit <span class="mono">{brief(id, 8)}</span> of <a href={`/models/${model}`}>{model}</a>
        </Heading>
        <CopyAs
          command={command("show", [brief(id)], { model })}
          python={call(call("p.model", [model]) + ".get_edit", [brief(id)])}
          json={() => it}
        />
      </div>
      <Waiting of={read} what="the edit" />
      {it && (
        <>
          <p class="quiet">
            Computed {moment(it.createTime)} by {it.author} on version{" "}
            <a class="mono" href={`/${it.basedOn}`}>
              {brief(it.basedOn, 8)}
            </a>
            {job ? (
              <>
                , in job{" "}
                <a class="mono" href={`/${job}`}>
                  {job.slice(-8)}
                </a>
              </>
            ) : (
              ". It was imported: its steps and probes are not known here"
            )}
            .
          </p>
          <p>
            {having.length > 0
              ? `These refs have it now: ${having.map(({ ref }) => last(ref.name)).join(", ")}.`
              : refs.data
                ? unread > 0
                  ? "None of the refs that were looked at has it now."
                  : "No ref has it now."
                : ""}
            {unread > 0 && ` ${some(unread, "ref")} more ${unread === 1 ? "was" : "were"} not looked at.`}
          </p>
          <p class="buttons">
            {branches.map(({ ref, edits }) =>
              edits?.has(id) ? (
                <Revert model={model} edit={id} refs={plain} done={again} branch={last(ref.name)} />
              ) : (
                <Pick model={model} edit={id} refs={plain} done={again} branch={last(ref.name)} />
              ),
            )}
          </p>
          <Quiet method="VersionService/RevertEdit" what="revert or pick it" />
          <EditCard
            edit={it}
            probes={outcome.data?.probes ?? []}
            steps={outcome.data?.steps ?? []}
            overwritten={outcome.data?.overwritten ?? []}
            name={`edit-${brief(id, 8)}`}
          />
          {job && outcome.data === undefined && !outcome.loading && (
            <p class="quiet">Its steps are not among the first {count(MOST)} results of its job.</p>
          )}
          {it.requests.length > 1 && (
            <section>
              <h2>Facts</h2>
              <Table
                label="Facts"
                name="facts"
                rows={it.requests.map((request, at) => ({ request, at }))}
                rowKey={(row) => String(row.at)}
                file={`facts-${brief(id, 8)}`}
                columns={[
                  { id: "at", head: "#", value: (row) => row.at, right: true, wide: 0.3 },
                  { id: "id", head: "Id", value: (row) => row.request.id, wide: 0.6 },
                  {
                    id: "fact",
                    head: "Fact",
                    value: (row) => sentenceOf(row.request),
                    cell: (row) => <Sentence request={row.request} />,
                    wide: 4,
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
