// A model: its shape, its files, its refs and the key statistics that edits use.

import type { Statistics } from "../../contract/palimpsest/v1/stats_pb";
import { RefKind } from "../../contract/palimpsest/v1/version_pb";
import { models, statistics, versions } from "../client";
import { call, command } from "../copied";
import { ago, brief, bytes, count, dtypeWord, last, moment, number, visible } from "../format";
import { useLoad } from "../live";
import { may } from "../may";
import { Act, Facts, Heading, Waiting } from "../parts/common";
import { ask } from "../parts/Confirm";
import { CopyAs } from "../parts/CopyAs";
import { Table } from "../parts/Table";
import { to } from "../route";

export function Model({ model }: { model: string }) {
  const name = `models/${model}`;
  const read = useLoad(name, async (signal) => (await models.getModel({ name }, { signal })).model);
  const refs = useLoad(
    `refs ${name}`,
    async (signal) => (await versions.listRefs({ parent: name, pageSize: 1000 }, { signal })).refs,
  );
  const sums = useLoad(
    `statistics ${name}`,
    async (signal) => (await statistics.listStatistics({ parent: name, pageSize: 1000 }, { signal })).statistics,
  );
  const it = read.data;
  return (
    <>
      <div class="title">
        <Heading title={model}>{model}</Heading>
        <CopyAs command={command("model show", [model])} python={call("p.model", [model])} json={() => it} />
      </div>
      <Waiting of={read} what="the model" />
      {it && (
        <>
          <p class="buttons">
            <a class="button main" href={`/${name}/history`}>
              History
            </a>
            <a class="button" href={to("/jobs", { model })}>
              Jobs on it
            </a>
            {may("JobService/CreateJob") && (
              <a class="button" href={to("/playground", { model })}>
                Playground
              </a>
            )}
          </p>
          <Facts
            of={[
              ["family", it.family],
              ["parameters", count(it.shape?.parameters ?? 0n)],
              ["layers", it.shape?.layers],
              ["width", it.shape?.width],
              ["heads", it.shape?.heads],
              ["vocabulary", count(it.shape?.vocabulary ?? 0)],
              ["context", count(it.shape?.context ?? 0)],
              ["imported", moment(it.createTime)],
              ["digest", <span class="mono break">{it.digest}</span>],
            ]}
          />
        </>
      )}
      <section>
        <h2>Refs</h2>
        <Waiting of={refs} what="refs" />
        {refs.data && (
          <Table
            label="Refs"
            name="refs"
            rows={refs.data}
            rowKey={(ref) => ref.name}
            columns={[
              {
                id: "ref",
                head: "Ref",
                value: (ref) => last(ref.name),
                cell: (ref) => <span class={ref.kind === RefKind.TAG ? "ref tag" : "ref"}>{last(ref.name)}</span>,
              },
              { id: "kind", head: "Is a", value: (ref) => (ref.kind === RefKind.TAG ? "tag" : "branch") },
              {
                id: "version",
                head: "Version",
                value: (ref) => last(ref.version),
                cell: (ref) => (
                  <a class="mono" href={`/${ref.version}`}>
                    {brief(ref.version)}
                  </a>
                ),
              },
              {
                id: "moved",
                head: "Moved",
                value: (ref) => moment(ref.updateTime),
                cell: (ref) => <time title={moment(ref.updateTime)}>{ago(ref.updateTime)}</time>,
              },
              { id: "by", head: "By", value: (ref) => ref.author },
              { id: "why", head: "Why", value: (ref) => visible(ref.why) },
            ]}
          />
        )}
      </section>
      <section>
        <h2>Key statistics</h2>
        <p class="quiet">
          What the inputs of the edited matrices look like over ordinary text. Edits by ROME and MEMIT need those of
          their layers.
        </p>
        <Waiting of={sums} what="statistics" />
        {sums.data &&
          (sums.data.length ? (
            <StatisticsTable rows={sums.data} again={sums.again} />
          ) : (
            <pre tabIndex={0}>{command("stats collect", [], { model, "self-sample": 25_000, layers: 5 })}</pre>
          ))}
      </section>
      {it && (
        <section>
          <h2>Files</h2>
          <Table
            label="Files"
            name="files"
            rows={it.files}
            rowKey={(file) => file.fileName}
            columns={[
              { id: "file", head: "File", value: (file) => visible(file.fileName) },
              { id: "size", head: "Size", value: (file) => file.size, cell: (file) => bytes(file.size), right: true },
              {
                id: "digest",
                head: "BLAKE3",
                value: (file) => file.digest,
                cell: (file) => <span class="mono">{brief(file.digest, 16)}</span>,
              },
              { id: "from", head: "Imported from", value: (file) => visible(file.sourcePath) },
            ]}
          />
          <details>
            <summary>{count(it.tensors.length)} tensors</summary>
            <Table
              label="Tensors"
              name="tensors"
              rows={it.tensors}
              rowKey={(tensor) => tensor.tensorName}
              file={`tensors-${model}`}
              columns={[
                { id: "tensor", head: "Tensor", value: (tensor) => tensor.tensorName, wide: 3 },
                { id: "dtype", head: "Type", value: (tensor) => tensor.dtype },
                { id: "shape", head: "Shape", value: (tensor) => tensor.dimensions.join(" × ") },
                {
                  id: "digest",
                  head: "BLAKE3",
                  value: (tensor) => tensor.digest,
                  cell: (tensor) => <span class="mono">{brief(tensor.digest)}</span>,
                },
              ]}
            />
          </details>
        </section>
      )}
    </>
  );
}

export function StatisticsTable({ rows, again }: { rows: readonly Statistics[]; again: () => void }) {
  const withdraw = (one: Statistics) =>
    ask({
      title: `Withdraw the statistics of layer ${one.layer}?`,
      body: (
        <p>No edit that is asked for from now on is computed with them. Edits that were, keep them and their record.</p>
      ),
      action: "Withdraw",
      method: "StatisticsService/DeleteStatistics",
      why: true,
      danger: true,
      run: async ({ why }) => {
        await statistics.deleteStatistics({ name: one.name, why });
        again();
      },
    });
  return (
    <Table
      label="Key statistics"
      name="statistics"
      rows={rows}
      rowKey={(one) => `${one.name} ${one.layer}`}
      file="statistics"
      columns={[
        { id: "layer", head: "Layer", value: (one) => one.layer, right: true },
        {
          id: "tokens",
          head: "Tokens",
          value: (one) => Number(one.tokens),
          cell: (one) => count(one.tokens),
          right: true,
        },
        { id: "channels", head: "Channels", value: (one) => one.channels, right: true },
        { id: "rank", head: "Rank", value: (one) => one.spectrum?.rank, right: true },
        {
          id: "effective",
          head: "Effective",
          value: (one) => one.spectrum?.effectiveRank,
          cell: (one) => (one.spectrum ? number(one.spectrum.effectiveRank) : ""),
          right: true,
        },
        { id: "source", head: "Source", value: (one) => visible(one.source) },
        {
          id: "version",
          head: "Of version",
          value: (one) => one.version,
          cell: (one) => <span class="mono">{brief(one.version, 8)}</span>,
        },
        { id: "dtype", head: "Format", value: (one) => dtypeWord(one.dtype) },
        { id: "by", head: "By", value: (one) => (one.submitted ? `${one.author} (may not edit)` : one.author) },
        {
          id: "made",
          head: "Made",
          value: (one) => moment(one.createTime),
          cell: (one) => <time title={moment(one.createTime)}>{ago(one.createTime)}</time>,
        },
        {
          id: "act",
          head: "",
          value: () => undefined,
          cell: (one) => (
            <Act
              method="StatisticsService/DeleteStatistics"
              label={`Withdraw statistics of layer ${one.layer}`}
              onClick={() => withdraw(one)}
            >
              Withdraw
            </Act>
          ),
        },
      ]}
    />
  );
}
