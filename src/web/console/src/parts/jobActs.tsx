// What can be done with a job.

import type { MessageInitShape } from "@bufbuild/protobuf";

import { JobState, type Job, type JobSchema } from "../../contract/palimpsest/v1/job_pb";
import { jobs } from "../client";
import { ended, jobId, last, some } from "../format";
import { requestId } from "../job";
import { go } from "../route";
import { Act } from "./common";
import { ask } from "./Confirm";

export function CancelJob({ job, done }: { job: Job; done: () => void }) {
  if (ended(job.state)) return null;
  const cancel = () =>
    ask({
      title: `Cancel job ${jobId(job.name)}?`,
      body: <p>What was committed stays readable. What is left of it is not computed.</p>,
      action: "Cancel the job",
      method: "JobService/CancelJob",
      danger: true,
      run: async () => {
        await jobs.cancelJob({ name: job.name });
        done();
      },
    });
  return (
    <Act method="JobService/CancelJob" onClick={cancel} label={`Cancel job ${jobId(job.name)}`}>
      Cancel
    </Act>
  );
}

export function RequeueJob({ job, done }: { job: Job; done: () => void }) {
  const quarantined = job.counts?.tasksQuarantined ?? 0n;
  if (quarantined === 0n && job.state !== JobState.HELD) return null;
  const requeue = () =>
    ask({
      title: `Requeue what is in quarantine of job ${jobId(job.name)}?`,
      body: <p>{some(quarantined, "task")} lost several workers and would be given to others again.</p>,
      action: "Requeue",
      method: "JobService/RequeueQuarantined",
      run: async () => {
        await jobs.requeueQuarantined({ name: job.name });
        done();
      },
    });
  return (
    <Act method="JobService/RequeueQuarantined" onClick={requeue} label={`Requeue job ${jobId(job.name)}`}>
      Requeue
    </Act>
  );
}

/** The same again: of the same facts on the same version, under the caller's own name. */
export function RunAgain({ job }: { job: Job }) {
  const run = () =>
    ask({
      title: "Run it again?",
      body: (
        <p>
          A job with the same settings, on the same version. Results that the store has are taken from there; to compute
          all of it anew, run <code>palimpsest</code> with <code>--no-cache</code>.
        </p>
      ),
      action: "Run it",
      method: "JobService/CreateJob",
      run: async () => {
        const answer = await jobs.createJob({ requestId: requestId(), job: again(job) });
        go(`/jobs/${last(answer.job?.name ?? "")}`);
      },
    });
  return (
    <Act method="JobService/CreateJob" onClick={run}>
      Run again
    </Act>
  );
}

/** What a request has of a job: what the server sets is left out. */
export function again(job: Job): MessageInitShape<typeof JobSchema> {
  const spec = structuredClone(job.spec);
  if (spec.case === "trace" && spec.value.factsObject) spec.value.facts = [];
  if (spec.case === "edit") {
    spec.value.statistics = undefined;
    spec.value.etag = "";
  }
  if (spec.case === "massEdit") {
    spec.value.statistics = [];
    spec.value.groups = [];
    spec.value.batches = [];
    spec.value.etag = "";
  }
  if (spec.case === "eval" && spec.value.editEach) spec.value.editEach.statistics = undefined;
  return { model: job.model, version: job.version, spec, displayName: job.displayName, priority: job.priority };
}
