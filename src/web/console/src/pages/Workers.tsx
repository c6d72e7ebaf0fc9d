// The workers: what they are, what they do, and whether they go on.

import type { Worker } from "../../contract/palimpsest/v1/worker_pb";
import { workers } from "../client";
import { big, bytes, count, date, last, lasting, moment, part, some } from "../format";
import { useClock, usePoll } from "../live";
import { Act, Heading, Quiet, Waiting } from "../parts/common";
import { ask } from "../parts/Confirm";
import { CopyAs } from "../parts/CopyAs";
import { Table } from "../parts/Table";
import { asked, setQuery } from "../route";

function standing(worker: Worker): string {
  if (worker.excluded) return "excluded";
  if (!worker.connected) return "away";
  if (worker.draining) return "draining";
  return worker.leases.length > 0 ? "busy" : "idle";
}

export function Workers() {
  const read = usePoll("workers", 2000, (signal) => workers.listWorkers({ pageSize: 1000 }, { signal }));
  const time = useClock();
  const wanted = asked("worker");
  const all = read.data?.workers ?? [];
  const shown = wanted ? all.filter((worker) => last(worker.name) === wanted) : all;
  const left = (worker: Worker) => {
    const until = date(worker.validUntil);
    return until ? Math.max(0, (until.getTime() - time) / 1000) : undefined;
  };
  const drain = (worker: Worker) =>
    ask({
      title: `Drain ${last(worker.name)}?`,
      body: <p>It finishes or hands back what it has, and is given nothing more.</p>,
      action: "Drain it",
      method: "WorkerService/DrainWorker",
      run: async () => {
        await workers.drainWorker({ name: worker.name });
        read.again();
      },
    });
  const readmit = (worker: Worker) =>
    ask({
      title: `Readmit ${last(worker.name)}?`,
      body: <p>It was excluded: {worker.excluded} Leases are given to it again.</p>,
      action: "Readmit it",
      method: "WorkerService/ReadmitWorker",
      run: async () => {
        await workers.readmitWorker({ name: worker.name });
        read.again();
      },
    });
  return (
    <>
      <div class="title">
        <Heading title="Workers">Workers</Heading>
        <CopyAs command="palimpsest worker list" python="p.workers()" json={() => all} />
      </div>
      <Waiting of={read} what="workers" />
      <Quiet method="WorkerService/DrainWorker" what="drain or readmit workers" />
      {wanted && (
        <p>
          Only <code>{wanted}</code>.{" "}
          <button type="button" onClick={() => setQuery({ worker: undefined })}>
            All of them
          </button>
        </p>
      )}
      {read.data && shown.length === 0 && (
        <>
          <p>No worker is here. Each runs where a model fits:</p>
          <pre tabIndex={0}>
            palimpsest worker --coordinator {location.protocol === "https:" ? "https" : "http"}://{location.hostname}
            :7461
          </pre>
        </>
      )}
      {shown.length > 0 && (
        <Table
          label="Workers"
          name="workers"
          rows={shown}
          rowKey={(worker) => worker.name}
          file="workers"
          columns={[
            {
              id: "worker",
              head: "Worker",
              value: (worker) => last(worker.name),
              cell: (worker) => (
                <>
                  <span class="mono">{last(worker.name)}</span>
                  {worker.capabilities?.host && (
                    <span class="second">
                      {worker.capabilities.host}, process {worker.capabilities.pid}
                    </span>
                  )}
                </>
              ),
            },
            {
              id: "state",
              head: "Does",
              value: standing,
              cell: (worker) => (
                <>
                  <span class={`state ${standing(worker)}`}>{standing(worker)}</span>
                  {worker.excluded && <span class="second">{worker.excluded}</span>}
                </>
              ),
            },
            {
              id: "device",
              head: "Device",
              value: (worker) => worker.capabilities?.device,
              cell: (worker) => (
                <>
                  {worker.capabilities?.device}
                  <span class="second">{some(worker.capabilities?.threads ?? 0, "thread")}</span>
                </>
              ),
            },
            {
              id: "memory",
              head: "Memory",
              value: (worker) => worker.capabilities?.memory,
              cell: (worker) =>
                `${bytes(worker.capabilities?.memory ?? 0n)}${worker.capabilities?.deviceMemory ? `, device ${bytes(worker.capabilities.deviceMemory)}` : ""}`,
              right: true,
            },
            {
              id: "models",
              head: "Models loaded",
              value: (worker) => worker.capabilities?.loadedModels.map(last).join(", "),
            },
            {
              id: "leases",
              head: "Leases",
              value: (worker) => worker.leases.length,
              cell: (worker) => (
                <ul class="plain-list">
                  {worker.leases.map((lease) => (
                    <li>
                      <a class="mono" href={`/jobs/${part(lease.lease?.task ?? "", "jobs")}`}>
                        {part(lease.lease?.task ?? "", "jobs").slice(-8)}
                      </a>{" "}
                      task {last(lease.lease?.task ?? "")}: {count(lease.steps)} steps, {big(lease.stepsPerSecond)}/s
                    </li>
                  ))}
                </ul>
              ),
            },
            {
              id: "rate",
              head: "Measured",
              value: (worker) => worker.measuredRate,
              cell: (worker) => (worker.measuredRate ? `${big(worker.measuredRate)} mul-adds/s` : ""),
              right: true,
            },
            {
              id: "units",
              head: "Units",
              value: (worker) => Number(worker.unitsCommitted),
              cell: (worker) => count(worker.unitsCommitted),
              right: true,
            },
            {
              id: "since",
              head: "Since",
              value: (worker) => moment(worker.connectTime),
              cell: (worker) => <time>{moment(worker.connectTime).slice(0, 16)}</time>,
            },
            {
              id: "until",
              head: "Valid for",
              value: left,
              cell: (worker) => {
                const it = left(worker);
                return it === undefined ? "" : lasting(it);
              },
            },
            { id: "version", head: "Program", value: (worker) => worker.capabilities?.version },
            {
              id: "act",
              head: "",
              value: () => undefined,
              cell: (worker) => (
                <>
                  {worker.connected && !worker.draining && (
                    <Act
                      method="WorkerService/DrainWorker"
                      label={`Drain ${last(worker.name)}`}
                      onClick={() => drain(worker)}
                    >
                      Drain
                    </Act>
                  )}
                  {worker.excluded && (
                    <Act
                      method="WorkerService/ReadmitWorker"
                      label={`Readmit ${last(worker.name)}`}
                      onClick={() => readmit(worker)}
                    >
                      Readmit
                    </Act>
                  )}
                </>
              ),
            },
          ]}
          foot={
            <span class="quiet">
              {count(shown.length)}
              {read.data?.nextPageToken ? ", and more" : ""}
            </span>
          }
        />
      )}
    </>
  );
}
