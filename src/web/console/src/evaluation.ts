// Means of an evaluation with their 95 % intervals, as src/eval has them.

import { EvalSet, type EvalMeasure, type EvalScore } from "../contract/palimpsest/v1/eval_pb";
import type { Job, UnitResult } from "../contract/palimpsest/v1/job_pb";

const NORMAL_95 = 1.96;

export interface MeanOf {
  count: number;
  mean: number;
  half: number | undefined;
}

export function meanOver(values: readonly number[]): MeanOf {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { count: n, mean, half: n >= 2 ? (NORMAL_95 * Math.sqrt(squares / (n - 1))) / Math.sqrt(n) : undefined };
}

/** S: the harmonic mean of the means; its interval by the delta method. */
export function harmonic(records: readonly (readonly number[])[]): MeanOf {
  const width = records[0]?.length ?? 0;
  const means = Array.from(
    { length: width },
    (_, i) => records.reduce((sum, record) => sum + (record[i] ?? 0), 0) / records.length,
  );
  if (means.includes(0)) return { count: records.length, mean: 0, half: undefined };
  const mean = width / means.reduce((sum, it) => sum + 1 / it, 0);
  const effects = records.map(
    (record) => (record.reduce((sum, x, i) => sum + x / (means[i] ?? 1) ** 2, 0) * mean ** 2) / width,
  );
  return { ...meanOver(effects), mean };
}

interface Scored {
  tokens: number;
  nll: number;
}

function ofLosses(texts: readonly Scored[]): MeanOf {
  const tokens = texts.reduce((sum, it) => sum + it.tokens, 0);
  const loss = texts.reduce((sum, it) => sum + it.tokens * it.nll, 0) / tokens;
  const aText = tokens / texts.length;
  const effects = texts.map((it) => Math.exp(loss) * (1 + (it.tokens * (it.nll - loss)) / aText));
  return { ...meanOver(effects), mean: Math.exp(loss) };
}

function median(texts: readonly Scored[]): number {
  const each = texts.map((it) => Math.exp(it.nll)).sort((a, b) => a - b);
  const n = each.length;
  return n === 0 ? NaN : ((each[Math.floor((n - 1) / 2)] as number) + (each[Math.floor(n / 2)] as number)) / 2;
}

const EXACT = ["E EXACT", "P EXACT", "N EXACT"];
const CONTAINS = ["E CONTAINS", "P CONTAINS", "N CONTAINS"];
const ORDER = ["ES", "PS", "NS", "EM", "PM", "NM", "EA", "PA", "NA", ...EXACT, ...CONTAINS, "GE"];
const MEANING: Record<string, string> = {
  ES: "the new object is the likelier after the prompt",
  PS: "the same after paraphrases",
  NS: "the true object is the likelier after neighbours",
  EM: "by how much, after the prompt",
  PM: "by how much, after paraphrases",
  NM: "by how much, after neighbours",
  EA: "the answer's tokens are the likeliest",
  PA: "the same, rephrased",
  NA: "the same, of unrelated questions",
  "E EXACT": "the prompt goes on with the new object and nothing else",
  "P EXACT": "the same of paraphrases",
  "N EXACT": "neighbours go on with the true object and nothing else",
  "E CONTAINS": "what the prompt goes on with has the new object in it",
  "P CONTAINS": "the same of paraphrases",
  "N CONTAINS": "what neighbours go on with has the true object in it",
  GE: "entropy of what is generated, bits",
  S: "harmonic mean of ES, PS and NS",
  PPL: "perplexity over all tokens",
  "PPL MEDIAN": "median over texts",
};

export interface Record_ {
  n: number;
  subject: string;
  truth: string;
  target: string;
  measured: (EvalMeasure | undefined)[];
  failure: string;
}

export interface EvalLine {
  name: string;
  meaning: string;
  scale: number;
  means: MeanOf[];
  change: MeanOf | undefined;
}

export interface Evaluated {
  columns: string[];
  records: Record_[];
  metrics: string[];
  lines: EvalLine[];
  ofTexts: boolean;
}

export function valueOf(measure: EvalMeasure, metric: string): number | undefined {
  return measure.figures.find((figure) => figure.key === metric)?.value;
}

export const scaleOf = (metric: string) => (metric === "GE" || metric.startsWith("PPL") ? 1 : 100);

/** What an evaluation gave so far: the unedited version first, where there are two. */
export function evaluated(job: Job, items: readonly UnitResult[], versionWord: (name: string) => string): Evaluated {
  const spec = job.spec.case === "eval" ? job.spec.value : undefined;
  const total = Number(spec?.recordCount || BigInt(spec?.records.length ?? 0));
  const each = spec?.editEach !== undefined;
  const two = each || (spec !== undefined && spec.against !== "" && spec.against !== job.version);
  const columns = each
    ? ["before", "after"]
    : two
      ? [versionWord(spec?.against ?? ""), versionWord(job.version)]
      : [versionWord(job.version)];
  const records = new Map<number, Record_>();
  for (const item of items) {
    const unit = Number(item.unit);
    const n = total > 0 ? unit % total : unit;
    const request = spec?.records[n]?.request;
    const choice = spec?.records[n]?.choice;
    const text = choice ? `${choice.task}: ${choice.prompt.slice(-50)}` : (spec?.records[n]?.text ?? "");
    const record = records.get(n) ?? {
      n,
      subject: request?.subject ?? text.slice(0, 60),
      truth: request?.targetTrue ?? choice?.choices[choice.right] ?? "",
      target: request?.targetNew ?? "",
      measured: columns.map(() => undefined),
      failure: "",
    };
    if (item.outcome.case === "eval") {
      if (each) record.measured = [item.outcome.value.before, item.outcome.value.measured];
      // The records on the job's version come first, those on the other one after them.
      else record.measured[two ? (unit < total ? 1 : 0) : 0] = item.outcome.value.measured;
    } else if (item.outcome.case === "failure") record.failure = item.outcome.value.message;
    records.set(n, record);
  }
  const rows = [...records.values()].sort((a, b) => a.n - b.n);
  const whole = rows
    .map((row) => row.measured)
    .filter((all): all is EvalMeasure[] => all.every((it) => it !== undefined));
  // Criteria of tests and names of tasks come as they stand.
  const named = new Set(whole.flatMap((all) => all[0]?.figures.map((figure) => figure.key) ?? []));
  const others = [...named].filter((name) => !ORDER.includes(name));
  const metrics = [...ORDER.filter((name) => named.has(name)), ...others];
  const ofTexts = spec?.set === EvalSet.TEXTS;
  return {
    columns,
    records: rows,
    metrics,
    lines: ofTexts ? perplexities(whole) : means(whole, metrics, columns.length),
    ofTexts,
  };
}

function means(whole: readonly EvalMeasure[][], metrics: readonly string[], columns: number): EvalLine[] {
  const lines: EvalLine[] = metrics.map((metric) => {
    const values = whole.flatMap((all) => {
      const row = all.map((it) => valueOf(it, metric));
      return row.every((it): it is number => it !== undefined) ? [row as number[]] : [];
    });
    const column = (n: number) => meanOver(values.map((row) => row[n] as number));
    return {
      name: metric,
      meaning: MEANING[metric] ?? "",
      scale: scaleOf(metric),
      means: Array.from({ length: columns }, (_, n) => column(n)),
      change: columns > 1 ? meanOver(values.map((row) => (row[1] as number) - (row[0] as number))) : undefined,
    };
  });
  const scores = (n: number) =>
    whole.flatMap((all) => {
      const it = all[n];
      const three = it ? ["ES", "PS", "NS"].map((metric) => valueOf(it, metric)) : [];
      return three.length === 3 && three.every((value): value is number => value !== undefined)
        ? [three as number[]]
        : [];
    });
  const first = scores(0);
  if (first.length > 0) {
    const each = Array.from({ length: columns }, (_, n) => harmonic(scores(n)));
    const [before, after] = each;
    lines.push({
      name: "S",
      meaning: MEANING.S ?? "",
      scale: 100,
      means: each,
      change: before && after ? { count: after.count, mean: after.mean - before.mean, half: undefined } : undefined,
    });
  }
  return lines;
}

function perplexities(whole: readonly EvalMeasure[][]): EvalLine[] {
  const read: Scored[][] = [];
  for (const all of whole) {
    const texts = all.map((it) => it.text).filter((it): it is EvalScore => it !== undefined);
    if (texts.length === all.length)
      texts.forEach((text, n) => (read[n] ??= []).push({ tokens: text.tokens, nll: text.nll }));
  }
  if (read.length === 0) return [];
  const [before, after] = read;
  const ratio =
    before && after
      ? ofLosses(
          before.map((it, i) => ({ tokens: (after[i] as Scored).tokens, nll: (after[i] as Scored).nll - it.nll })),
        )
      : undefined;
  const medians = read.map((texts) => ({ count: texts.length, mean: median(texts), half: undefined }));
  const [mb, ma] = medians;
  return [
    { name: "PPL", meaning: MEANING.PPL ?? "", scale: 1, means: read.map(ofLosses), change: ratio },
    {
      name: "PPL MEDIAN",
      meaning: MEANING["PPL MEDIAN"] ?? "",
      scale: 1,
      means: medians,
      change: mb && ma ? { ...ma, mean: ma.mean / mb.mean } : undefined,
    },
  ];
}
