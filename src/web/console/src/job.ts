// A job that is looked at: read once, and followed from there.

import { useEffect, useRef, useState } from "preact/hooks";

import { type Job, type JobEvent, type JobProgress, type UnitResult, JobState, ResultView, type WatchJobResponse } from "../contract/palimpsest/v1/job_pb";
import { Kind } from "../contract/palimpsest/v1/trace_pb";
import type { EditProgress_Step } from "../contract/palimpsest/v1/edit_pb";
import { jobs, type Problem } from "./client";
import { ended } from "./format";
import { useLoad, useStream } from "./live";

/** Most events that a page keeps. */
const EVENTS = 500;

export interface Watched {
  job: Job | undefined;
  progress: JobProgress | undefined;
  events: JobEvent[];
  /** Steps of the edits that are being computed, by unit: the stream has the newest, this page all it saw. */
  steps: Map<string, EditProgress_Step[]>;
  problem: Problem | undefined;
  loading: boolean;
  again: () => void;
}

/** A job, followed while it runs and the tab is seen. `all` asks for its events from the first on. */
export function useJob(id: string | undefined, all = false): Watched {
  const name = id ? `jobs/${id}` : "";
  const read = useLoad(`job ${name}`, async (signal) => (name ? (await jobs.getJob({ name }, { signal })).job : undefined));
  const [seen, setSeen] = useState<{ of: string; newest?: WatchJobResponse; events: JobEvent[] }>({ of: name, events: [] });
  const at = useRef(0n);
  const steps = useRef(new Map<string, EditProgress_Step[]>());
  useEffect(() => {
    setSeen({ of: name, events: [] });
    steps.current = new Map();
    at.current = 0n;
  }, [name, all]);
  const first = read.data;
  const key = first && (all || !ended(first.state)) ? `${name} ${all}` : undefined;
  const wrong = useStream<WatchJobResponse>(
    key,
    (signal) => {
      if (!first) return undefined;
      if (!all && at.current === 0n) at.current = first.lastSequence;
      const newest = seen.of === name ? seen.newest?.job : undefined;
      if (newest && ended(newest.state) && at.current >= newest.lastSequence) return undefined;
      if (ended(first.state) && at.current >= first.lastSequence) return undefined;
      return jobs.watchJob({ name, afterSequence: at.current }, { signal });
    },
    (message) => {
      const last = message.events.at(-1);
      if (last) at.current = last.sequence;
      for (const edit of message.progress?.edits ?? []) addSteps(steps.current, String(edit.unit), edit.steps);
      setSeen((was) => ({
        of: name,
        newest: message,
        events: (was.of === name ? [...was.events, ...message.events] : message.events).slice(-EVENTS),
      }));
      // Stages are in the whole job alone.
      if (message.events.some((it) => it.event.case === "stageBegun") || (message.job && ended(message.job.state))) read.again();
    },
  );
  const newest = seen.of === name ? seen.newest : undefined;
  return {
    job: merged(first, newest?.job),
    progress: newest?.job && ended(newest.job.state) ? undefined : newest?.progress,
    events: seen.of === name ? seen.events : [],
    steps: steps.current,
    problem: read.problem ?? wrong,
    loading: read.loading,
    again: read.again,
  };
}

function addSteps(steps: Map<string, EditProgress_Step[]>, unit: string, newer: EditProgress_Step[]): void {
  const had = steps.get(unit) ?? [];
  const from = newer[0]?.number ?? Infinity;
  steps.set(unit, [...had.filter((step) => step.number < from), ...newer]);
}

/** The whole job with what changed since: what a stream says has no facts and prompts. */
function merged(whole: Job | undefined, newest: Job | undefined): Job | undefined {
  if (!whole || !newest || newest.lastSequence <= whole.lastSequence) return whole;
  return { ...whole, state: newest.state, counts: newest.counts, startTime: newest.startTime, endTime: newest.endTime, lastSequence: newest.lastSequence };
}

/** Waits for a job to end, and tells of it meanwhile. For chains of jobs; a page watches with `useJob`. */
export async function finished(name: string, signal: AbortSignal, tell?: (message: WatchJobResponse) => void): Promise<Job> {
  let after = 0n;
  for (let pause = 500; ; pause = Math.min(2 * pause, 10_000)) {
    signal.throwIfAborted();
    try {
      for await (const message of jobs.watchJob({ name, afterSequence: after }, { signal })) {
        after = message.events.at(-1)?.sequence ?? after;
        pause = 500;
        tell?.(message);
        if (message.job && ended(message.job.state)) return message.job;
        // A job that is held waits for somebody: whoever waits for it is told.
        if (message.job?.state === JobState.HELD) return message.job;
      }
      const { job } = await jobs.getJob({ name }, { signal });
      if (job && ended(job.state)) return job;
    } catch (error) {
      signal.throwIfAborted();
      if (pause > 8000) throw error;
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

export interface Wanted {
  view?: ResultView;
  kind?: Kind;
  relation?: string;
  correct?: boolean;
  failuresOnly?: boolean;
  first?: bigint;
}

/** Results of a job, page by page as they come; up to `most`. `more` says whether there are others. */
export async function results(
  id: string,
  wanted: Wanted,
  signal: AbortSignal,
  most = 20_000,
  tell?: (soFar: UnitResult[]) => void,
): Promise<{ items: UnitResult[]; more: boolean }> {
  const items: UnitResult[] = [];
  let token = "";
  do {
    const answer = await jobs.listResults(
      {
        parent: `jobs/${id}`,
        pageSize: Math.min(1000, most - items.length),
        pageToken: token,
        view: wanted.view ?? ResultView.FULL,
        kind: wanted.kind ?? Kind.UNSPECIFIED,
        relation: wanted.relation,
        correct: wanted.correct,
        failuresOnly: wanted.failuresOnly ?? false,
        firstUnit: wanted.first ?? 0n,
      },
      { signal },
    );
    items.push(...answer.results);
    token = answer.nextPageToken;
    tell?.(items);
  } while (token && items.length < most);
  return { items, more: token !== "" };
}

/** A name that makes a call repeatable. */
export function requestId(): string {
  // Not of crypto.randomUUID, which plain http from another host has not.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
