// The models that are here, and how another one comes.

import { models } from "../client";
import { ago, brief, count, last, moment } from "../format";
import { useLoad } from "../live";
import { Heading, Waiting } from "../parts/common";
import { CopyAs } from "../parts/CopyAs";
import { Table } from "../parts/Table";
import { big } from "../format";

export function Models() {
  const read = useLoad("models", (signal) => models.listModels({ pageSize: 1000 }, { signal }));
  return (
    <>
      <div class="title">
        <Heading title="Models">Models</Heading>
        <CopyAs command="palimpsest model list" python="p.models()" json={() => read.data?.models ?? []} />
      </div>
      <Waiting of={read} what="models" />
      {read.data && read.data.models.length > 0 && (
        <Table
          label="Models"
          name="models"
          rows={read.data.models}
          rowKey={(model) => model.name}
          file="models"
          columns={[
            {
              id: "model",
              head: "Model",
              value: (model) => last(model.name),
              cell: (model) => <a href={`/${model.name}`}>{last(model.name)}</a>,
            },
            { id: "family", head: "Family", value: (model) => model.family },
            {
              id: "parameters",
              head: "Parameters",
              value: (model) => model.shape?.parameters,
              cell: (model) => big(Number(model.shape?.parameters ?? 0n)),
              right: true,
            },
            { id: "layers", head: "Layers", value: (model) => model.shape?.layers, right: true },
            { id: "width", head: "Width", value: (model) => model.shape?.width, right: true },
            { id: "heads", head: "Heads", value: (model) => model.shape?.heads, right: true },
            {
              id: "digest",
              head: "Digest",
              value: (model) => model.digest,
              cell: (model) => <span class="mono">{brief(model.digest)}</span>,
            },
            {
              id: "imported",
              head: "Imported",
              value: (model) => moment(model.createTime),
              cell: (model) => <time title={moment(model.createTime)}>{ago(model.createTime)}</time>,
            },
            {
              id: "history",
              head: "",
              value: () => undefined,
              cell: (model) => <a href={`/${model.name}/history`}>history</a>,
            },
          ]}
          foot={
            <span class="quiet">
              {count(read.data.models.length)}
              {read.data.nextPageToken ? ", and more" : ""}
            </span>
          }
        />
      )}
      <section>
        <h2>Import another one</h2>
        <p>An import sends files from where they are; a browser has not got them. As a command, or from Python:</p>
        <pre
          tabIndex={0}
        >{`palimpsest model import hf:openai-community/gpt2      # or a folder, or a .gguf file\n\np.import_model("hf:openai-community/gpt2")`}</pre>
      </section>
    </>
  );
}
