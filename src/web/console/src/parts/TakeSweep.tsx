// All grids of a sweep as NumPy files in one zip file: those that `palimpsest job results --npz` writes.

import { useRef, useState } from "preact/hooks";

import type { Job } from "../../contract/palimpsest/v1/job_pb";
import { files } from "../arrays";
import { isCancelled, jobs } from "../client";
import { save } from "../download";
import { brief, count, last, some } from "../format";
import { useDoing } from "../live";
import { factsOf, kindsOf, metricsOf } from "../look";
import { Zip } from "../npz";
import { Wrong } from "./common";

export function TakeSweep({ job }: { job: Job }) {
  const [read, setRead] = useState(0);
  const doing = useDoing();
  const stop = useRef<AbortController | undefined>(undefined);
  const run = () =>
    doing.run(async () => {
      stop.current = new AbortController();
      setRead(0);
      try {
        await take(job, stop.current.signal, setRead);
      } catch (error) {
        if (!isCancelled(error)) throw error;
      }
    });
  return (
    <>
      {doing.busy ? (
        <>
          <span role="status" class="quiet">
            {count(read)} of {some(job.counts?.units ?? 0n, "unit")} taken along
          </span>
          <button type="button" onClick={() => stop.current?.abort()}>
            Stop
          </button>
        </>
      ) : (
        <button type="button" onClick={() => void run()} title="Every fact and kind as a NumPy file, in a zip file">
          All as NPZ
        </button>
      )}
      <Wrong of={doing.problem} />
    </>
  );
}

/** A page of grids becomes files and is let go: all of them may be more than a page's memory holds. */
async function take(job: Job, signal: AbortSignal, tell: (units: number) => void): Promise<void> {
  const zip = new Zip();
  const [kinds, facts, metrics] = [kindsOf(job).length, factsOf(job), metricsOf(job)];
  let [pageToken, read] = ["", 0];
  do {
    const page = await jobs.listResults({ parent: job.name, pageSize: 1000, pageToken }, { signal });
    for (const { unit, outcome } of page.results) {
      if (outcome.case !== "grid") continue;
      const fact = Math.floor(Number(unit) / kinds);
      for (const { name, data } of files(outcome.value, fact, facts, metrics)) zip.add(name, data);
    }
    read += page.results.length;
    tell(read);
    pageToken = page.nextPageToken;
  } while (pageToken);
  save(`sweep-${brief(last(job.name))}-npz.zip`, "application/zip", ...zip.end());
}
