// Completions as a list, and the statistics that a job summed up.

import type { ComponentChildren } from "preact";

import type { Job } from "../../contract/palimpsest/v1/job_pb";
import { statistics } from "../client";
import { brief, count, last, visible } from "../format";
import { results } from "../job";
import { useDoing, useLoad } from "../live";
import { Act, Waiting, Wrong } from "../parts/common";
import { ResultsTitle } from "../parts/ResultsTitle";
import { Table } from "../parts/Table";
import { JobState } from "../../contract/palimpsest/v1/job_pb";
import { StatisticsTable } from "./Model";

const MOST = 10_000;

export function Completions({ job, note }: { job: Job; note: ComponentChildren }) {
  const id = last(job.name);
  const read = useLoad(`completions ${id} ${job.counts?.unitsDone}`, (signal) => results(id, {}, signal, MOST), true);
  const rows = (read.data?.items ?? []).map((item) => ({
    unit: Number(item.unit),
    prompt: item.outcome.case === "completion" ? item.outcome.value.prompt : "",
    text: item.outcome.case === "completion" ? item.outcome.value.text : "",
    tokens: item.outcome.case === "completion" ? item.outcome.value.tokenIds.length : 0,
    ended: item.outcome.case === "completion" && item.outcome.value.ended,
    failure: item.outcome.case === "failure" ? item.outcome.value.message : "",
  }));
  return (
    <>
      <ResultsTitle job={job} title="Completions" note={note} copied={{ json: () => rows }} />
      <Waiting of={read} what="completions" />
      {read.data && (
        <Table
          label="Completions"
          name="completions"
          rows={rows}
          rowKey={(row) => String(row.unit)}
          file={`completions-${brief(id)}`}
          columns={[
            { id: "unit", head: "#", value: (row) => row.unit, right: true, wide: 0.3 },
            { id: "prompt", head: "Prompt", value: (row) => row.prompt, cell: (row) => visible(row.prompt), wide: 2 },
            {
              id: "text",
              head: "What was added",
              value: (row) => row.text,
              cell: (row) => (row.failure ? <span class="otherwise">{visible(row.failure)}</span> : visible(row.text)),
              wide: 3,
            },
            { id: "tokens", head: "Tokens", value: (row) => row.tokens, right: true, wide: 0.5 },
            { id: "ended", head: "Ended itself", value: (row) => row.ended, wide: 0.6 },
          ]}
          foot={read.data.more && <span class="quiet">the first {count(MOST)}</span>}
        />
      )}
    </>
  );
}

export function StatisticsResults({ job, note }: { job: Job; note: ComponentChildren }) {
  const id = last(job.name);
  const read = useLoad(`sums ${id} ${job.counts?.unitsDone}`, (signal) => results(id, {}, signal, MOST), true);
  const made = useLoad(
    `statistics ${job.model}`,
    async (signal) => (await statistics.listStatistics({ parent: job.model, pageSize: 1000 }, { signal })).statistics,
  );
  const doing = useDoing();
  const shards = (read.data?.items ?? []).flatMap((item) =>
    item.outcome.case === "statsShard" ? [{ unit: item.unit, shard: item.outcome.value }] : [],
  );
  // An artefact does not say of which job it is: what it says of itself is held against what was collected.
  const spec = job.spec.case === "stats" ? job.spec.value : undefined;
  const tokens = shards.reduce((sum, { shard }) => sum + shard.tokens, 0n);
  const ours =
    made.data?.filter(
      (one) =>
        one.version === last(job.version) &&
        one.source === spec?.source &&
        spec.layers.includes(one.layer) &&
        one.tokens === tokens,
    ) ?? [];
  const make = () =>
    doing.run(async () => {
      await statistics.createStatistics({ source: { case: "job", value: job.name } });
      made.again();
    });
  return (
    <>
      <ResultsTitle job={job} title="Key statistics" note={note} copied={{ json: () => read.data?.items }} />
      <Waiting of={read} what="sums" />
      {job.state === JobState.SUCCEEDED && (
        <p class="buttons">
          <Act
            method="StatisticsService/CreateStatistics"
            kind="main"
            disabled={doing.busy}
            onClick={() => void make()}
          >
            Make statistics of it
          </Act>
        </p>
      )}
      <Wrong of={doing.problem} />
      {ours.length > 0 && (
        <section>
          <h2>What edits can use</h2>
          <StatisticsTable rows={ours} again={made.again} />
        </section>
      )}
      {shards.length > 0 && (
        <Table
          label="Pieces"
          name="pieces"
          rows={shards}
          rowKey={(row) => String(row.unit)}
          columns={[
            { id: "piece", head: "Piece", value: (row) => Number(row.unit), right: true },
            {
              id: "tokens",
              head: "Tokens",
              value: (row) => row.shard.tokens,
              cell: (row) => count(row.shard.tokens),
              right: true,
            },
            { id: "layers", head: "Layers", value: (row) => row.shard.sums.map((sum) => sum.layer).join(", ") },
          ]}
        />
      )}
    </>
  );
}
