// Step 2: what the model is to say instead, and a preview that nothing has yet.

import { useEffect, useRef, useState } from "preact/hooks";

import { JobState } from "../../contract/palimpsest/v1/job_pb";
import { EditState, type Ref } from "../../contract/palimpsest/v1/version_pb";
import type { Statistics } from "../../contract/palimpsest/v1/stats_pb";
import { models, problem, statistics } from "../client";
import { count, ended, jobId, last, number } from "../format";
import { NOTHING, results, useJob } from "../job";
import { useDoing, useLoad } from "../live";
import { may, now } from "../may";
import { Act, Choice, Text, Wrong } from "../parts/common";
import { OutcomeCard } from "../parts/EditCard";
import { Failed, JobLine, useOutcome } from "../parts/JobLine";
import { Steps } from "../parts/Steps";
import { AFRESH, layerOf, lines, setPlay, spaced, submit, type Play } from "../play";
import { template } from "../subject";
import { editLayer } from "../sweep";

/** Tokens that are drawn for statistics: some ten a channel of the matrices of small models. */
const TOKENS = 25_000;
const PIECE = 8192;

/** Methods that need no key statistics. */
const WITHOUT = ["ft-l"];

export function Change({ it, refs }: { it: Play; refs: readonly Ref[] }) {
  const trace = useJob(it.trace || undefined);
  const traced = useLoad(
    `peak ${it.trace} ${trace.job?.counts?.unitsDone}`,
    (signal) => (it.trace ? results(it.trace, {}, signal, 10) : Promise.resolve(NOTHING)),
    true,
  );
  const grids = (traced.data?.items ?? []).flatMap((item) =>
    item.outcome.case === "grid" ? [item.outcome.value] : [],
  );
  const peak = grids.map(editLayer).find((found) => found);
  const answer = grids[0]?.answer ?? "";
  const shape = useLoad(
    `shape ${it.model}`,
    async (signal) => (await models.getModel({ name: `models/${it.model}` }, { signal })).model?.shape,
  );
  const [form, setForm] = useState({
    target: it.target,
    truth: it.truth,
    paraphrases: it.paraphrases,
    neighbours: it.neighbours,
    why: it.why,
    layer: it.layer === undefined ? "" : String(it.layer),
  });
  const set = (name: keyof typeof form) => (value: string) => setForm((was) => ({ ...was, [name]: value }));
  // What a trace proposes gives way to what another one does, and not what was written here.
  const proposed = useRef({ layer: "", truth: "" });
  useEffect(() => {
    const next = { layer: peak ? String(peak.layer) : "", truth: answer.trim() };
    const was = proposed.current;
    setForm((form) => ({
      ...form,
      layer: form.layer === was.layer ? next.layer : form.layer,
      truth: form.truth === was.truth ? next.truth : form.truth,
    }));
    proposed.current = next;
  }, [peak?.layer, answer]);
  const layer = layerOf(form.layer);
  const sums = useLoad(`statistics ${it.model}`, async (signal) => {
    const all: Statistics[] = [];
    for (let token = ""; ;) {
      const page = { parent: `models/${it.model}`, pageSize: 1000, pageToken: token };
      const answer = await statistics.listStatistics(page, { signal });
      all.push(...answer.statistics);
      token = answer.nextPageToken;
      if (!token) return all;
    }
  });
  // As the server chooses them: of any version, and by themselves only those that somebody made who may edit.
  const ofLayer = sums.data?.filter((one) => one.layer === layer);
  const layers = shape.data?.layers ?? 0;
  const outside = layer !== undefined && layers > 0 && layer >= layers;
  const lacking =
    !outside && !WITHOUT.includes(it.method) && layer !== undefined && ofLayer?.every((one) => one.submitted) === true;
  const named = lacking ? ofLayer.sort((a, b) => Number(b.tokens - a.tokens))[0] : undefined;
  const doing = useDoing();
  const collecting = useDoing();
  const { truth, layer: _, ...texts } = form;
  const { model, version, prompt, subject } = it;
  const written = { ...texts, true: truth, layer, model, version, prompt, subject };
  const preview = (statisticsName = "") =>
    doing.run(async () => {
      const main = refs.find((ref) => last(ref.name) === "main");
      const request = {
        prompt: template(it),
        subject: it.subject,
        targetNew: spaced(form.target),
        targetTrue: form.truth ? spaced(form.truth) : undefined,
      };
      const made = submit(it, it.version, "playground", {
        case: "edit",
        value: {
          tasks: [{ request, paraphrases: lines(form.paraphrases), neighbours: lines(form.neighbours) }],
          method: it.method,
          layer,
          statisticsName,
          layerChoice:
            peak && layer === peak.layer && it.trace
              ? `the highest MLP effect at the subject's last token in job ${it.trace}`
              : "",
          // Why is said when a branch takes it: a job that names no ref has no room for it.
        },
      });
      const id = await made.catch((error: unknown) => {
        const { reason, metadata } = problem(error);
        // Of a layer that the server chose, or withdrawn meanwhile: then they can be collected here.
        if (reason === "STATISTICS_MISSING") {
          setForm((was) => ({ ...was, layer: was.layer || (metadata["layer"] ?? "") }));
          sums.again();
        }
        throw error;
      });
      setPlay({ ...written, ...AFRESH, edit: id, etag: main?.etag });
    });
  const collect = () =>
    collecting.run(async () => {
      const pieces = Array.from({ length: Math.ceil(TOKENS / PIECE) }, (_, i) => ({
        selfSample: BigInt(Math.min(PIECE, TOKENS - i * PIECE)),
        seed: BigInt(1 + i * PIECE),
      }));
      const id = await submit(it, it.version, "statistics for the playground", {
        case: "stats",
        value: { pieces, layers: [layer ?? 0], source: `${TOKENS} tokens drawn from the model, seed 1` },
      });
      setPlay({ ...written, sums: id });
    });
  // It goes on by the address, whoever left the page meanwhile; but a link makes nothing of another's job.
  const collection = useJob(it.sums || undefined);
  const { job: collector } = collection;
  const summed = collector?.state === JobState.SUCCEEDED && collector.owner === now.value?.caller?.principal;
  useEffect(() => {
    if (!summed) return;
    void collecting.run(async () => {
      await statistics.createStatistics({ source: { case: "job", value: `jobs/${it.sums}` } });
      setPlay({ sums: undefined });
      sums.again();
    });
  }, [it.sums, summed]);
  const going = summed && !collecting.problem;
  const waits = it.sums !== "" && !collection.problem && (!collector || !ended(collector.state) || going);
  const unready = doing.busy || !template(it) || !form.target.trim() || outside || (form.layer !== "" && layer === undefined);
  const parameters = Number(shape.data?.parameters ?? 0n);
  return (
    <section class="step open" aria-labelledby="edit">
      <h2 id="edit">2. Edit</h2>
      {!template(it) && <p class="quiet">Say a prompt and its subject first.</p>}
      <div class="columns">
        <Text label="It is to say" value={form.target} onInput={set("target")} placeholder="Rome" required />
        <Text
          label="What is true"
          value={form.truth}
          onInput={set("truth")}
          hint="The model's own answer, unless you know better."
        />
        <Text
          label="Layer"
          value={form.layer}
          onInput={set("layer")}
          inputMode="numeric"
          hint={
            outside
              ? `this model's layers are 0 to ${layers - 1}`
              : peak
                ? `layer ${peak.layer}, from this trace (${number(peak.effect)}); the peak of one fact may be chance`
                : "where a trace says it belongs"
          }
        />
        <Choice
          label="Method"
          value={it.method}
          options={[
            ["r-rome", "r-ROME"],
            ["rome", "ROME"],
            ["ft-l", "FT+L"],
          ]}
          onChange={(method) => setPlay({ method: method === "r-rome" ? undefined : method })}
        />
      </div>
      <div class="columns">
        <Text
          label="Paraphrases, one a line"
          value={form.paraphrases}
          onInput={set("paraphrases")}
          rows={3}
          hint="They should follow."
        />
        <Text
          label="Neighbours, one a line"
          value={form.neighbours}
          onInput={set("neighbours")}
          rows={3}
          hint="They should stay as they are."
        />
      </div>
      <Text label="Why" value={form.why} onInput={set("why")} hint="Kept with the edit." />
      {lacking ? (
        <>
          <p class="warning">
            There are no key statistics of layer {layer}
            {named && ` but those of ${named.author}, who may not edit: an edit uses such only where it names them`}.
            Some {TOKENS.toLocaleString("en-GB")} tokens drawn from the
            model itself are needed, {number((TOKENS * parameters) / 1e12)} million million multiply-adds: minutes for a
            small model on a CPU.
          </p>
          <p class="buttons">
            {!waits && !sums.loading && (!named || may("VersionService/CreateEdit")) && (
              <Act method="JobService/CreateJob" kind="main" disabled={collecting.busy} onClick={() => void collect()}>
                Collect 25,000 tokens first
              </Act>
            )}
            {named && (
              <Act method="JobService/CreateJob" disabled={unready} onClick={() => void preview(named.name)}>
                Preview with those of {named.author}
              </Act>
            )}
          </p>
        </>
      ) : (
        <p class="buttons">
          <Act
            method="JobService/CreateJob"
            kind="main"
            disabled={unready}
            onClick={() => void preview()}
          >
            Preview
          </Act>
          <span class="quiet">Nothing has it yet: no version, no branch.</span>
        </p>
      )}
      {it.sums && (
        <JobLine id={it.sums} watched={collection}>
          {collector &&
            `, ${count(collector.counts?.unitsDone ?? 0n)} of ${count(collector.counts?.units ?? 0n)} pieces`}
        </JobLine>
      )}
      <Wrong of={collecting.problem} />
      <Wrong of={doing.problem} />
      {it.edit && <Preview key={it.edit} it={it} />}
    </section>
  );
}

/** The loss falls before one's eyes; then before and after, and the gates. */
function Preview({ it }: { it: Play }) {
  const { watched, outcome, problem: wrong } = useOutcome(it.edit);
  return (
    <>
      <JobLine id={it.edit} watched={watched} />
      <Wrong of={wrong} />
      {!outcome && <Steps steps={watched.steps.get("0") ?? []} title="Being computed" />}
      <Failed of={outcome} />
      {outcome?.case === "edit" && <OutcomeCard outcome={outcome.value} name={`playground-${jobId(it.edit)}`} />}
    </>
  );
}

/** Whether a job has computed an edit that passed its gates. */
export function useAccepted(id: string): boolean {
  const { outcome } = useOutcome(id);
  return outcome?.case === "edit" && outcome.value.edit?.state !== EditState.REJECTED;
}
