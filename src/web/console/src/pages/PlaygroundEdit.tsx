// Step 2: what the model is to say instead, and a preview that nothing has yet.

import { useEffect, useRef, useState } from "preact/hooks";

import { EditState, type Ref } from "../../contract/palimpsest/v1/version_pb";
import { models, statistics } from "../client";
import { ended, jobId, last, number, stateWord, visible } from "../format";
import { finished, NOTHING, results, useJob } from "../job";
import { useDoing, useLoad } from "../live";
import { Act, Choice, Text, Wrong } from "../parts/common";
import { OutcomeCard } from "../parts/EditCard";
import { Steps } from "../parts/Steps";
import { lines, spaced, submit, template, type Play } from "../play";
import { setQuery } from "../route";
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
  const layer = /^[0-9]+$/.test(form.layer) ? Number(form.layer) : undefined;
  const sums = useLoad(
    `statistics ${it.model}`,
    async (signal) =>
      (await statistics.listStatistics({ parent: `models/${it.model}`, pageSize: 1000 }, { signal })).statistics,
  );
  const needs = !WITHOUT.includes(it.method);
  const lacking =
    needs && layer !== undefined && sums.data !== undefined && !sums.data.some((one) => one.layer === layer);
  const doing = useDoing();
  const collecting = useDoing();
  const [collected, setCollected] = useState("");
  const preview = () =>
    doing.run(async () => {
      const main = refs.find((ref) => last(ref.name) === "main");
      const request = {
        prompt: template(it),
        subject: it.subject,
        targetNew: spaced(form.target),
        targetTrue: form.truth ? spaced(form.truth) : undefined,
      };
      const id = await submit(it, it.version, "playground", {
        case: "edit",
        value: {
          tasks: [{ request, paraphrases: lines(form.paraphrases), neighbours: lines(form.neighbours) }],
          method: it.method,
          layer,
          layerChoice:
            peak && layer === peak.layer && it.trace
              ? `the highest MLP effect at the subject's last token in job ${it.trace}`
              : "",
          // Why is said when a branch takes it: a job that names no ref has no room for it.
        },
      });
      setQuery({
        model: it.model,
        version: it.version,
        prompt: it.prompt,
        subject: it.subject,
        target: form.target,
        true: form.truth,
        paraphrases: form.paraphrases,
        neighbours: form.neighbours,
        why: form.why,
        layer,
        edit: id,
        etag: main?.etag,
        tried: undefined,
        stored: undefined,
        kept: undefined,
        before: undefined,
      });
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
      setCollected("begun");
      const job = await finished(`jobs/${id}`, new AbortController().signal, (message) =>
        setCollected(`${message.job?.counts?.unitsDone ?? 0n} of ${message.job?.counts?.units ?? 0n} pieces`),
      );
      setCollected(stateWord(job.state));
      await statistics.createStatistics({ source: { case: "job", value: job.name } });
      sums.again();
    });
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
            peak ? `layer ${peak.layer}, from this trace (${number(peak.effect)})` : "where a trace says it belongs"
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
          onChange={(method) => setQuery({ method: method === "r-rome" ? undefined : method })}
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
            There are no key statistics of layer {layer}. Some {TOKENS.toLocaleString("en-GB")} tokens drawn from the
            model itself are needed, {number((TOKENS * parameters) / 1e12)} million million multiply-adds: minutes for a
            small model on a CPU.
          </p>
          <p class="buttons">
            <Act method="JobService/CreateJob" kind="main" disabled={collecting.busy} onClick={() => void collect()}>
              Collect 25,000 tokens first
            </Act>
            {collected && <span role="status">{collected}</span>}
          </p>
          <Wrong of={collecting.problem} />
        </>
      ) : (
        <p class="buttons">
          <Act
            method="JobService/CreateJob"
            kind="main"
            disabled={doing.busy || !template(it) || !form.target.trim()}
            onClick={() => void preview()}
          >
            Preview
          </Act>
          <span class="quiet">Nothing has it yet: no version, no branch.</span>
        </p>
      )}
      <Wrong of={doing.problem} />
      {it.edit && <Preview it={it} />}
    </section>
  );
}

/** The loss falls before one's eyes; then before and after, and the gates. */
function Preview({ it }: { it: Play }) {
  const watched = useJob(it.edit);
  const found = useOutcome(it.edit);
  const steps = watched.steps.get("0") ?? [];
  return (
    <>
      <p class="quiet" role="status">
        Job{" "}
        <a class="mono" href={`/jobs/${it.edit}`}>
          {jobId(it.edit)}
        </a>
        {watched.job && ` is ${stateWord(watched.job.state)}`}
      </p>
      <Wrong of={watched.problem} />
      {!found.outcome && !found.failed && <Steps steps={steps} title="Being computed" />}
      {found.failed && <p class="wrong">{visible(found.failed)}</p>}
      {found.outcome && <OutcomeCard outcome={found.outcome} name={`playground-${jobId(it.edit)}`} />}
    </>
  );
}

/** The outcome of an edit's job, once it is there. */
export function useOutcome(id: string) {
  const watched = useJob(id);
  const over = watched.job !== undefined && (ended(watched.job.state) || (watched.job.counts?.unitsDone ?? 0n) > 0n);
  const read = useLoad(
    `outcome ${id} ${over}`,
    (signal) => (over ? results(id, {}, signal, 1) : Promise.resolve(NOTHING)),
    true,
  );
  const outcome = read.data?.items[0]?.outcome;
  return {
    outcome: outcome?.case === "edit" ? outcome.value : undefined,
    accepted: outcome?.case === "edit" && outcome.value.edit?.state !== EditState.REJECTED,
    failed: outcome?.case === "failure" ? outcome.value.message : "",
  };
}
