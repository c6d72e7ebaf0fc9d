// The edits of a job: a card each, and what can be made of them.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import type { EditProgress_Step } from "../../contract/palimpsest/v1/edit_pb";
import type { Job } from "../../contract/palimpsest/v1/job_pb";
import { EditState } from "../../contract/palimpsest/v1/version_pb";
import { versions } from "../client";
import { brief, count, last, visible } from "../format";
import { results } from "../job";
import { useLoad } from "../live";
import { Quiet, Waiting } from "../parts/common";
import { Commit } from "../parts/changes";
import { OutcomeCard, Sentence, sentenceOf } from "../parts/EditCard";
import { ResultsTitle } from "../parts/ResultsTitle";
import { Steps } from "../parts/Steps";
import { Table } from "../parts/Table";
import { asked, setQuery } from "../route";

export function EditResults({
  job,
  steps,
  note,
}: {
  job: Job;
  steps: Map<string, EditProgress_Step[]>;
  note: ComponentChildren;
}) {
  const id = last(job.name);
  const model = last(job.model);
  const spec = job.spec.case === "edit" ? job.spec.value : undefined;
  const read = useLoad(`edits ${id} ${job.counts?.unitsDone}`, (signal) => results(id, {}, signal, 2000), true);
  const refs = useLoad(
    `refs ${model}`,
    async (signal) => (await versions.listRefs({ parent: `models/${model}`, pageSize: 1000 }, { signal })).refs,
  );
  const [made, setMade] = useState("");
  const items = read.data?.items ?? [];
  const chosen = items.find((item) => String(item.unit) === asked("unit", "0")) ?? items[0];
  const outcome = chosen?.outcome.case === "edit" ? chosen.outcome.value : undefined;
  const rows = items.map((item) => ({
    unit: Number(item.unit),
    request:
      item.outcome.case === "edit" ? item.outcome.value.edit?.requests[0] : spec?.tasks[Number(item.unit)]?.request,
    said:
      item.outcome.case === "edit"
        ? item.outcome.value.edit?.state === EditState.REJECTED
          ? "rejected"
          : item.outcome.value.version
            ? `version ${brief(item.outcome.value.version, 8)}`
            : "accepted"
        : item.outcome.case === "failure"
          ? item.outcome.value.message
          : "",
  }));
  return (
    <>
      <ResultsTitle job={job} title="Edit" note={note} copied={{ json: () => items }} />
      <Waiting of={read} what="edits" />
      {[...steps]
        .filter(([unit]) => !items.some((item) => String(item.unit) === unit))
        .map(([unit, of]) => (
          <section>
            <p class="said">
              <Sentence request={spec?.tasks[Number(unit)]?.request} />
            </p>
            <Steps steps={of} title="Being computed" />
          </section>
        ))}
      {rows.length > 1 && (
        <Table
          label="Edits"
          name="edits"
          rows={rows}
          rowKey={(row) => String(row.unit)}
          picked={String(chosen?.unit)}
          onPick={(row) => setQuery({ unit: row.unit })}
          columns={[
            {
              id: "n",
              head: "#",
              value: (row) => row.unit + 1,
              right: true,
              wide: 0.3,
              cell: (row) => (
                <button
                  type="button"
                  class="plain"
                  aria-label={`Edit ${row.unit + 1}`}
                  onClick={() => setQuery({ unit: row.unit })}
                >
                  {row.unit + 1}
                </button>
              ),
            },
            {
              id: "fact",
              head: "Fact",
              value: (row) => sentenceOf(row.request),
              cell: (row) => <Sentence request={row.request} />,
              wide: 3,
            },
            { id: "said", head: "Came to", value: (row) => visible(row.said) },
          ]}
          file={`edits-${brief(id)}`}
          foot={
            <span class="quiet">
              {count(rows.length)} of {count(job.counts?.units ?? 0n)}
            </span>
          }
        />
      )}
      {outcome && chosen && (
        <>
          <OutcomeCard outcome={outcome} name={`edit-${brief(id)}-${chosen.unit}`} />
          {outcome.edit?.name ? (
            <p>
              It is stored as edit{" "}
              <a class="mono" href={`/${outcome.edit.name}`}>
                {brief(outcome.edit.name)}
              </a>
              {outcome.version && (
                <>
                  {" "}
                  and in version{" "}
                  <a class="mono" href={`/models/${model}/versions/${last(outcome.version)}`}>
                    {brief(outcome.version)}
                  </a>
                </>
              )}
              .
            </p>
          ) : made ? (
            <p role="status">
              Version{" "}
              <a class="mono" href={`/models/${model}/versions/${made}`}>
                {brief(made)}
              </a>{" "}
              has it.
            </p>
          ) : (
            outcome.edit?.state !== EditState.REJECTED && (
              <p class="buttons">
                <Commit
                  job={id}
                  unit={chosen.unit}
                  model={model}
                  refs={refs.data ?? []}
                  word={sentenceOf(outcome.edit?.requests[0])}
                  done={(version) => {
                    setMade(version);
                    refs.again();
                  }}
                />
              </p>
            )
          )}
          <Quiet method="VersionService/CreateEdit" what="make a version of it" />
        </>
      )}
      {chosen?.outcome.case === "failure" && <p class="wrong">{visible(chosen.outcome.value.message)}</p>}
    </>
  );
}
