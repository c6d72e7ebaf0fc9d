// What the playground's four steps share: what is asked, and the jobs that were made of it, all in the address.

import type { MessageInitShape } from "@bufbuild/protobuf";

import type { JobSchema } from "../contract/palimpsest/v1/job_pb";
import { jobs } from "./client";
import { last } from "./format";
import { requestId } from "./job";
import { asked } from "./route";

export interface Play {
  model: string;
  /** The version's digest, once it is known. */
  version: string;
  prompt: string;
  subject: string;
  /** Jobs: the completion, the trace, the statistics, the edit. */
  completion: string;
  trace: string;
  sums: string;
  edit: string;
  layer: number | undefined;
  method: string;
  target: string;
  truth: string;
  paraphrases: string;
  neighbours: string;
  why: string;
  /** The etag that `main` had when the edit was asked for. */
  etag: string;
  /** The version on the scratch branch, and the edit's name. */
  tried: string;
  stored: string;
  /** The version that `main` came from and the one that it came to. */
  before: string;
  kept: string;
}

export function play(): Play {
  const layer = asked("layer");
  return {
    model: asked("model"),
    version: asked("version"),
    prompt: asked("prompt"),
    subject: asked("subject"),
    completion: asked("completion"),
    trace: asked("trace"),
    sums: asked("sums"),
    edit: asked("edit"),
    layer: /^[0-9]+$/.test(layer) ? Number(layer) : undefined,
    method: asked("method", "r-rome"),
    target: asked("target"),
    truth: asked("true"),
    paraphrases: asked("paraphrases"),
    neighbours: asked("neighbours"),
    why: asked("why"),
    etag: asked("etag"),
    tried: asked("tried"),
    stored: asked("stored"),
    before: asked("before"),
    kept: asked("kept"),
  };
}

type Spec = NonNullable<MessageInitShape<typeof JobSchema>["spec"]>;

/** Makes a job of a version, and gives its identifier. */
export async function submit(it: Play, version: string, displayName: string, spec: Spec): Promise<string> {
  const job = { model: `models/${it.model}`, version: `models/${it.model}/versions/${version}`, displayName, spec };
  const answer = await jobs.createJob({ requestId: requestId(), job });
  return last(answer.job?.name ?? "");
}

/** The template of an edit: the prompt with `{}` in the subject's place. */
export function template(it: Play): string {
  const at = it.prompt.indexOf(it.subject);
  return it.subject && at >= 0 ? `${it.prompt.slice(0, at)}{}${it.prompt.slice(at + it.subject.length)}` : "";
}

/** An answer with the space before it that tokens have. */
export const spaced = (text: string) => (text && !/^\s/.test(text) ? ` ${text}` : text);

export const lines = (text: string) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
