// What computed some results. Bytes are promised equal where it is the same.

import type { FingerprintCount } from "../../contract/palimpsest/v1/job_pb";
import { count, fingerprintWords, some } from "../format";

export function Fingerprints({ of }: { of: readonly FingerprintCount[] }) {
  return (
    <ul>
      {of.map((it) => (
        <li>
          {fingerprintWords(it.fingerprint)}: {some(it.results, "result")}
        </li>
      ))}
    </ul>
  );
}

/** What a comparison needs to know of what computed its sides; nothing where all of it is the same. */
export function Computed({ left, right }: { left: readonly FingerprintCount[]; right: readonly FingerprintCount[] }) {
  const names = (of: readonly FingerprintCount[]) => of.map((it) => fingerprintWords(it.fingerprint)).sort();
  if (left.length === 0 || right.length === 0 || names(left).join("\n") === names(right).join("\n")) return null;
  const revisions = new Set([...left, ...right].map((it) => it.fingerprint?.engineRevision));
  return (
    <div class="warning" id="computed">
      <p>
        The two were not computed alike, and bytes are promised equal only where they are:{" "}
        {revisions.size > 1
          ? "between revisions of the engine more than last digits may differ."
          : "last digits may differ for that alone."}
      </p>
      <p>Left ({count(left.length)}):</p>
      <Fingerprints of={left} />
      <p>Right ({count(right.length)}):</p>
      <Fingerprints of={right} />
    </div>
  );
}
