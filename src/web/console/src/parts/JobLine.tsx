// A job that a page waits for, in one line, and what it came to.

import type { ComponentChildren } from "preact";

import { JobState } from "../../contract/palimpsest/v1/job_pb";
import { ended, jobId, stateWord, visible } from "../format";
import { NOTHING, results, useJob, type Watched } from "../job";
import { useLoad } from "../live";
import { Wrong } from "./common";

/** What is to be known where a job gives nothing. */
const BECAUSE: Partial<Record<JobState, string>> = {
  [JobState.CANCELLED]: ": somebody cancelled it, and what is left of it is not computed. Ask again for it.",
  [JobState.FAILED]: ": its own page says why.",
  [JobState.HELD]: ": it waits for somebody, and its own page says why.",
};

export function JobLine({ id, watched, children }: { id: string; watched: Watched; children?: ComponentChildren }) {
  const state = watched.job?.state;
  return (
    <>
      <p class="quiet" role="status">
        Job{" "}
        <a class="mono" href={`/jobs/${id}`}>
          {jobId(id)}
        </a>
        {state !== undefined && ` is ${stateWord(state)}`}
        {children}
        {state !== undefined && BECAUSE[state]}
      </p>
      <Wrong of={watched.problem} />
    </>
  );
}

/** The first outcome of a job, once it is there; no job is asked for where no `id` is. */
export function useOutcome(id: string) {
  const watched = useJob(id || undefined);
  const { job } = watched;
  const over = job !== undefined && (ended(job.state) || (job.counts?.unitsDone ?? 0n) > 0n);
  const read = useLoad(`outcome ${id} ${over}`, (signal) =>
    over ? results(id, {}, signal, 1) : Promise.resolve(NOTHING),
  );
  return { watched, over, problem: read.problem, outcome: read.data?.items[0]?.outcome };
}

/** The failure that an outcome is. */
export function Failed({ of }: { of: ReturnType<typeof useOutcome>["outcome"] }) {
  return of?.case === "failure" ? <p class="wrong">{visible(of.value.message)}</p> : null;
}
