// Step 1: a prompt, its subject, what the model says, and where the fact passes.

import { useEffect, useRef, useState } from "preact/hooks";

import { JobState } from "../../contract/palimpsest/v1/job_pb";
import { Metric } from "../../contract/palimpsest/v1/trace_pb";
import { count, jobId, visible } from "../format";
import { results, useJob } from "../job";
import { useDoing, useLoad } from "../live";
import { Act, Text, Wrong } from "../parts/common";
import { Failed, JobLine, useOutcome } from "../parts/JobLine";
import { AFRESH, setPlay, submit, type Play } from "../play";
import { fact, placed } from "../subject";
import { Maps } from "./SweepFacts";

export function Ask({ it }: { it: Play }) {
  const [prompt, setPrompt] = useState(it.prompt);
  const [subject, setSubject] = useState(it.subject);
  const [place, setPlace] = useState(it.at);
  const area = useRef<HTMLTextAreaElement>(null);
  const completing = useDoing();
  const tracing = useDoing();
  useEffect(() => {
    setPrompt(it.prompt);
    setSubject(it.subject);
    setPlace(it.at);
  }, [it.prompt, it.subject, it.at]);
  const at = placed(prompt, subject, place);
  const asked = fact({ prompt, subject, at });
  const other = prompt !== it.prompt || subject !== it.subject || at !== it.at;
  const written = {
    prompt,
    subject,
    at: asked.subjectStart && at,
    model: it.model,
    version: it.version,
    // What was made of another prompt is not of this one.
    ...(other ? { ...AFRESH, trace: undefined, completion: undefined } : {}),
  };
  const told = it.prompt === prompt ? it.completion : "";
  const completion = useOutcome(told);
  const said = completion.outcome?.case === "completion" ? completion.outcome.value.text : undefined;
  const mark = () => {
    const box = area.current;
    if (!box) return;
    const marked = box.value.slice(box.selectionStart, box.selectionEnd).trim();
    // Who marks all of it is about to write it anew.
    if (!marked || marked === box.value.trim()) return;
    setSubject(marked);
    setPlace(box.value.indexOf(marked, box.selectionStart));
  };
  const complete = () =>
    completing.run(async () => {
      const id = await submit(it, it.version, "playground", {
        case: "generate",
        value: { prompts: [prompt], maxTokens: 8 },
      });
      setPlay({ ...written, completion: id });
    });
  const trace = () =>
    tracing.run(async () => {
      const id = await submit(it, it.version, "playground", {
        case: "trace",
        value: { facts: [asked], samples: 3 },
      });
      setPlay({ ...written, ...AFRESH, trace: id });
    });
  return (
    <section class="step open" aria-labelledby="ask">
      <h2 id="ask">1. Ask</h2>
      <div class="field">
        <label>
          <span>Prompt</span>
          <textarea
            ref={area}
            rows={2}
            id="prompt"
            value={prompt}
            onInput={(event) => setPrompt(event.currentTarget.value)}
            onSelect={mark}
            onMouseUp={mark}
            placeholder="The Eiffel Tower is located in the city of"
            aria-describedby="prompt-hint"
          />
        </label>
        <small id="prompt-hint">Mark the subject in it with the mouse, or write it below.</small>
      </div>
      <Text
        label="Subject"
        value={subject}
        onInput={setSubject}
        hint={subject && at < 0 ? "It does not occur in the prompt." : undefined}
      />
      {(at >= 0 || told) && (
        <p class="said">
          {visible(prompt.slice(0, Math.max(at, 0)))}
          {at >= 0 && <u>{visible(subject)}</u>}
          {visible(prompt.slice(at < 0 ? 0 : at + subject.length))}
          {said !== undefined && <ins>{visible(said)}</ins>}
          {told && said === undefined && !completion.over && <span class="quiet"> …</span>}
        </p>
      )}
      {told && <JobLine id={told} watched={completion.watched} />}
      <Failed of={completion.outcome} />
      <Wrong of={completion.problem} />
      <p class="buttons">
        <Act method="JobService/CreateJob" disabled={completing.busy || !prompt.trim()} onClick={() => void complete()}>
          Complete
        </Act>
        <Act method="JobService/CreateJob" kind="main" disabled={tracing.busy || at < 0} onClick={() => void trace()}>
          Trace
        </Act>
        <span class="quiet">Three samples of noise a cell.</span>
      </p>
      <Wrong of={completing.problem ?? tracing.problem} />
      {it.trace && <Traced key={it.trace} it={it} />}
    </section>
  );
}

function Traced({ it }: { it: Play }) {
  const watched = useJob(it.trace);
  const done = watched.job?.counts?.unitsDone ?? 0n;
  const read = useLoad(`playground grids ${it.trace} ${done}`, (signal) => results(it.trace, {}, signal, 10), true);
  const grids = (read.data?.items ?? []).flatMap((item) => (item.outcome.case === "grid" ? [item.outcome.value] : []));
  const failed = (read.data?.items ?? []).flatMap((item) =>
    item.outcome.case === "failure" ? [item.outcome.value.message] : [],
  );
  const state = watched.job?.state;
  return (
    <>
      <JobLine id={it.trace} watched={watched}>
        {state !== undefined &&
          state !== JobState.SUCCEEDED &&
          `, ${count(done)} of ${count(watched.job?.counts?.units ?? 0n)} maps`}
      </JobLine>
      {watched.progress && watched.progress.stepsRunning > 0n && (
        <p class="quiet">{count(watched.progress.stepsRunning)} cells of the next ones.</p>
      )}
      <Wrong of={read.problem} />
      {failed.map((message) => (
        <p class="wrong">{visible(message)}</p>
      ))}
      {grids.length > 0 && (
        <Maps
          grids={grids}
          look={{
            metric: Metric.PROBABILITY,
            effects: false,
            common: true,
            kind: 0,
            relation: undefined,
            correct: undefined,
            text: "",
          }}
          model={it.model}
          name={`playground-${jobId(it.trace)}`}
        />
      )}
    </>
  );
}
