// Step 1: a prompt, its subject, what the model says, and where the fact passes.

import { useEffect, useRef, useState } from "preact/hooks";

import { JobState } from "../../contract/palimpsest/v1/job_pb";
import { Metric } from "../../contract/palimpsest/v1/trace_pb";
import { count, jobId, stateWord, visible } from "../format";
import { results, useJob } from "../job";
import { useDoing, useLoad } from "../live";
import { Act, Text, Wrong } from "../parts/common";
import { submit, type Play } from "../play";
import { setQuery } from "../route";
import { Maps } from "./SweepFacts";

export function Ask({ it }: { it: Play }) {
  const [prompt, setPrompt] = useState(it.prompt);
  const [subject, setSubject] = useState(it.subject);
  const area = useRef<HTMLTextAreaElement>(null);
  const completing = useDoing();
  const tracing = useDoing();
  useEffect(() => {
    setPrompt(it.prompt);
    setSubject(it.subject);
  }, [it.prompt, it.subject]);
  const found = subject !== "" && prompt.includes(subject);
  const now = { ...it, prompt, subject };
  const mark = () => {
    const box = area.current;
    if (!box || box.selectionStart === box.selectionEnd) return;
    const marked = box.value.slice(box.selectionStart, box.selectionEnd).trim();
    if (marked) setSubject(marked);
  };
  const complete = () =>
    completing.run(async () => {
      const id = await submit(now, it.version, "playground", {
        case: "generate",
        value: { prompts: [prompt], maxTokens: 8 },
      });
      setQuery({ prompt, subject, model: it.model, version: it.version, completion: id });
    });
  const trace = () =>
    tracing.run(async () => {
      const id = await submit(now, it.version, "playground", {
        case: "trace",
        value: { facts: [{ prompt, subject }], samples: 3 },
      });
      setQuery({
        prompt,
        subject,
        model: it.model,
        version: it.version,
        trace: id,
        edit: undefined,
        tried: undefined,
        stored: undefined,
        kept: undefined,
        before: undefined,
      });
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
        hint={subject && !found ? "It does not occur in the prompt." : undefined}
      />
      {found && (
        <p class="said">
          {visible(prompt.slice(0, prompt.indexOf(subject)))}
          <u>{visible(subject)}</u>
          {visible(prompt.slice(prompt.indexOf(subject) + subject.length))}
          {it.completion && it.prompt === prompt && <Completed id={it.completion} />}
        </p>
      )}
      {!found && it.completion && (
        <p class="said">
          {visible(prompt)}
          <Completed id={it.completion} />
        </p>
      )}
      <p class="buttons">
        <Act method="JobService/CreateJob" disabled={completing.busy || !prompt.trim()} onClick={() => void complete()}>
          Complete
        </Act>
        <Act method="JobService/CreateJob" kind="main" disabled={tracing.busy || !found} onClick={() => void trace()}>
          Trace
        </Act>
        <span class="quiet">Three samples of noise a cell.</span>
      </p>
      <Wrong of={completing.problem ?? tracing.problem} />
      {it.trace && <Traced it={it} />}
    </section>
  );
}

function Completed({ id }: { id: string }) {
  const watched = useLoadedCompletion(id);
  if (watched.text === undefined) return <span class="quiet"> …</span>;
  return <ins>{visible(watched.text)}</ins>;
}

/** What a completion added, once it is there. */
export function useLoadedCompletion(id: string): { text: string | undefined; failed: string } {
  const [turn, setTurn] = useState(0);
  const read = useLoad(`completion ${id} ${turn}`, (signal) => results(id, {}, signal, 10), true);
  const outcome = read.data?.items[0]?.outcome;
  useEffect(() => {
    if (outcome || read.loading) return undefined;
    const timer = setTimeout(() => setTurn((n) => n + 1), 700);
    return () => clearTimeout(timer);
  }, [outcome, read.loading, turn]);
  return {
    text: outcome?.case === "completion" ? outcome.value.text : undefined,
    failed: outcome?.case === "failure" ? outcome.value.message : "",
  };
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
      <p class="quiet" role="status">
        Job{" "}
        <a class="mono" href={`/jobs/${it.trace}`}>
          {jobId(it.trace)}
        </a>
        {state !== undefined && ` is ${stateWord(state)}`}
        {state !== undefined &&
          state !== JobState.SUCCEEDED &&
          `, ${count(done)} of ${count(watched.job?.counts?.units ?? 0n)} maps`}
      </p>
      {watched.progress && watched.progress.stepsRunning > 0n && (
        <p class="quiet">{count(watched.progress.stepsRunning)} cells of the next ones.</p>
      )}
      <Wrong of={watched.problem ?? read.problem} />
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
