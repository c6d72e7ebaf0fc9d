// A job: how far it is, why it waits, what failed, what was asked.

import { useState } from "preact/hooks";

import {
  JobState,
  ResultView,
  TaskState,
  type Failure,
  type JobEvent,
  type JobProgress,
  type Job,
  type Task,
} from "../../contract/palimpsest/v1/job_pb";
import { jobs } from "../client";
import { call, command } from "../copied";
import {
  between,
  brief,
  classWord,
  count,
  date,
  ended,
  jobId,
  last,
  lasting,
  big,
  moment,
  part,
  some,
  stateWord,
  taskWord,
  visible,
  work,
} from "../format";
import { NOTHING, results, useJob } from "../job";
import { useClock, useDoing, useLoad, usePoll } from "../live";
import { Bar, Choice, Facts, Heading, Quiet, Waiting, Wrong } from "../parts/common";
import { CopyAs } from "../parts/CopyAs";
import { Fingerprints } from "../parts/Fingerprints";
import { CancelJob, RequeueJob, RunAgain } from "../parts/jobActs";
import { settings } from "../parts/settings";
import { Table } from "../parts/Table";
import { Steps } from "../parts/Steps";
import { asked, setQuery, to } from "../route";

export function JobPage({ id }: { id: string }) {
  const all = asked("events") === "all";
  const watched = useJob(id, all);
  const { job, progress } = watched;
  return (
    <>
      <div class="title">
        <Heading title={`Job ${id.slice(-8)}`}>
          Job <span class="mono">{id.slice(-8)}</span>
          {job?.displayName && <span class="second">{visible(job.displayName)}</span>}
        </Heading>
        {job && <CopyAs command={command("job show", [id])} python={call("p.job", [id])} json={() => job} />}
      </div>
      <Wrong of={watched.problem} />
      {!job && !watched.problem && <p class="quiet">Reading the job…</p>}
      {job && (
        <>
          <Live job={job} progress={progress} />
          <p class="buttons">
            <a class="button main" href={`/jobs/${id}/results`}>
              Results
            </a>
            {(job.spec.case === "trace" || job.spec.case === "eval") && (
              <a class="button" href={to("/compare", { left: id })}>
                Compare
              </a>
            )}
            <CancelJob job={job} done={watched.again} />
            <RequeueJob job={job} done={watched.again} />
            <RunAgain job={job} />
          </p>
          <Quiet method="JobService/CancelJob" what="cancel jobs, or run them" />
          {[...watched.steps].map(([unit, steps]) => (
            <Steps key={unit} steps={steps} title={`Edit ${Number(unit) + 1}, being computed`} />
          ))}
          <Why job={job} />
          <Stages job={job} progress={progress} />
          <section>
            <h2>Settings</h2>
            <Facts
              of={[
                ["what", work(job).word],
                ["model", <a href={`/models/${last(job.model)}`}>{last(job.model)}</a>],
                [
                  "version",
                  <a class="mono" href={`/models/${part(job.version, "models")}/versions/${last(job.version)}`}>
                    {brief(job.version)}
                  </a>,
                ],
                ["owner", job.owner],
                ["priority", job.priority || ""],
                ["computed afresh", job.noCache ? "yes" : ""],
                ...settings(job),
              ]}
            />
          </section>
          <Failures job={job} />
          <ComputedBy job={job} />
          <Tasks job={job} />
          <Events events={watched.events} all={all} />
        </>
      )}
    </>
  );
}

function Live({ job, progress }: { job: Job; progress: JobProgress | undefined }) {
  useClock();
  const counts = job.counts;
  const [units, done, failed, cached] = [
    counts?.units,
    counts?.unitsDone,
    counts?.unitsFailed,
    counts?.unitsCached,
  ].map((n) => Number(n ?? 0n)) as [number, number, number, number];
  const started = date(job.startTime)?.getTime();
  const fresh = done - cached;
  const seconds = started ? (Date.now() - started) / 1000 : 0;
  const left = !ended(job.state) && fresh > 0 && seconds > 0 ? ((units - done) * seconds) / fresh : undefined;
  const said = `${stateWord(job.state)}: ${count(done)} of ${count(units)} done`;
  return (
    <section class="live" aria-label="Progress">
      <p class="large">
        <span class={`state ${stateWord(job.state)}`}>{stateWord(job.state)}</span> · {count(done)} of{" "}
        {some(units, "unit")}
      </p>
      <Bar done={done} failed={failed} of={units} label={said} />
      <p role="status" class="sr">
        {/* Said at most twenty times: a count with every unit would never fall silent. */}
        {stateWord(job.state)}, {units > 0 ? Math.floor((20 * done) / units) * 5 : 0} %
      </p>
      <Facts
        of={[
          ["failed", failed ? count(failed) : ""],
          ["from the store", cached ? count(cached) : ""],
          ["tasks leased", counts?.tasksLeased ? count(counts.tasksLeased) : ""],
          ["tasks waiting", counts?.tasksPending ? count(counts.tasksPending) : ""],
          ["in quarantine", counts?.tasksQuarantined ? count(counts.tasksQuarantined) : ""],
          ["workers", progress?.workers ?? ""],
          [
            "speed",
            progress && progress.stepsPerSecond > 0
              ? `${big(progress.stepsPerSecond)} ${job.spec.case === "generate" ? "tokens" : "cells"}/s`
              : "",
          ],
          ["time left, about", left === undefined ? "" : lasting(left)],
          ["created", moment(job.createTime)],
          ["took", job.startTime ? between(job.startTime, job.endTime) : ""],
        ]}
      />
    </section>
  );
}

/** In words, and first, where a job waits. */
function Why({ job }: { job: Job }) {
  const open =
    job.state === JobState.HELD || ((job.counts?.tasksLeased ?? 0n) === 0n && (job.counts?.tasksPending ?? 0n) > 0n);
  if (ended(job.state)) return null;
  return (
    <details open={open}>
      <summary>Why is it waiting?</summary>
      <Reasons name={job.name} />
    </details>
  );
}

function Reasons({ name }: { name: string }) {
  const read = usePoll(`explain ${name}`, 5000, (signal) => jobs.explainJob({ name }, { signal }));
  return (
    <>
      <Waiting of={read} what="why" />
      {read.data?.reasons.length === 0 && <p>Nothing of it waits.</p>}
      <ul>
        {read.data?.reasons.map((reason) => (
          <li>{reason}</li>
        ))}
      </ul>
    </>
  );
}

function Stages({ job, progress }: { job: Job; progress: JobProgress | undefined }) {
  if (job.stages.length === 0) return null;
  const stages = job.stages.map((stage) => (progress?.stage?.stage === stage.stage ? progress.stage : stage));
  if (stages.length === 1) return null;
  return (
    <section>
      <h2>Stages</h2>
      <Table
        label="Stages"
        name="stages"
        fixed
        rows={stages}
        rowKey={(stage) => String(stage.stage)}
        columns={[
          { id: "stage", head: "#", value: (stage) => stage.stage + 1, right: true },
          { id: "title", head: "Stage", value: (stage) => visible(stage.title) },
          {
            id: "done",
            head: "Units done",
            value: (stage) => stage.unitsDone,
            cell: (stage) => (
              <span class="progress">
                <Bar
                  done={Number(stage.unitsDone)}
                  failed={Number(stage.unitsFailed)}
                  of={Number(stage.units)}
                  label={`${stage.unitsDone} of ${stage.units}`}
                />
                <span>
                  {count(stage.unitsDone)} of {count(stage.units)}
                </span>
              </span>
            ),
          },
          { id: "failed", head: "Failed", value: (stage) => (stage.unitsFailed ? stage.unitsFailed : ""), right: true },
          {
            id: "cached",
            head: "From the store",
            value: (stage) => (stage.unitsCached ? stage.unitsCached : ""),
            right: true,
          },
        ]}
      />
      {(job.counts?.stages ?? 0n) > BigInt(stages.length) && (
        <p class="quiet">
          {stages.length} of {count(job.counts?.stages ?? 0n)} stages
        </p>
      )}
    </section>
  );
}

/** Units that failed, by what was said. */
function Failures({ job }: { job: Job }) {
  const failed = job.counts?.unitsFailed ?? 0n;
  const id = last(job.name);
  const read = useLoad(
    `failures ${id} ${failed}`,
    async (signal) => (failed > 0n ? results(id, { failuresOnly: true }, signal, 1000) : NOTHING),
    true,
  );
  if (failed === 0n) return null;
  const groups = new Map<string, { failure: Failure; units: bigint[] }>();
  for (const result of read.data?.items ?? []) {
    if (result.outcome.case !== "failure") continue;
    const failure = result.outcome.value;
    const key = `${failure.failureClass} ${failure.message}`;
    const group = groups.get(key) ?? { failure, units: [] };
    group.units.push(result.unit);
    groups.set(key, group);
  }
  return (
    <section>
      <h2>Failures</h2>
      <Waiting of={read} what="failures" />
      <Table
        label="Failures"
        name="failures"
        fixed
        rows={[...groups.values()].sort((a, b) => b.units.length - a.units.length)}
        rowKey={(group) => group.failure.message}
        columns={[
          { id: "units", head: "Units", value: (group) => group.units.length, right: true },
          { id: "class", head: "Class", value: (group) => classWord(group.failure.failureClass) },
          { id: "message", head: "What was said", value: (group) => visible(group.failure.message) },
          {
            id: "which",
            head: "Which",
            value: (group) => group.units.slice(0, 10).join(", ") + (group.units.length > 10 ? "…" : ""),
          },
        ]}
        file="failures"
      />
      {read.data?.more && <p class="quiet">The first 1,000 of {count(failed)}.</p>}
    </section>
  );
}

/** Results of which a job's page says what computed them. */
const LOOKED_AT = 200;

/** The devices and settings that decide the last bits of its numbers. */
function ComputedBy({ job }: { job: Job }) {
  const id = last(job.name);
  const done = job.counts?.unitsDone ?? 0n;
  const read = useLoad(
    // Of a job that runs, when the first results are there, and at its end.
    `computed ${id} ${done > 0n} ${ended(job.state)}`,
    async (signal) => (done > 0n ? results(id, { view: ResultView.PEAKS }, signal, LOOKED_AT) : NOTHING),
    true,
  );
  const found = read.data?.fingerprints ?? [];
  if (found.length === 0) return null;
  return (
    <section>
      <h2>Computed by</h2>
      <Fingerprints of={found} />
      <p class="quiet">
        {read.data?.more ? `Of the first ${count(LOOKED_AT)} results. ` : ""}Bytes are promised equal where this is the
        same.
      </p>
    </section>
  );
}

const TASK_STATES = [
  TaskState.PENDING,
  TaskState.LEASED,
  TaskState.DONE,
  TaskState.FAILED,
  TaskState.QUARANTINED,
  TaskState.BLOCKED,
  TaskState.CANCELLED,
];

function Tasks({ job }: { job: Job }) {
  const wanted = TASK_STATES.find((state) => taskWord(state) === asked("tasks"));
  const total = job.counts?.tasks ?? 0n;
  const key = `tasks ${job.name} ${wanted} ${job.counts?.tasksDone} ${job.counts?.tasksLeased} ${job.counts?.tasksFailed}`;
  const read = useLoad(
    key,
    async (signal) =>
      jobs.listTasks({ parent: job.name, pageSize: 100, states: wanted === undefined ? [] : [wanted] }, { signal }),
    true,
  );
  const [more, setMore] = useState<{ key: string; tasks: Task[]; next: string }>({ key: "", tasks: [], next: "" });
  const doing = useDoing();
  const page = `${job.name} ${wanted}`;
  const further = more.key === page ? more.tasks : [];
  const next = more.key === page ? more.next : (read.data?.nextPageToken ?? "");
  const load = () =>
    doing.run(async () => {
      const answer = await jobs.listTasks({
        parent: job.name,
        pageSize: 1000,
        pageToken: next,
        states: wanted === undefined ? [] : [wanted],
      });
      setMore({ key: page, tasks: [...further, ...answer.tasks], next: answer.nextPageToken });
    });
  const shown = [...(read.data?.tasks ?? []), ...further];
  return (
    <section>
      <h2>Tasks</h2>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Choice
          label="State"
          value={asked("tasks")}
          options={[["", "any"], ...TASK_STATES.map((state) => [taskWord(state), taskWord(state)] as const)]}
          onChange={(tasks) => setQuery({ tasks })}
        />
      </form>
      <Waiting of={read} what="tasks" />
      {read.data && (
        <Table
          label="Tasks"
          name="tasks"
          rows={shown}
          rowKey={(task) => task.name}
          columns={[
            { id: "task", head: "Task", value: (task) => Number(last(task.name)), right: true },
            {
              id: "state",
              head: "State",
              value: (task) => taskWord(task.state),
              cell: (task) => <span class={`state ${taskWord(task.state)}`}>{taskWord(task.state)}</span>,
            },
            {
              id: "units",
              head: "Units",
              value: (task) => Number(task.firstUnit),
              cell: (task) => `${task.firstUnit} to ${task.firstUnit + task.unitCount - 1n}`,
              right: true,
            },
            { id: "done", head: "Done", value: (task) => Number(task.unitsDone), right: true },
            {
              id: "worker",
              head: "Worker",
              value: (task) => last(task.worker),
              cell: (task) => <TaskWorkers task={task} />,
            },
            {
              id: "attempts",
              head: "Attempts ended",
              value: (task) => task.failures.map((it) => `${it.count} ${classWord(it.failureClass)}`).join(", "),
            },
            { id: "failure", head: "Last failure", value: (task) => visible(task.lastFailure) },
          ]}
          file={`tasks-${jobId(job.name)}`}
          foot={
            <span class="quiet">
              {count(shown.length)} of {wanted === undefined ? count(total) : next ? "more" : count(shown.length)}
            </span>
          }
        />
      )}
      {next && (
        <button type="button" disabled={doing.busy} onClick={() => void load()}>
          More of them
        </button>
      )}
      <Wrong of={doing.problem} />
    </section>
  );
}

function TaskWorkers({ task }: { task: Task }) {
  const names = [task.worker, task.secondWorker].filter(Boolean);
  return (
    <>
      {names.map((name, i) => (
        <>
          {i > 0 && ", "}
          <a href={to("/workers", { worker: last(name) })}>{last(name)}</a>
        </>
      ))}
    </>
  );
}

function Events({ events, all }: { events: JobEvent[]; all: boolean }) {
  return (
    <details open={all}>
      <summary>Events ({count(events.length)} seen)</summary>
      {!all && (
        <p>
          From when this page was opened.{" "}
          <button type="button" onClick={() => setQuery({ events: "all" })}>
            All of them
          </button>
        </p>
      )}
      <div class="wide scroll" tabIndex={0} role="region" aria-label="Events">
        <ol class="events">
          {[...events]
            .reverse()
            .slice(0, 300)
            .map((event) => (
              <li value={Number(event.sequence)}>
                <time>{moment(event.time)}</time> {eventLine(event)}
              </li>
            ))}
        </ol>
      </div>
    </details>
  );
}

function eventLine({ event }: JobEvent): string {
  switch (event.case) {
    case "state":
      return `the job is ${stateWord(event.value)}`;
    case "unitCommitted":
      return `unit ${event.value} is committed`;
    case "task":
      return `task ${last(event.value.name)} is ${taskWord(event.value.state)}${event.value.worker ? ` at ${last(event.value.worker)}` : ""}`;
    case "unitsCached":
      return `${some(event.value, "unit")} answered from the store`;
    case "stageBegun":
      return `stage ${event.value + 1} begins`;
    default:
      return "";
  }
}
