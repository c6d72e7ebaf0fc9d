// The audit log, with this browser as its witness.

import { useEffect, useRef, useState } from "preact/hooks";

import { AuditOutcome, type AuditCheckpoint, type AuditLeaf } from "../../contract/palimpsest/v1/audit_pb";
import { audit, isHash, problem, type Problem } from "../client";
import { audited } from "../copied";
import { save } from "../download";
import { ago, brief, count, hex, last, moment, visible } from "../format";
import { useDoing, useLoad, usePoll, useStream } from "../live";
import { Act, Choice, Heading, Text, Waiting, Wrong } from "../parts/common";
import { CopyAs } from "../parts/CopyAs";
import { Table } from "../parts/Table";
import { asked, setQuery } from "../route";
import { checkGrowth, keep, keptOf, proveEntry, proveRun, type Proved, type RunProved, type Verdict } from "../witness";

/** Newest entries that the page begins with. */
const NEWEST = 200n;

export function Audit() {
  const read = usePoll(
    "checkpoint",
    10_000,
    async (signal) => (await audit.getAuditCheckpoint({}, { signal })).checkpoint,
  );
  const filtered = ["principal", "action", "resource", "outcome", "from", "until"].some((name) => asked(name) !== "");
  return (
    <>
      <div class="title">
        <Heading title="Audit">Audit log</Heading>
        <CopyAs
          {...audited(asked)}
          json={() => read.data}
        />
      </div>
      <Wrong of={read.problem} />
      {read.data && <Witness checkpoint={read.data} />}
      <Filters />
      {filtered ? <Found /> : read.data && <Newest size={read.data.size} again={read.again} />}
    </>
  );
}

/** Whether the log still goes on from what this browser saw. */
function Witness({ checkpoint }: { checkpoint: AuditCheckpoint }) {
  const [verdict, setVerdict] = useState<Verdict | undefined>(undefined);
  const doing = useDoing();
  const [whole, setWhole] = useState("");
  const key = `${checkpoint.verifierKey} ${checkpoint.size} ${hex(checkpoint.root)}`;
  useEffect(() => {
    let over = false;
    void checkGrowth(checkpoint).then((found) => {
      // What was red once stays red on this page: a later answer does not unsay it.
      if (!over) setVerdict((was) => (was?.colour === "red" ? was : found));
    });
    return () => {
      over = true;
    };
  }, [key]);
  const verify = () =>
    doing.run(async () => {
      const answer = await audit.verifyAuditLog({});
      setWhole(
        answer.problems.length === 0
          ? `The server read all ${count(answer.entries)} entries and finds nothing wrong.`
          : `The server finds: ${answer.problems.join("; ")}`,
      );
    });
  const kept = keptOf(checkpoint.verifierKey);
  return (
    <section class={`witness ${verdict?.colour ?? "grey"}`} aria-label="Witness">
      <p class="large" id="witness" role="status">
        <span class="badge" aria-hidden="true">
          {verdict?.colour === "green" ? "✓" : verdict?.colour === "red" ? "✗" : "…"}
        </span>{" "}
        {verdict ? verdict.said : "Checking…"}
      </p>
      {verdict?.todo && <p>{verdict.todo}</p>}
      <p class="quiet">
        {count(checkpoint.size)} entries; root <span class="mono">{hex(checkpoint.root).slice(0, 16)}…</span>; signed by{" "}
        <span class="mono break">{checkpoint.verifierKey}</span>
      </p>
      <p class="buttons">
        <button type="button" onClick={() => save("kept", "text/plain", checkpoint.note)}>
          Keep
        </button>
        <Act method="AuditService/VerifyAuditLog" disabled={doing.busy} onClick={() => void verify()}>
          Have the server verify it all
        </Act>
        {kept && (
          <span class="quiet">
            Kept here: {kept.size} entries, since {kept.since.slice(0, 10)}.
          </span>
        )}
        {verdict?.strange && (
          <button
            type="button"
            onClick={() => {
              keep(checkpoint);
              setVerdict(undefined);
              void checkGrowth(checkpoint).then(setVerdict);
            }}
          >
            It is another store: know it as well
          </button>
        )}
      </p>
      {whole && <p role="status">{whole}</p>}
      <Wrong of={doing.problem} />
    </section>
  );
}

function Filters() {
  return (
    <form class="filters" onSubmit={(event) => event.preventDefault()}>
      <Text label="Who" value={asked("principal")} onChange={(principal) => setQuery({ principal })} />
      <Text label="What" value={asked("action")} onChange={(action) => setQuery({ action })} placeholder="refs" />
      <Text
        label="To what"
        value={asked("resource")}
        onChange={(resource) => setQuery({ resource })}
        placeholder="models/gpt2"
      />
      <Choice
        label="Outcome"
        value={asked("outcome")}
        options={[
          ["", "any"],
          ["ok", "done"],
          ["refused", "refused"],
        ]}
        onChange={(outcome) => setQuery({ outcome })}
      />
      <label class="field">
        <span>From</span>
        <input type="date" value={asked("from")} onChange={(event) => setQuery({ from: event.currentTarget.value })} />
      </label>
      <label class="field">
        <span>Until</span>
        <input
          type="date"
          value={asked("until")}
          onChange={(event) => setQuery({ until: event.currentTarget.value })}
        />
      </label>
    </form>
  );
}

/** The newest entries and those that come, proved together. */
function Newest({ size, again }: { size: bigint; again: () => void }) {
  const begin = useRef(size > NEWEST ? size - NEWEST : 0n);
  const at = useRef(begin.current);
  const [leaves, setLeaves] = useState<AuditLeaf[]>([]);
  const [proved, setProved] = useState<RunProved | undefined>(undefined);
  const [wrong, setWrong] = useState<Problem | undefined>(undefined);
  const broken = useStream(
    "audit",
    (signal) => audit.watchAuditEntries({ afterSequence: at.current }, { signal }),
    (message) => {
      const newest = message.leaves.at(-1)?.entry?.sequence;
      if (newest === undefined) return;
      at.current = newest;
      setLeaves((was) => [...was, ...message.leaves]);
      again();
    },
  );
  useEffect(() => {
    if (leaves.length === 0) return undefined;
    let over = false;
    const timer = setTimeout(() => {
      proveRun(leaves)
        .then((found) => {
          if (!over && found) setProved((was) => (was?.broken !== undefined ? was : found));
        })
        .catch((error: unknown) => {
          if (!over) setWrong(problem(error));
        });
    }, 200);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [leaves]);
  return (
    <>
      <Wrong of={broken ?? wrong} />
      {proved && (
        <p
          class={proved.broken === undefined ? "quiet" : "wrong"}
          role={proved.broken === undefined ? "status" : "alert"}
          id="proved"
        >
          {proved.said}
        </p>
      )}
      <Entries
        leaves={[...leaves].reverse()}
        proved={proved}
        foot={
          begin.current > 0n ? `the newest ${count(leaves.length)}; filters look at all` : `${count(leaves.length)}`
        }
      />
    </>
  );
}

/** Entries that pass the filters, each proved by itself. */
function Found() {
  const day = (text: string, plus = 0) => {
    const time = new Date(`${text}T00:00:00`);
    // Of an address that was written by hand.
    if (Number.isNaN(time.getTime())) return undefined;
    time.setDate(time.getDate() + plus);
    return { seconds: BigInt(Math.floor(time.getTime() / 1000)), nanos: 0 };
  };
  const request = {
    principal: asked("principal"),
    action: asked("action"),
    resource: asked("resource"),
    outcome: { ok: AuditOutcome.OK, refused: AuditOutcome.REFUSED }[asked("outcome")] ?? AuditOutcome.UNSPECIFIED,
    startTime: asked("from") ? day(asked("from")) : undefined,
    endTime: asked("until") ? day(asked("until"), 1) : undefined,
  };
  const key = JSON.stringify([
    request.principal,
    request.action,
    request.resource,
    request.outcome,
    asked("from"),
    asked("until"),
  ]);
  const page = { ...request, newestFirst: true, pageSize: 200 };
  const read = useLoad(`entries ${key}`, (signal) => audit.listAuditEntries(page, { signal }));
  const [more, setMore] = useState<{ key: string; leaves: AuditLeaf[]; next: string }>({
    key: "",
    leaves: [],
    next: "",
  });
  const doing = useDoing();
  const leaves = [...(read.data?.leaves ?? []), ...(more.key === key ? more.leaves : [])];
  const next = more.key === key ? more.next : (read.data?.nextPageToken ?? "");
  const load = () =>
    doing.run(async () => {
      const answer = await audit.listAuditEntries({ ...page, pageToken: next });
      setMore({
        key,
        leaves: [...(more.key === key ? more.leaves : []), ...answer.leaves],
        next: answer.nextPageToken,
      });
    });
  return (
    <>
      <Waiting of={read} what="entries" />
      {read.data && <Entries leaves={leaves} proved={undefined} foot={`${count(leaves.length)}, the newest first`} />}
      {next && (
        <button type="button" disabled={doing.busy} onClick={() => void load()}>
          Earlier ones
        </button>
      )}
      <Wrong of={doing.problem} />
    </>
  );
}

function Entries({
  leaves,
  proved,
  foot,
}: {
  leaves: readonly AuditLeaf[];
  proved: RunProved | undefined;
  foot: string;
}) {
  const [proofs, setProofs] = useState<Map<bigint, Proved>>(new Map());
  const chosen = leaves.find((leaf) => String(leaf.entry?.sequence) === asked("entry"));
  const proof = chosen?.entry && proofs.get(chosen.entry.sequence);
  const prove = async (leaf: AuditLeaf) => {
    const found = await proveEntry(leaf);
    setProofs((was) => new Map(was).set(leaf.entry?.sequence ?? 0n, found));
  };
  const pick = (leaf: AuditLeaf) => {
    setQuery({ entry: String(leaf.entry?.sequence) });
    void prove(leaf);
  };
  const status = (leaf: AuditLeaf) => {
    const sequence = leaf.entry?.sequence ?? 0n;
    const own = proofs.get(sequence);
    const holds = isHash(leaf) ? "its hash is proved, not its texts" : "✓ proved";
    if (own) return own.ok ? holds : "✗ not proved";
    if (proved?.broken !== undefined) return sequence >= proved.broken ? "✗ does not hold" : "not checked";
    return proved && sequence <= proved.upTo ? holds : "…";
  };
  return (
    <>
      {chosen?.entry && (
        <section class="detail" aria-label="Proof">
          <h2>Entry {String(chosen.entry.sequence)}</h2>
          {proof ? (
            <>
              <p class={proof.ok ? "good" : "wrong"} role="status">
                {proof.said}
              </p>
              <ol class="mono break">
                {proof.path.map((hash) => (
                  <li>{hash}</li>
                ))}
              </ol>
            </>
          ) : (
            <button type="button" onClick={() => void prove(chosen)}>
              Prove it
            </button>
          )}
          <p class="quiet">
            Request <span class="mono break">{chosen.entry.requestDigest}</span>
            {chosen.entry.detail && `; ${visible(chosen.entry.detail)}`}
          </p>
        </section>
      )}
      <Table
        label="Entries of the audit log"
        name="entries"
        fixed
        rows={leaves}
        rowKey={(leaf) => String(leaf.entry?.sequence)}
        picked={String(chosen?.entry?.sequence)}
        onPick={pick}
        file="audit"
        columns={[
          { id: "sequence", head: "#", value: (leaf) => leaf.entry?.sequence, right: true, wide: 0.5 },
          {
            id: "time",
            head: "When",
            value: (leaf) => moment(leaf.entry?.time),
            cell: (leaf) => <time title={moment(leaf.entry?.time)}>{ago(leaf.entry?.time)}</time>,
            wide: 1.2,
          },
          {
            id: "principal",
            head: "Who",
            value: (leaf) => leaf.entry?.principal,
            cell: (leaf) => visible(leaf.entry?.principal ?? ""),
          },
          { id: "action", head: "What", value: (leaf) => leaf.entry?.action, wide: 1.2 },
          {
            id: "resource",
            head: "To what",
            value: (leaf) => leaf.entry?.resource,
            cell: (leaf) => <Resource name={leaf.entry?.resource ?? ""} />,
            wide: 2,
          },
          {
            id: "outcome",
            head: "Outcome",
            value: (leaf) => (leaf.entry?.outcome === AuditOutcome.REFUSED ? "refused" : "done"),
            cell: (leaf) =>
              leaf.entry?.outcome === AuditOutcome.REFUSED ? (
                <span class="otherwise" title={visible(leaf.entry.refusal)}>
                  refused
                </span>
              ) : (
                "done"
              ),
          },
          {
            id: "before",
            head: "Version before",
            value: (leaf) => leaf.entry?.versionBefore,
            cell: (leaf) => <span class="mono">{brief(leaf.entry?.versionBefore ?? "", 8)}</span>,
          },
          {
            id: "after",
            head: "after",
            value: (leaf) => leaf.entry?.versionAfter,
            cell: (leaf) => <span class="mono">{brief(leaf.entry?.versionAfter ?? "", 8)}</span>,
          },
          {
            id: "why",
            head: "Why",
            value: (leaf) => leaf.entry?.why,
            cell: (leaf) => visible(leaf.entry?.why ?? ""),
            wide: 2,
          },
          { id: "refusal", head: "Refusal", value: (leaf) => leaf.entry?.refusal, hidden: true },
          { id: "request", head: "Request", value: (leaf) => leaf.entry?.requestDigest, hidden: true },
          {
            id: "proof",
            head: "Proof",
            value: status,
            cell: (leaf) => (
              <button
                type="button"
                class={`plain proof ${status(leaf).startsWith("✗") ? "otherwise" : ""}`}
                aria-label={`Proof of entry ${leaf.entry?.sequence}: ${status(leaf)}`}
                onClick={() => pick(leaf)}
              >
                {status(leaf)}
              </button>
            ),
          },
        ]}
        foot={<span class="quiet">{foot}</span>}
      />
    </>
  );
}

/** A link to what was done something to, where it has a page. */
function Resource({ name }: { name: string }) {
  const page = /^(jobs\/[^/]+|models\/[^/]+(\/(versions|edits)\/[^/]+)?)$/.test(name)
    ? `/${name}`
    : /^models\/[^/]+\/refs\//.test(name)
      ? `/${name.split("/").slice(0, 2).join("/")}/history`
      : "";
  const shown = name.startsWith("jobs/")
    ? `jobs/…${last(name).slice(-8)}`
    : name.replace(/([0-9a-f]{8})[0-9a-f]{56}/, "$1…");
  return page ? (
    <a href={page} title={name}>
      {shown}
    </a>
  ) : (
    <span title={name}>{visible(shown)}</span>
  );
}
