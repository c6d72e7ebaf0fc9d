// A figure as `palimpsest job results --svg` draws it, in the manner of the paper: for a document, where those of the
// page are for looking at.

import { Metric } from "../../contract/palimpsest/v1/trace_pb";
import { drawn } from "../client";
import { save } from "../download";
import { useDoing } from "../live";
import { Wrong } from "./common";

export function TakeFigure({
  path,
  file,
  metric,
  relation,
  children,
}: {
  /** Below `/figures/`. */
  path: string;
  /** The file's name without its end. */
  file: string;
  metric: Metric;
  relation?: string | undefined;
  /** What the button says. */
  children: string;
}) {
  const doing = useDoing();
  const run = async () => {
    const svg = await drawn(path, { metric: Metric[metric || Metric.PROBABILITY].toLowerCase(), relation });
    save(`${file}.svg`, "image/svg+xml", svg);
  };
  return (
    <>
      <button
        type="button"
        disabled={doing.busy}
        onClick={() => void doing.run(run)}
        title="As 'palimpsest job results --svg' draws it"
      >
        {children}
      </button>
      <Wrong of={doing.problem} />
    </>
  );
}
