// A job that is looked at: read once, and followed from there.

import { effect, signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";

import {
  type FingerprintCount,
  type Job,
  type JobEvent,
  type JobProgress,
  type UnitResult,
  ResultView,
  type WatchJobResponse,
} from "../contract/palimpsest/v1/job_pb";
import { Kind } from "../contract/palimpsest/v1/trace_pb";
import type { EditProgress_Step } from "../contract/palimpsest/v1/edit_pb";
import { isCancelled, isPassing, jobs, problem, type Problem } from "./client";
import { ended, fingerprintWords } from "./format";
import { lost, seen } from "./live";
import { isOut } from "./may";

/** Most events that a page keeps. */
const EVENTS = 500;
/** How often a job is asked for that is not the one whose stream the tab has, milliseconds. */
const POLL = 3000;

interface State {
  job: Job | undefined;
  progress: JobProgress | undefined;
  events: JobEvent[];
  problem: Problem | undefined;
}

export interface Watched extends State {
  /** Steps of the edits that are being computed, by unit: the stream has the newest, this page all it saw. */
  steps: Map<string, EditProgress_Step[]>;
  again: () => void;
}

/** A job that parts of the page look at; all of them have it from here. */
class Watch {
  readonly state: Signal<State> = signal({ job: undefined, progress: undefined, events: [], problem: undefined });
  readonly steps = new Map<string, EditProgress_Step[]>();
  users = 0;
  private at = 0n;
  private manner: "none" | "stream" | "poll" = "none";
  private stop: AbortController | undefined;

  constructor(
    private readonly name: string,
    private readonly all: boolean,
  ) {}

  /** Whether nothing more will come. */
  get over(): boolean {
    const { job, problem: wrong } = this.state.peek();
    return wrong !== undefined || (job !== undefined && ended(job.state) && (!this.all || this.at >= job.lastSequence));
  }

  follow(manner: "none" | "stream" | "poll"): void {
    if (manner === this.manner) return;
    this.stop?.abort();
    this.manner = manner;
    this.stop = new AbortController();
    if (manner !== "none") void this.run(manner, this.stop.signal);
  }

  readonly again = () => {
    this.set({ problem: undefined });
    this.read()
      .catch((error: unknown) => this.set({ problem: problem(error) }))
      .finally(arrange);
  };

  private set(change: Partial<State>): void {
    this.state.value = { ...this.state.peek(), ...change };
  }

  private async read(abort?: AbortSignal): Promise<void> {
    const { job } = await jobs.getJob({ name: this.name }, { signal: abort });
    if (job) this.set({ job, problem: undefined, progress: ended(job.state) ? undefined : this.state.peek().progress });
    // Events from now on, unless all are asked for: of a large job there are millions.
    if (job && !this.all && this.at === 0n) this.at = job.lastSequence;
  }

  private async run(manner: "stream" | "poll", abort: AbortSignal): Promise<void> {
    for (let pause = 500; !abort.aborted;) {
      try {
        await this.read(abort);
        lost.value = "";
        if (this.over) break;
        if (manner === "stream") {
          for await (const message of jobs.watchJob({ name: this.name, afterSequence: this.at }, { signal: abort })) {
            pause = 500;
            lost.value = "";
            // Stages are in the whole job alone.
            if (this.take(message)) await this.read(abort);
          }
        }
      } catch (error) {
        if (abort.aborted || isCancelled(error) || isOut(error)) return;
        if (!isPassing(error)) {
          this.set({ problem: problem(error) });
          break;
        }
        lost.value = problem(error).message;
        pause = Math.min(pause * 2, 15_000);
      }
      await new Promise((done) => setTimeout(done, manner === "poll" ? POLL : pause));
    }
    if (!abort.aborted) arrange();
  }

  /** What a message of the stream says; whether the whole job is to be read again. */
  private take(message: WatchJobResponse): boolean {
    this.at = message.events.at(-1)?.sequence ?? this.at;
    for (const edit of message.progress?.edits ?? []) addSteps(this.steps, String(edit.unit), edit.steps);
    const was = this.state.peek();
    this.set({
      job: merged(was.job, message.job),
      progress: message.progress,
      events: [...was.events, ...message.events].slice(-EVENTS),
    });
    return (
      message.events.some((it) => it.event.case === "stageBegun") ||
      (message.job !== undefined && ended(message.job.state))
    );
  }
}

const watches = new Map<string, Watch>();

/**
 * A tab has one stream, for a browser has six connections to a server that speaks HTTP/1.1, all its tabs
 * together. The job that was looked at last has it; others that still run are asked for now and then.
 */
function arrange(): void {
  let streamed = false;
  for (const watch of [...watches.values()].reverse()) {
    if (watch.users === 0 || watch.over || !seen.peek()) watch.follow("none");
    else {
      watch.follow(streamed ? "poll" : "stream");
      streamed = true;
    }
  }
}

effect(() => {
  void seen.value;
  arrange();
});

/** A job, followed while it runs and the tab is seen. `all` asks for its events from the first on. */
export function useJob(id: string | undefined, all = false): Watched {
  const watch = useMemo(() => {
    const key = `jobs/${id} ${all}`;
    const known = watches.get(key) ?? new Watch(`jobs/${id}`, all);
    if (id) watches.set(key, known);
    return known;
  }, [id, all]);
  useEffect(() => {
    if (!id) return undefined;
    watch.users += 1;
    arrange();
    return () => {
      watch.users -= 1;
      setTimeout(() => {
        if (watch.users > 0) return;
        watches.delete(`jobs/${id} ${all}`);
        arrange();
      }, 100);
    };
  }, [watch]);
  return { ...watch.state.value, steps: watch.steps, again: watch.again };
}

function addSteps(steps: Map<string, EditProgress_Step[]>, unit: string, newer: EditProgress_Step[]): void {
  const had = steps.get(unit) ?? [];
  const from = newer[0]?.number ?? Infinity;
  steps.set(unit, [...had.filter((step) => step.number < from), ...newer]);
}

/** The whole job with what changed since: what a stream says has no facts and prompts. */
function merged(whole: Job | undefined, newest: Job | undefined): Job | undefined {
  if (!whole || !newest || newest.lastSequence < whole.lastSequence) return whole;
  return {
    ...whole,
    state: newest.state,
    counts: newest.counts,
    startTime: newest.startTime,
    endTime: newest.endTime,
    lastSequence: newest.lastSequence,
  };
}

export interface Wanted {
  view?: ResultView;
  kind?: Kind;
  relation?: string;
  correct?: boolean;
  failuresOnly?: boolean;
  first?: bigint;
}

export interface Found {
  items: UnitResult[];
  /** Whether there are others. */
  more: boolean;
  /** What computed them. */
  fingerprints: FingerprintCount[];
}

export const NOTHING: Found = { items: [], more: false, fingerprints: [] };

/** Results of a job, page by page as they come; up to `most`. */
export async function results(
  id: string,
  wanted: Wanted,
  signal: AbortSignal,
  most = 20_000,
  tell?: (soFar: UnitResult[]) => void,
): Promise<Found> {
  const items: UnitResult[] = [];
  const fingerprints = new Map<string, FingerprintCount>();
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
    for (const it of answer.fingerprints) {
      const name = `${fingerprintWords(it.fingerprint)} ${it.fingerprint?.batchMemory}`;
      fingerprints.set(name, { ...it, results: it.results + (fingerprints.get(name)?.results ?? 0n) });
    }
    token = answer.nextPageToken;
    tell?.(items);
  } while (token && items.length < most);
  return { items, more: token !== "", fingerprints: [...fingerprints.values()] };
}

/** A name that makes a call repeatable. */
export function requestId(): string {
  // Not of crypto.randomUUID, which plain http from another host has not.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
