// What the playground's four steps share: what is asked, and the jobs that were made of it, all in the address.

import type { MessageInitShape } from "@bufbuild/protobuf";

import type { JobSchema } from "../contract/palimpsest/v1/job_pb";
import { jobs } from "./client";
import { last } from "./format";
import { requestId } from "./job";
import { asked, place, setQuery } from "./route";
import { placed } from "./subject";

export interface Play {
  model: string;
  /** The version's digest, once it is known. */
  version: string;
  prompt: string;
  subject: string;
  /** Where the subject begins in the prompt, in signs of JavaScript; -1 where it does not occur. */
  at: number;
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

/** The page's texts, by their names in the address. */
const TEXTS = ["prompt", "subject", "target", "true", "paraphrases", "neighbours", "why"];
/** Most of them that an address takes, encoded: of a longer one servers refuse the head. */
const MOST = 4000;
/** Long texts by the short name that the address has of them; what the browser's own store has no room for, too. */
const long = new Map<string, Record<string, string>>();
const STORE = "palimpsest.texts.";

function kept(name: string): Record<string, string> | undefined {
  const known = long.get(name);
  if (known || !name) return known;
  try {
    const found: unknown = JSON.parse(sessionStorage.getItem(STORE + name) ?? "null");
    if (!found || typeof found !== "object") return undefined;
    const own = found as Record<string, unknown>;
    const texts = Object.fromEntries(TEXTS.map((text) => [text, String(own[text] ?? "")]));
    long.set(name, texts);
    return texts;
  } catch {
    return undefined;
  }
}

const textOf = (name: string) => asked(name) || (kept(asked("texts"))?.[name] ?? "");

/** How the address has the page's texts. */
export function texts(): "carried" | "kept" | "lost" {
  return asked("texts") ? (kept(asked("texts")) ? "kept" : "lost") : "carried";
}

/** Changes the page's address; long texts stay in this tab. On another page nothing is changed. */
export function setPlay(change: Record<string, string | number | undefined>): void {
  if (!place.value.path.startsWith("/playground")) return;
  const text = (name: string) => String((name in change ? change[name] : textOf(name)) ?? "");
  const all = Object.fromEntries(TEXTS.map((name) => [name, text(name)]));
  if (new URLSearchParams(all).toString().length <= MOST) return setQuery({ ...change, ...all, texts: undefined });
  const name = asked("texts") || requestId().slice(0, 8);
  long.set(name, all);
  try {
    sessionStorage.setItem(STORE + name, JSON.stringify(all));
  } catch {
    // It has no room: until the tab is loaded anew they are here.
  }
  setQuery({ ...change, ...Object.fromEntries(TEXTS.map((text) => [text, undefined])), texts: name });
}

/** What belongs to one edit, for when there is another. */
export const AFRESH = {
  edit: undefined,
  tried: undefined,
  stored: undefined,
  said: undefined,
  kept: undefined,
  before: undefined,
};

/** The number of a layer that somebody wrote. */
export const layerOf = (text: string) => (/^[0-9]{1,6}$/.test(text) ? Number(text) : undefined);

export function play(): Play {
  const [prompt, subject] = [textOf("prompt"), textOf("subject")];
  return {
    model: asked("model"),
    version: asked("version"),
    prompt,
    subject,
    at: placed(prompt, subject, Number(asked("at"))),
    completion: asked("completion"),
    trace: asked("trace"),
    sums: asked("sums"),
    edit: asked("edit"),
    layer: layerOf(asked("layer")),
    method: asked("method", "r-rome"),
    target: textOf("target"),
    truth: textOf("true"),
    paraphrases: textOf("paraphrases"),
    neighbours: textOf("neighbours"),
    why: textOf("why"),
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

/** An answer with the space before it that tokens have. */
export const spaced = (text: string) => (text && !/^\s/.test(text) ? ` ${text}` : text);

export const lines = (text: string) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
