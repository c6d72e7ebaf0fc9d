// What an operator looks at first.

import { jobs } from "../client";
import { JobState } from "../../contract/palimpsest/v1/job_pb";
import { big, bytes, count, date, lasting, moment, some, stateWord } from "../format";
import { usePoll } from "../live";
import { may, now, refresh, whoAmI } from "../may";
import { Facts, Heading, Waiting } from "../parts/common";
import { CopyAs } from "../parts/CopyAs";
import { JobTable } from "../parts/JobTable";
import { to } from "../route";

export function Overview() {
  const read = usePoll("overview", 2000, async (signal) => {
    const [list] = await Promise.all([jobs.listJobs({ pageSize: 10 }, { signal }), refresh(signal)]);
    return { jobs: list.jobs, total: list.totalSize, at: Date.now() };
  });
  const it = now.value;
  const scheduler = it?.scheduler;
  const workers = scheduler?.workers;
  const store = it?.store;
  const violated = it?.invariants.filter((one) => one.violations > 0n) ?? [];
  const clock = date(it?.time);
  const skew = clock && read.data ? (clock.getTime() - read.data.at) / 1000 : 0;
  const stateCount = (state: JobState) => scheduler?.jobs.find((one) => one.state === state)?.count ?? 0n;
  return (
    <>
      <div class="title">
        <Heading title="Overview">Overview</Heading>
        <CopyAs command="palimpsest status" python="p.status()" json={() => it} />
      </div>
      {violated.length > 0 && (
        <p class="wrong" role="alert">
          {violated.map((one) => `${one.invariant} was violated ${some(one.violations, "time")}`).join("; ")} since the
          start: that is a bug. Keep the log.
        </p>
      )}
      {store?.problem && (
        <p class="wrong" role="alert">
          The store: {store.problem}
        </p>
      )}
      {Math.abs(skew) > 60 && (
        <p class="warning">
          The server's clock is {lasting(Math.abs(skew))} {skew > 0 ? "ahead of" : "behind"} this machine's.
        </p>
      )}
      <Waiting of={read} what="the status" />
      {it && (
        <div class="cards">
          <section class="card">
            <h2>Jobs</h2>
            <p class="large">{count(stateCount(JobState.RUNNING))} running</p>
            <ul class="plain-list">
              {[JobState.QUEUED, JobState.HELD, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED].map(
                (state) => (
                  <li>
                    <a href={to("/jobs", { state: stateWord(state) })}>
                      {count(stateCount(state))} {stateWord(state)}
                    </a>
                  </li>
                ),
              )}
            </ul>
          </section>
          <section class="card">
            <h2>Work</h2>
            <p class="large">{big(scheduler?.stepsPerSecond ?? 0)} cells/s</p>
            <Facts
              of={[
                ["tasks waiting", count(scheduler?.queueDepth ?? 0n)],
                ["leased", count(scheduler?.leases ?? 0n)],
                ["units since the start", count(scheduler?.unitsCommitted ?? 0n)],
                ["tried again", count(scheduler?.retries ?? 0n)],
                ["divergences", (scheduler?.divergences ?? 0n) > 0n ? count(scheduler?.divergences ?? 0n) : undefined],
              ]}
            />
          </section>
          <section class="card">
            <h2>
              <a href="/workers">Workers</a>
            </h2>
            <p class="large">{workers?.busy ?? 0} busy</p>
            <Facts
              of={[
                ["idle", workers?.idle ?? 0],
                ["draining", workers?.draining || undefined],
                ["excluded", workers?.excluded || undefined],
                ["away", workers?.away || undefined],
              ]}
            />
          </section>
          <section class="card">
            <h2>Store</h2>
            <p class="large">{bytes(store?.freeBytes ?? 0n)} free</p>
            <Facts
              of={[
                ["objects", `${count(store?.objects ?? 0n)}, ${bytes(store?.objectBytes ?? 0n)}`],
                ["log", bytes(store?.recordBytes ?? 0n)],
                ["models", <a href="/models">{count(store?.models ?? 0n)}</a>],
                ["versions", count(store?.versions ?? 0n)],
                ["audit entries", <a href="/audit">{count(store?.auditEntries ?? 0n)}</a>],
              ]}
            />
          </section>
        </div>
      )}
      {read.data && read.data.jobs.length === 0 ? (
        <Empty models={store?.models ?? 0n} />
      ) : (
        read.data && (
          <section>
            <h2>Newest jobs</h2>
            <JobTable jobs={read.data.jobs} name="newest" fixed />
            <p class="quiet">
              {count(read.data.jobs.length)} of <a href="/jobs">{count(read.data.total)}</a>
            </p>
          </section>
        )
      )}
      <p class="quiet">
        Palimpsest {it?.version}, up since {moment(it?.startTime)}; {it?.invariants.length ?? 0} invariants watched,{" "}
        {violated.length === 0 ? "none violated" : `${violated.length} violated`}. {whoAmI()}.
      </p>
    </>
  );
}

/** What to begin with. */
function Empty({ models }: { models: bigint }) {
  return (
    <section>
      <h2>Nothing has been asked yet</h2>
      <p>Three commands to begin with:</p>
      <pre tabIndex={0}>
        {`palimpsest model import hf:openai-community/gpt2\npalimpsest trace "The Space Needle is in downtown" --subject "The Space Needle"\npalimpsest job results latest`}
      </pre>
      {models > 0n && may("JobService/CreateJob") && (
        <p>
          Or ask a model in the <a href="/playground">playground</a>.
        </p>
      )}
    </section>
  );
}
