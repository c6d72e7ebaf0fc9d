// All jobs, by filters that the server applies.

import { useState } from "preact/hooks";

import { JobKind, JobState, type Job } from "../../contract/palimpsest/v1/job_pb";
import { jobs, models } from "../client";
import { call, command } from "../copied";
import { count, last, stateWord } from "../format";
import { useDoing, useLoad, usePoll } from "../live";
import { Choice, Heading, Text, Waiting, Wrong } from "../parts/common";
import { CopyAs } from "../parts/CopyAs";
import { JobTable } from "../parts/JobTable";
import { asked, setQuery, to } from "../route";

const STATES = [
  JobState.QUEUED,
  JobState.RUNNING,
  JobState.HELD,
  JobState.SUCCEEDED,
  JobState.FAILED,
  JobState.CANCELLED,
];
const KINDS: [JobKind, string, string][] = [
  [JobKind.TRACE, "trace", "trace"],
  [JobKind.GENERATE, "generate", "generate"],
  [JobKind.STATS, "stats", "statistics"],
  [JobKind.EDIT, "edit", "edit"],
  [JobKind.EVAL, "eval", "evaluate"],
  [JobKind.MASS_EDIT, "mass_edit", "mass edit"],
];
const BASELINE = "palimpsest.baseline";

function filters() {
  const states = asked("state").split(",").filter(Boolean);
  return {
    states: STATES.filter((state) => states.includes(stateWord(state))),
    kind: KINDS.find(([, id]) => id === asked("kind"))?.[0] ?? JobKind.UNSPECIFIED,
    owner: asked("owner"),
    model: asked("model") ? `models/${asked("model")}` : "",
    text: asked("text"),
  };
}

export function Jobs() {
  const wanted = filters();
  const key = JSON.stringify(wanted);
  const read = usePoll(`jobs ${key}`, 3000, (signal) => jobs.listJobs({ pageSize: 100, ...wanted }, { signal }));
  const known = useLoad("models", async (signal) => (await models.listModels({ pageSize: 1000 }, { signal })).models);
  const [more, setMore] = useState<{ key: string; jobs: Job[]; next: string }>({ key: "", jobs: [], next: "" });
  const doing = useDoing();
  const [chosen, setChosen] = useState<string[]>([]);
  const [baseline, setBaseline] = useState(localStorage.getItem(BASELINE) ?? "");
  const older = more.key === key ? more : { key, jobs: [], next: read.data?.nextPageToken ?? "" };
  const first = read.data?.jobs ?? [];
  const names = new Set(first.map((job) => job.name));
  const shown = [...first, ...older.jobs.filter((job) => !names.has(job.name))];
  const next = more.key === key ? more.next : (read.data?.nextPageToken ?? "");
  const load = () =>
    doing.run(async () => {
      const answer = await jobs.listJobs({ pageSize: 100, pageToken: next, ...wanted });
      setMore({ key, jobs: [...older.jobs, ...answer.jobs], next: answer.nextPageToken });
    });
  const choose = (id: string) =>
    setChosen((was) => (was.includes(id) ? was.filter((it) => it !== id) : [...was, id].slice(-2)));
  const pin = (id: string) => {
    localStorage.setItem(BASELINE, id);
    setBaseline(id);
  };
  const { owner, text } = wanted;
  const kind = KINDS.find(([it]) => it === wanted.kind)?.[1];
  const filtered = { state: wanted.states.map(stateWord), kind, owner, model: asked("model"), text };
  return (
    <>
      <div class="title">
        <Heading title="Jobs">Jobs</Heading>
        <CopyAs
          command={command("job list", [], filtered)}
          python={call("p.jobs", [], filtered)}
          json={() => shown}
        />
      </div>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <Choice
          label="State"
          value={asked("state")}
          options={[["", "any"], ...STATES.map((state) => [stateWord(state), stateWord(state)] as const)]}
          onChange={(state) => setQuery({ state })}
        />
        <Choice
          label="Kind"
          value={asked("kind")}
          options={[["", "any"], ...KINDS.map(([, id, word]) => [id, word] as const)]}
          onChange={(kind) => setQuery({ kind })}
        />
        <Choice
          label="Model"
          value={asked("model")}
          options={[["", "any"], ...(known.data ?? []).map((model) => [last(model.name), last(model.name)] as const)]}
          onChange={(model) => setQuery({ model })}
        />
        <Text label="Owner" value={asked("owner")} onChange={(owner) => setQuery({ owner })} />
        <Text label="Name or id" value={asked("text")} onChange={(text) => setQuery({ text })} />
      </form>
      <p role="status" class="quiet" id="shown">
        {read.data ? `${count(shown.length)} of ${count(read.data.totalSize)}` : ""}
      </p>
      <Waiting of={read} what="jobs" />
      {read.data && shown.length === 0 && <p>No job passes these filters.</p>}
      {shown.length > 0 && (
        <>
          <p class="buttons">
            {chosen.length === 2 ? (
              <a class="button main" href={to("/compare", { left: chosen[0], right: chosen[1] })}>
                Compare the two
              </a>
            ) : chosen.length === 1 && baseline && baseline !== chosen[0] ? (
              <a class="button main" href={to("/compare", { left: baseline, right: chosen[0] })}>
                Compare with the baseline
              </a>
            ) : (
              <span class="quiet">Pick two sweeps, or two evaluations, to compare them.</span>
            )}
            {chosen.length === 1 && chosen[0] !== baseline && (
              <button type="button" onClick={() => pin(chosen[0] ?? "")}>
                Pin as baseline
              </button>
            )}
            {baseline && (
              <span class="quiet">
                Baseline:{" "}
                <a class="mono" href={`/jobs/${baseline}`}>
                  {baseline.slice(-8)}
                </a>{" "}
                <button type="button" class="plain" onClick={() => pin("")}>
                  unpin
                </button>
              </span>
            )}
          </p>
          <JobTable jobs={shown} name="jobs" chosen={chosen} choose={choose} done={read.again} />
          {next && (
            <button type="button" disabled={doing.busy} onClick={() => void load()}>
              Older ones
            </button>
          )}
          <Wrong of={doing.problem} />
        </>
      )}
    </>
  );
}
