// What of a sweep is looked at, by the address, of what it asked for.

import type { Job } from "../contract/palimpsest/v1/job_pb";
import { Kind, Metric } from "../contract/palimpsest/v1/trace_pb";
import { kindName, metricWord } from "./format";
import { asked } from "./route";

/** What of a sweep is looked at, by the address. */
export interface Look {
  kind: Kind;
  metric: Metric;
  relation: string | undefined;
  correct: boolean | undefined;
  text: string;
  /** Whether maps show effects, or the metric itself. */
  effects: boolean;
  common: boolean;
}

export function look(job: Job): Look {
  const kinds = kindsOf(job);
  return {
    kind: kinds.find((kind) => kindName(kind) === asked("kind")) ?? kinds[0] ?? Kind.HIDDEN,
    metric:
      metricsOf(job).find((metric) => metricWord(metric) === asked("metric")) ??
      metricsOf(job)[0] ??
      Metric.PROBABILITY,
    relation: asked("relation") === "" ? undefined : asked("relation").slice(1),
    correct: asked("correct") === "" ? undefined : asked("correct") === "yes",
    text: asked("text"),
    effects: asked("values") === "effect",
    common: asked("scale") !== "own",
  };
}

export function kindsOf(job: Job): Kind[] {
  const kinds = job.spec.case === "trace" ? job.spec.value.kinds : [];
  return kinds.length ? kinds : [Kind.HIDDEN, Kind.MLP, Kind.ATTN];
}

/** How many facts a sweep has. */
export function factsOf(job: Job): number {
  return job.spec.case === "trace" ? Number(job.spec.value.factCount) || job.spec.value.facts.length : 0;
}

/** The metrics that a sweep shows. */
export function metricsOf(job: Job): Metric[] {
  const metrics = job.spec.case === "trace" ? job.spec.value.metrics : [];
  return metrics.length ? metrics : [Metric.PROBABILITY];
}
