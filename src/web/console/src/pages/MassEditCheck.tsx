// What was to be expected of a batch of a mass edit, found before any of its targets.

import type { MassEditChecked } from "../../contract/palimpsest/v1/mass_edit_pb";
import { count, number, some, visible } from "../format";
import { figureOf, Overwritten } from "../parts/EditCard";
import { Table } from "../parts/Table";

/** What was to be expected of a batch, before any of its targets. */
export function Checked({ it }: { it: MassEditChecked }) {
  const layers = it.layers.map((layer) => layer.layer);
  return (
    <section>
      <h2>Batch {it.batch + 1}</h2>
      <p>
        {some(it.facts, "fact")}, {some(it.keys, "key")}; {some(it.nearCount, "pair")} of keys nearly one;{" "}
        {some(it.sharedCount, "key")} shared by several facts; {some(it.firstTokenCount, "subject")} that end at the
        text's first token; {some(it.overwrittenCount, "earlier fact")} overwritten
        {it.leftOut > 0n ? `; ${some(it.leftOut, "key")} that could not be read` : ""}.
      </p>
      {it.warnings.length > 0 && (
        <ul class="warning">
          {it.warnings.map((warning) => (
            <li>{visible(warning)}</li>
          ))}
        </ul>
      )}
      <Table
        label="Layers"
        name="checked-layers"
        fixed
        rows={it.layers}
        rowKey={(layer) => String(layer.layer)}
        columns={[
          { id: "layer", head: "Layer", value: (layer) => layer.layer, right: true },
          {
            id: "tokens",
            head: "Tokens of its statistics",
            value: (layer) => layer.tokens,
            cell: (layer) => count(layer.tokens),
            right: true,
          },
          ...["leverage.mean", "leverage.least", "share.mean", "share.least"].map((key) => ({
            id: key,
            head: key.replace(".", ", "),
            value: (layer: MassEditChecked["layers"][0]) => figureOf(layer.figures, key),
            cell: (layer: MassEditChecked["layers"][0]) =>
              number(figureOf(layer.figures, key) ?? NaN).replace("NaN", ""),
            right: true,
          })),
        ]}
      />
      {it.worst.length > 0 && (
        <>
          <h3>Keys that come least near their targets</h3>
          <Table
            label="Worst keys"
            name="worst"
            fixed
            rows={it.worst}
            rowKey={(key) => key.fact}
            columns={[
              { id: "fact", head: "Fact", value: (key) => visible(key.fact) },
              { id: "facts", head: "Facts", value: (key) => Number(key.facts), right: true },
              ...layers.map((layer, i) => ({
                id: `share ${layer}`,
                head: `share, layer ${layer}`,
                value: (key: MassEditChecked["worst"][0]) => key.share[i],
                cell: (key: MassEditChecked["worst"][0]) => number(key.share[i] ?? NaN),
                right: true,
              })),
            ]}
          />
        </>
      )}
      {it.near.length > 0 && (
        <>
          <h3>Keys that are nearly one</h3>
          <Table
            label="Near keys"
            name="near"
            fixed
            rows={it.near}
            rowKey={(pair) => `${pair.one} ${pair.other}`}
            columns={[
              { id: "one", head: "One", value: (pair) => visible(pair.one) },
              { id: "other", head: "The other", value: (pair) => visible(pair.other) },
              { id: "layer", head: "Layer", value: (pair) => pair.layer, right: true },
              {
                id: "cosine",
                head: "Cosine",
                value: (pair) => pair.cosine,
                cell: (pair) => number(pair.cosine),
                right: true,
              },
            ]}
          />
        </>
      )}
      {it.shared.length > 0 && (
        <>
          <h3>Facts that share a key</h3>
          <ul>
            {it.shared.map((shared) => (
              <li>
                {visible(shared.text)}: {shared.facts.map(visible).join("; ")}
              </li>
            ))}
          </ul>
        </>
      )}
      {it.firstTokens.length > 0 && (
        <p>Subjects that end at the text's first token: {it.firstTokens.map(visible).join("; ")}</p>
      )}
      <Overwritten rows={it.overwritten} all={it.overwrittenCount} />
    </section>
  );
}
