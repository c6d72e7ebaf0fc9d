// The optimisation of an edit, step by step; also while it is computed.

import { Curves } from "./Curves";

export interface Step {
  loss: number;
  probability: number;
  /** How far what is said of the subject alone has moved. */
  drift?: number;
  kl?: number;
}

export function Steps({ steps, title, file = "loss" }: { steps: readonly Step[]; title: string; file?: string }) {
  if (steps.length === 0) return null;
  const drift = steps.map((step) => step.drift ?? step.kl ?? NaN);
  return (
    <Curves
      title={title}
      xLabel="step"
      yLabel="loss, drift (nats); probability"
      xName="step"
      height={180}
      fromZero
      file={file}
      series={[
        { name: "loss", mean: steps.map((step) => step.loss) },
        { name: "p(new)", mean: steps.map((step) => step.probability) },
        ...(drift.some((value) => value !== 0 && Number.isFinite(value)) ? [{ name: "drift", mean: drift }] : []),
      ]}
    />
  );
}
