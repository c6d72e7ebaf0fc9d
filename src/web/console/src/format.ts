// How numbers, times, names and states are written: as the command line writes them.

import type { Timestamp } from "@bufbuild/protobuf/wkt";

import {
  type Fingerprint,
  type Job,
  JobKind,
  JobState,
  TaskState,
  FailureClass,
} from "../contract/palimpsest/v1/job_pb";
import { EvalSet } from "../contract/palimpsest/v1/eval_pb";
import {
  Compat,
  Corruption,
  Direction,
  Dtype,
  Engine,
  HeadInput,
  Kind,
  Metric,
  TokenRole,
} from "../contract/palimpsest/v1/trace_pb";
import { VersionKind } from "../contract/palimpsest/v1/version_pb";

/** Three significant places, in scientific notation where a plain fraction would be all zeros. */
export function number(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6)
    return value
      .toExponential(2)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  if (size < 0.1) return value.toFixed(4);
  if (size < 100) return value.toFixed(3);
  return value.toFixed(0);
}

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

/** A count, in groups of three digits. */
export function count(value: number | bigint): string {
  return whole.format(value);
}

/** `1 fact`, `12 facts`. */
export function some(value: number | bigint, what: string): string {
  return `${count(value)} ${what}${Number(value) === 1 ? "" : "s"}`;
}

export function bytes(value: number | bigint): string {
  let left = Number(value);
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (left < 1000 || unit === "TB") return `${left < 10 && unit !== "B" ? left.toFixed(1) : left.toFixed(0)} ${unit}`;
    left /= 1000;
  }
  return "";
}

/** A number with a prefix: `1.2 G`. */
export function big(value: number): string {
  let left = value;
  for (const prefix of ["", "k", "M", "G", "T", "P"]) {
    if (Math.abs(left) < 1000)
      return `${left < 10 && prefix ? left.toFixed(1) : left.toFixed(0)}${prefix ? ` ${prefix}` : ""}`;
    left /= 1000;
  }
  return value.toExponential(1);
}

export function date(time: Timestamp | undefined): Date | undefined {
  return time ? new Date(Number(time.seconds) * 1000 + time.nanos / 1e6) : undefined;
}

const two = (n: number) => String(n).padStart(2, "0");

/** A moment as `2026-11-29 17:51:53`, of the visitor's own clock. */
export function moment(time: Timestamp | undefined): string {
  const it = date(time);
  if (!it) return "";
  return `${it.getFullYear()}-${two(it.getMonth() + 1)}-${two(it.getDate())} ${two(it.getHours())}:${two(it.getMinutes())}:${two(it.getSeconds())}`;
}

/** How long, in the two largest units: `3 h 12 min`. */
export function lasting(seconds: number): string {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  // Rounded first: else there is a minute of 60 seconds.
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return `${m} min ${s % 60} s`;
  const h = Math.floor(m / 60);
  if (h < 48) return `${h} h ${m % 60} min`;
  return `${Math.floor(h / 24)} days ${h % 24} h`;
}

/** How long ago, by the visitor's clock, in one unit: the moment itself is in a title beside it. */
export function ago(time: Timestamp | undefined): string {
  const it = date(time);
  if (!it) return "";
  const seconds = (Date.now() - it.getTime()) / 1000;
  if (seconds < 5) return "just now";
  const [minutes, hours, days] = [seconds / 60, seconds / 3600, seconds / 86_400];
  if (minutes < 1) return `${Math.round(seconds)} s ago`;
  if (hours < 1) return `${Math.floor(minutes)} min ago`;
  return hours < 48 ? `${Math.floor(hours)} h ago` : `${Math.floor(days)} days ago`;
}

export function between(from: Timestamp | undefined, until: Timestamp | undefined): string {
  const a = date(from);
  const b = date(until) ?? new Date();
  return a ? lasting((b.getTime() - a.getTime()) / 1000) : "";
}

/** The last part of a resource name. */
export function last(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}

/** The part of a resource name after a collection: `models/gpt2/refs/main`, "models" gives `gpt2`. */
export function part(name: string, collection: string): string {
  const parts = name.split("/");
  return parts[parts.indexOf(collection) + 1] ?? "";
}

/** A digest's or an identifier's first digits. */
export function brief(name: string, digits = 12): string {
  return last(name).slice(0, digits);
}

/** A job's identifier is told by its end, as the command line takes it. */
export function jobId(name: string): string {
  return last(name).slice(-8);
}

/** Texts of others, with what does not show made visible. */
export function visible(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, (sign) =>
    sign === "\n"
      ? "\\n"
      : sign === "\t"
        ? "\\t"
        : sign === "\r"
          ? "\\r"
          : `\\u{${(sign.codePointAt(0) ?? 0).toString(16)}}`,
  );
}

/** A token's text; spaces at its ends are shown. */
export function token(text: string): string {
  return visible(text).replace(/^ +| +$/g, (spaces) => "\u2423".repeat(spaces.length)) || "(empty)";
}

const words = (of: Record<string | number, string | number>, value: number, cut: string): string => {
  const name = of[value];
  return typeof name === "string" ? name.toLowerCase().replace(cut, "").replaceAll("_", " ") : String(value);
};

export const stateWord = (state: JobState) => words(JobState, state, "");
export const taskWord = (state: TaskState) => words(TaskState, state, "");
export const classWord = (it: FailureClass) => words(FailureClass, it, "");
export const versionWord = (it: VersionKind) => words(VersionKind, it, "");
export const dtypeWord = (it: Dtype) => (it === Dtype.UNSPECIFIED ? "f32" : words(Dtype, it, ""));
export const engineWord = (it: Engine) => (it === Engine.UNSPECIFIED ? "exact" : words(Engine, it, ""));
export const directionWord = (it: Direction) => (it === Direction.NOISING ? "noising" : "denoising");
export const corruptionWord = (it: Corruption) => (it === Corruption.UNSPECIFIED ? "noise" : words(Corruption, it, ""));
export const compatWord = (it: Compat) => (it === Compat.UNSPECIFIED ? "none" : words(Compat, it, ""));
export const inputWord = (it: HeadInput) => words(HeadInput, it, "");
export const setWord = (it: EvalSet) =>
  ({
    [EvalSet.UNSPECIFIED]: "",
    [EvalSet.COUNTERFACT]: "CounterFact",
    [EvalSet.ZSRE]: "zsRE",
    [EvalSet.TEXTS]: "texts",
    [EvalSet.TESTS]: "tests of what follows",
    [EvalSet.CHOICES]: "choices",
  })[it];

/** A kind's name as the command line has it: `mlp`, `head_q_all`. */
export function kindName(kind: Kind): string {
  return (Kind[kind] ?? "").toLowerCase();
}

/** What decides the last bits of a number, all of it. */
export function fingerprintWords(it: Fingerprint | undefined): string {
  if (!it) return "";
  const batch = it.batchMemory ? `, batches of ${bytes(it.batchMemory)}` : "";
  return `${visible(it.device)}, ${it.dtype || "no number format"}, ${some(it.threads, "thread")}, libtorch ${it.libtorch || "none"}, engine ${it.engineRevision}${batch}`;
}

const KINDS: Partial<Record<Kind, string>> = {
  [Kind.HIDDEN]: "hidden state",
  [Kind.MLP]: "MLP",
  [Kind.ATTN]: "attention",
  [Kind.HIDDEN_SEVERED_MLP]: "hidden state, MLPs severed",
  [Kind.HIDDEN_SEVERED_ATTN]: "hidden state, attention severed",
  [Kind.RESID_PRE]: "residual before a block",
  [Kind.RESID_MID]: "residual after attention",
  [Kind.HEAD]: "head",
  [Kind.HEAD_ALL]: "head, every token",
  [Kind.HEAD_Q]: "query",
  [Kind.HEAD_Q_ALL]: "query, every token",
  [Kind.HEAD_K]: "key",
  [Kind.HEAD_K_ALL]: "key, every token",
  [Kind.HEAD_V]: "value",
  [Kind.HEAD_V_ALL]: "value, every token",
  [Kind.HEAD_PATTERN]: "pattern",
  [Kind.HEAD_PATTERN_ALL]: "pattern, every token",
  [Kind.NEURON]: "strongest neuron",
};

export function kindWord(kind: Kind): string {
  return KINDS[kind] ?? kindName(kind);
}

export function metricWord(metric: Metric): string {
  return {
    [Metric.UNSPECIFIED]: "probability",
    [Metric.PROBABILITY]: "probability",
    [Metric.LOG_PROBABILITY]: "log-probability",
    [Metric.LOGIT_DIFFERENCE]: "logit difference",
    [Metric.KL]: "KL divergence",
    [Metric.RANK]: "rank",
  }[metric];
}

export function roleWord(role: TokenRole): string {
  return {
    [TokenRole.UNSPECIFIED]: "",
    [TokenRole.FIRST_SUBJECT]: "first subject token",
    [TokenRole.MIDDLE_SUBJECT]: "middle subject tokens",
    [TokenRole.LAST_SUBJECT]: "last subject token",
    [TokenRole.FIRST_SUBSEQUENT]: "first subsequent token",
    [TokenRole.FURTHER]: "further tokens",
    [TokenRole.LAST]: "last token",
    [TokenRole.EVERY]: "every token",
  }[role];
}

/** What kind of work a job is. */
export function work(job: Job): { word: string; kind: JobKind } {
  switch (job.spec.case) {
    case "trace":
      return { word: "trace", kind: JobKind.TRACE };
    case "generate":
      return { word: "generate", kind: JobKind.GENERATE };
    case "stats":
      return { word: "statistics", kind: JobKind.STATS };
    case "edit":
      return { word: "edit", kind: JobKind.EDIT };
    case "eval":
      return { word: "evaluate", kind: JobKind.EVAL };
    case "massEdit":
      return { word: "mass edit", kind: JobKind.MASS_EDIT };
    default:
      return { word: "unknown", kind: JobKind.UNSPECIFIED };
  }
}

export const ended = (state: JobState) => [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED].includes(state);

/** Bytes in hexadecimal. */
export function hex(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
