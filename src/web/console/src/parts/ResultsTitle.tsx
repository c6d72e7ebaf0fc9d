// The head of a page of results: of which job, on which version.

import type { ComponentChildren } from "preact";

import type { Job } from "../../contract/palimpsest/v1/job_pb";
import { call, command } from "../copied";
import { brief, jobId, last, part, visible } from "../format";
import { Heading } from "./common";
import { CopyAs, type Copied } from "./CopyAs";

export function ResultsTitle({
  job,
  title,
  note,
  copied,
  children,
}: {
  job: Job;
  title: string;
  note: ComponentChildren;
  copied?: Copied;
  children?: ComponentChildren;
}) {
  const id = last(job.name);
  return (
    <>
      <div class="title">
        <Heading title={`${title} ${jobId(id)}`}>{job.displayName ? visible(job.displayName) : title}</Heading>
        <CopyAs command={command("job results", [id])} python={`${call("p.job", [id])}.results()`} {...copied} />
      </div>
      <p class="quiet">
        Job{" "}
        <a class="mono" href={`/jobs/${id}`}>
          {jobId(id)}
        </a>{" "}
        on <a href={`/models/${last(job.model)}`}>{last(job.model)}</a> @{" "}
        <a class="mono" href={`/models/${part(job.version, "models")}/versions/${last(job.version)}`}>
          {brief(job.version, 8)}
        </a>
        , {job.owner}
        {children}
      </p>
      {note}
    </>
  );
}
