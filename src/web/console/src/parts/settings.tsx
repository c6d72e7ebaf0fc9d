// What a job was asked, as names and values.

import type { ComponentChildren } from "preact";

import type { Job } from "../../contract/palimpsest/v1/job_pb";
import { Compat, Corruption, Direction, Engine } from "../../contract/palimpsest/v1/trace_pb";
import {
  compatWord,
  corruptionWord,
  count,
  directionWord,
  dtypeWord,
  engineWord,
  kindWord,
  last,
  metricWord,
  number,
  setWord,
  visible,
} from "../format";
import { pathsWord } from "../sweep";

type Row = readonly [string, ComponentChildren];

/** The settings of a job, those that say something. */
export function settings(job: Job): Row[] {
  const { spec } = job;
  switch (spec.case) {
    case "trace": {
      const it = spec.value;
      const noise = it.corruption === Corruption.UNSPECIFIED || it.corruption === Corruption.NOISE;
      return [
        ["facts", count(it.factCount || BigInt(it.facts.length))],
        ["kinds", (it.kinds.length ? it.kinds.map(kindWord) : ["hidden state", "MLP", "attention"]).join(", ")],
        ["corruption", corruptionWord(it.corruption)],
        ["noise", noise ? it.noise || "s3" : ""],
        ["samples", noise ? it.samples || 10 : ""],
        ["seed", it.seed ?? 1],
        ["window", it.window || 10],
        ["engine", it.engine === Engine.UNSPECIFIED ? "exact" : engineWord(it.engine)],
        ["gradients over", it.attributionSteps > 1 ? `${it.attributionSteps} inputs` : ""],
        ["gradient drop", it.gradDrop ? "yes" : ""],
        ["verified cells", it.verify || ""],
        ["direction", it.direction === Direction.NOISING ? directionWord(it.direction) : ""],
        ["metrics", it.metrics.length ? it.metrics.map(metricWord).join(", ") : ""],
        ["paths", it.paths ? pathsWord(it.paths) : ""],
        ["severed paths as in", it.compat === Compat.PAPER_CODE ? compatWord(it.compat) : ""],
        ["number format", dtypeWord(it.dtype)],
      ];
    }
    case "generate": {
      const it = spec.value;
      return [
        ["prompts", count(it.prompts.length)],
        ["most tokens", it.maxTokens || 32],
        ["temperature", it.temperature || "0, greedy"],
        ["top k", it.topK || ""],
        ["seed", it.temperature ? it.seed : ""],
        ["number format", dtypeWord(it.dtype)],
      ];
    }
    case "stats": {
      const it = spec.value;
      return [
        ["corpus", visible(it.source)],
        ["pieces", count(it.pieces.length)],
        ["layers", it.layers.join(", ")],
        ["tokens a text", it.length || "256"],
        ["number format", dtypeWord(it.dtype)],
      ];
    }
    case "edit": {
      const it = spec.value;
      return [
        ["facts", count(it.tasks.length)],
        ["method", it.method || "r-rome"],
        [
          "layer",
          it.layer === undefined
            ? "the family's"
            : it.layerChoice
              ? `${it.layer} (${visible(it.layerChoice)})`
              : it.layer,
        ],
        ["parameters", it.parameters.map((one) => `${one.key} ${number(one.value)}`).join(", ")],
        ["contexts", it.contexts.length ? count(it.contexts.length) : `drawn, seed ${it.seed}`],
        ["branch", it.refId],
        ["why", visible(it.why)],
        ["number format", dtypeWord(it.dtype)],
      ];
    }
    case "massEdit": {
      const it = spec.value;
      return [
        ["facts", count(it.factCount || BigInt(it.tasks.length))],
        ["method", it.method || "memit"],
        ["layers", it.layers.length ? it.layers.join(", ") : "the family's"],
        ["facts a batch", it.batch ?? "all"],
        ["parameters", it.parameters.map((one) => `${one.key} ${number(one.value)}`).join(", ")],
        ["branch", it.refId || "main"],
        ["pre-flight only", it.checkOnly ? "yes" : ""],
        ["takes facts out of", it.without ? last(it.without.edit).slice(0, 12) : ""],
        ["why", visible(it.why)],
      ];
    }
    case "eval": {
      const it = spec.value;
      return [
        ["data set", setWord(it.set)],
        ["records", count(it.recordCount || BigInt(it.records.length))],
        ["against", it.editEach ? "" : it.against ? last(it.against).slice(0, 12) : "the model as imported"],
        ["edits each record", it.editEach ? it.editEach.method || "r-rome" : ""],
        ["left out as unknown", it.leftOut ? count(it.leftOut) : ""],
        ["number format", dtypeWord(it.dtype)],
      ];
    }
    default:
      return [];
  }
}
