// What came out of a job, by what kind of work it is.

import { jobId, stateWord, count, ended } from "../format";
import { useJob } from "../job";
import { Heading, Wrong } from "../parts/common";
import { Completions, StatisticsResults } from "./Completions";
import { EditResults } from "./EditResults";
import { Evaluation } from "./Evaluation";
import { MassEdit } from "./MassEdit";
import { Sweep } from "./Sweep";

export function Results({ id }: { id: string }) {
  const watched = useJob(id);
  const { job } = watched;
  if (!job) {
    return (
      <>
        <Heading title={`Results of ${jobId(id)}`}>Results</Heading>
        <Wrong of={watched.problem} />
        {!watched.problem && <p class="quiet">Reading the job…</p>}
      </>
    );
  }
  const running = ended(job.state) ? null : (
    <p class="quiet" role="status">
      The job is {stateWord(job.state)}: {count(job.counts?.unitsDone ?? 0n)} of {count(job.counts?.units ?? 0n)} units
      so far.
    </p>
  );
  switch (job.spec.case) {
    case "trace":
      return <Sweep job={job} note={running} />;
    case "eval":
      return <Evaluation job={job} note={running} />;
    case "edit":
      return <EditResults job={job} steps={watched.steps} note={running} />;
    case "massEdit":
      return <MassEdit job={job} note={running} />;
    case "stats":
      return <StatisticsResults job={job} note={running} />;
    default:
      return <Completions job={job} note={running} />;
  }
}
