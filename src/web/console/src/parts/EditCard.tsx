// An edit: what it says, what it did to every prompt, how it was found, whether it passed.

import type { EditOutcome, EditProbe, OverwrittenFact } from "../../contract/palimpsest/v1/edit_pb";
import { EditState, type Edit, type EditRequest, type NamedNumber } from "../../contract/palimpsest/v1/version_pb";
import { brief, last, number, visible } from "../format";
import { Dumbbell } from "./Dumbbell";
import { Facts } from "./common";
import { Steps, type Step } from "./Steps";
import { Table } from "./Table";

/** `The Eiffel Tower is located in the city of Paris → Rome`. */
export function Sentence({ request }: { request: EditRequest | undefined }) {
  if (!request) return null;
  const [before, after] = request.prompt.split("{}");
  return (
    <span class="sentence">
      {visible(before ?? "")}
      <u>{visible(request.subject)}</u>
      {visible(after ?? "")}{" "}
      <strong>
        {request.targetTrue !== undefined && <del>{visible(request.targetTrue.trim())}</del>}
        {request.targetTrue !== undefined && " → "}
        <ins>{visible(request.targetNew.trim())}</ins>
      </strong>
    </span>
  );
}

/** The same as plain words. */
export function sentenceOf(request: EditRequest | undefined): string {
  if (!request) return "";
  const truth = request.targetTrue === undefined ? "" : `${request.targetTrue.trim()} → `;
  return `${request.prompt.replace("{}", () => request.subject)} ${truth}${request.targetNew.trim()}`;
}

export const figureOf = (figures: readonly NamedNumber[], key: string) =>
  figures.find((figure) => figure.key === key)?.value;

export function Gates({ edit }: { edit: Edit }) {
  return (
    <>
      <p>
        <span class={`state ${edit.state === EditState.REJECTED ? "failed" : "succeeded"}`}>
          {edit.state === EditState.REJECTED ? "rejected" : "accepted"}
        </span>{" "}
        {edit.state === EditState.REJECTED ? "It failed a gate, and no version may have it." : ""}
      </p>
      {edit.failedGates.length > 0 && (
        <ul class="wrong">
          {edit.failedGates.map((gate) => (
            <li>{visible(gate)}</li>
          ))}
        </ul>
      )}
      {edit.warnings.length > 0 && (
        <ul class="warning">
          {edit.warnings.map((warning) => (
            <li>{visible(warning)}</li>
          ))}
        </ul>
      )}
    </>
  );
}

/** What the edit did besides: the perplexity of texts, its neighbours, and tasks that it has nothing to do
 *  with, where they were measured. */
export function beside(edit: Edit): [string, string][] {
  const rows: [string, string][] = [];
  for (const [of, whose] of [
    ["ppl", "the texts"],
    ["ppl.server", "the coordinator's texts"],
  ]) {
    const [before, after, ratio] = ["before", "after", "ratio"].map((part) =>
      figureOf(edit.figures, `${of}.${part}`),
    );
    if (before !== undefined && after !== undefined && ratio !== undefined) {
      rows.push([`perplexity of ${whose}`, `${number(before)} → ${number(after)}, ${number(ratio)} times`]);
    }
  }
  const locality = figureOf(edit.figures, "locality");
  if (locality !== undefined) {
    rows.push(["locality", `${number(locality)} of the neighbours that were right before`]);
  }
  for (const { key } of edit.figures) {
    const task = /^downstream\.(.+)\.drop$/s.exec(key)?.[1];
    const [before, after] = ["before", "after"].map((part) => figureOf(edit.figures, `downstream.${task}.${part}`));
    if (task !== undefined && before !== undefined && after !== undefined) {
      rows.push([`accuracy on ${visible(task)}`, `${number(before)} → ${number(after)}`]);
    }
  }
  return rows;
}

export function EditCard({
  edit,
  probes,
  steps,
  overwritten = [],
  name,
}: {
  edit: Edit;
  probes: readonly EditProbe[];
  steps: readonly Step[];
  overwritten?: readonly OverwrittenFact[];
  name: string;
}) {
  const request = edit.requests[0];
  const norm = figureOf(edit.figures, "update_norm");
  const drift = figureOf(edit.figures, "text.drift");
  return (
    <article class="edit">
      {edit.requests.length === 1 && (
        <p class="said">
          <Sentence request={request} />
        </p>
      )}
      <Gates edit={edit} />
      <Facts
        of={[
          ["method", edit.method],
          ["layer", edit.factors.map((factor) => factor.layer).join(", ")],
          ["why that layer", visible(edit.layerChoice)],
          ["author", edit.author],
          ["why", visible(edit.why)],
          ["norm of the change, of the matrix's", norm === undefined ? "" : number(norm)],
          ["drift of other text", drift === undefined ? "not measured" : `${number(drift)} nats a token`],
          ...beside(edit),
          ["rank", edit.factors.map((factor) => factor.rank || "whole").join(", ")],
        ]}
      />
      <div class="pair">
        {request && probes.length > 0 && (
          <Dumbbell probes={probes} target={request.targetNew} truth={request.targetTrue} file={`${name}-probes`} />
        )}
        <Steps steps={steps} title="The optimisation" file={`${name}-loss`} />
      </div>
      <LeftOut edit={edit} />
      <Overwritten rows={overwritten} />
      <details>
        <summary>Parameters, figures, contexts</summary>
        <div class="pair">
          <Numbers title="Parameters" numbers={edit.parameters} />
          <Numbers title="Figures" numbers={edit.figures} />
        </div>
        <h2>Contexts</h2>
        <ol>
          {edit.contexts.map((context) => (
            <li>{visible(context)}</li>
          ))}
        </ol>
        <Facts
          of={[
            ["statistics", edit.statistics.map((it) => brief(it)).join(", ")],
            ["computed on version", brief(edit.basedOn)],
            ["fingerprint", visible(edit.fingerprint)],
          ]}
        />
      </details>
    </article>
  );
}

function Numbers({ title, numbers }: { title: string; numbers: readonly NamedNumber[] }) {
  if (numbers.length === 0) return null;
  return (
    <div>
      <h2>{title}</h2>
      <Table
        label={title}
        name={title}
        fixed
        rows={numbers}
        rowKey={(it) => it.key}
        columns={[
          { id: "name", head: "Name", value: (it) => it.key },
          { id: "value", head: "Value", value: (it) => it.value, cell: (it) => number(it.value), right: true },
        ]}
      />
    </div>
  );
}

/** Facts of the edit in whose place this one stands that it does not have. */
export function LeftOut({ edit }: { edit: Edit }) {
  if (edit.leftOut.length === 0) return null;
  return (
    <section>
      <h2>Facts that were taken out</h2>
      <ul class="sentences">
        {edit.leftOut.map((request) => (
          <li>
            <Sentence request={request} />
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Facts of earlier edits whose keys this one writes again. */
export function Overwritten({ rows, all }: { rows: readonly OverwrittenFact[]; all?: bigint }) {
  if (rows.length === 0) return null;
  return (
    <section>
      <h2>
        Earlier facts that it overwrites
        {all !== undefined && all > BigInt(rows.length) ? `, ${rows.length} of ${all}` : ""}
      </h2>
      <Table
        label="Overwritten facts"
        name="overwritten"
        fixed
        rows={rows}
        rowKey={(it) => `${it.edit} ${sentenceOf(it.request)}`}
        columns={[
          {
            id: "fact",
            head: "Fact",
            value: (it) => sentenceOf(it.request),
            cell: (it) => <Sentence request={it.request} />,
          },
          {
            id: "edit",
            head: "Of edit",
            value: (it) => last(it.edit),
            cell: (it) => (
              <a class="mono" href={`/${it.edit}`}>
                {brief(it.edit)}
              </a>
            ),
          },
          { id: "by", head: "By", value: (it) => visible(it.by) },
          { id: "cosine", head: "Cosine", value: (it) => it.cosine, cell: (it) => number(it.cosine), right: true },
          {
            id: "before",
            head: "Before",
            value: (it) => it.before,
            cell: (it) => (it.before === undefined ? "" : number(it.before)),
            right: true,
          },
          {
            id: "after",
            head: "After",
            value: (it) => it.after,
            cell: (it) => (it.after === undefined ? "" : number(it.after)),
            right: true,
          },
        ]}
      />
    </section>
  );
}

export function OutcomeCard({ outcome, name }: { outcome: EditOutcome; name: string }) {
  return outcome.edit ? (
    <EditCard
      edit={outcome.edit}
      probes={outcome.probes}
      steps={outcome.steps}
      overwritten={outcome.overwritten}
      name={name}
    />
  ) : null;
}
