// Jobs as a table: what, on which version, how far.

import type { Job } from "../../contract/palimpsest/v1/job_pb";
import {
  ago,
  between,
  brief,
  count,
  date,
  ended,
  jobId,
  last,
  moment,
  part,
  stateWord,
  visible,
  work,
} from "../format";
import { Bar } from "./common";
import { CancelJob, RequeueJob } from "./jobActs";
import { Table, type Column } from "./Table";

export function State({ job }: { job: Job }) {
  const word = stateWord(job.state);
  return <span class={`state ${word}`}>{word}</span>;
}

export function Progress({ job }: { job: Job }) {
  const counts = job.counts;
  const units = Number(counts?.units ?? 0n);
  const done = Number(counts?.unitsDone ?? 0n);
  const failed = Number(counts?.unitsFailed ?? 0n);
  const cached = Number(counts?.unitsCached ?? 0n);
  const said = [
    `${count(done)} of ${count(units)}`,
    failed ? `${count(failed)} failed` : "",
    cached ? `${count(cached)} from the store` : "",
  ]
    .filter(Boolean)
    .join(", ");
  return (
    <span class="progress">
      <Bar done={done} failed={failed} of={units} label={said} />
      <span>{said}</span>
    </span>
  );
}

export function JobTable({
  jobs,
  name,
  fixed,
  chosen,
  choose,
  done,
}: {
  jobs: readonly Job[];
  name: string;
  fixed?: boolean;
  /** Jobs that are chosen to be compared, and what happens when one is. */
  chosen?: readonly string[];
  choose?: (id: string) => void;
  /** With it jobs can be cancelled and requeued from here; called when one was. */
  done?: () => void;
}) {
  const columns: Column<Job>[] = [
    ...(choose
      ? [
          {
            id: "pick",
            head: "Pick",
            value: () => undefined,
            cell: (job: Job) =>
              job.spec.case === "trace" || job.spec.case === "eval" ? (
                <input
                  type="checkbox"
                  aria-label={`Compare job ${jobId(job.name)}`}
                  checked={chosen?.includes(last(job.name))}
                  onChange={() => choose(last(job.name))}
                />
              ) : null,
          },
        ]
      : []),
    {
      id: "job",
      head: "Job",
      value: (job) => last(job.name),
      cell: (job) => (
        <>
          <a href={`/jobs/${last(job.name)}`} class="mono">
            {jobId(job.name)}
          </a>
          {job.displayName && <span class="second">{visible(job.displayName)}</span>}
        </>
      ),
    },
    { id: "what", head: "What", value: (job) => work(job).word },
    { id: "state", head: "State", value: (job) => stateWord(job.state), cell: (job) => <State job={job} /> },
    {
      id: "model",
      head: "Model @ version",
      value: (job) => `${last(job.model)}@${brief(job.version, 8)}`,
      cell: (job) => (
        <>
          <a href={`/models/${last(job.model)}`}>{last(job.model)}</a> @{" "}
          <a
            class="mono"
            href={`/models/${part(job.version, "models") || last(job.model)}/versions/${last(job.version)}`}
          >
            {brief(job.version, 8)}
          </a>
        </>
      ),
    },
    {
      id: "done",
      head: "Done",
      value: (job) => Number(job.counts?.unitsDone ?? 0n),
      cell: (job) => <Progress job={job} />,
    },
    { id: "owner", head: "Owner", value: (job) => job.owner },
    {
      id: "created",
      head: "Created",
      value: (job) => date(job.createTime)?.toISOString() ?? "",
      cell: (job) => <time title={moment(job.createTime)}>{ago(job.createTime)}</time>,
    },
    {
      id: "took",
      head: "Took",
      right: true,
      value: (job) => (date(job.endTime)?.getTime() ?? Date.now()) - (date(job.startTime)?.getTime() ?? Date.now()),
      cell: (job) => (job.startTime ? `${between(job.startTime, job.endTime)}${ended(job.state) ? "" : "…"}` : ""),
    },
    ...(done
      ? [
          {
            id: "acts",
            head: "",
            value: () => undefined,
            cell: (job: Job) => (
              <>
                <CancelJob job={job} done={done} />
                <RequeueJob job={job} done={done} />
              </>
            ),
          },
        ]
      : []),
  ];
  return (
    <Table
      columns={columns}
      rows={jobs}
      label="Jobs"
      name={name}
      rowKey={(job) => job.name}
      fixed={fixed}
      file="jobs"
    />
  );
}
