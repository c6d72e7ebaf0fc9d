// What this browser has seen of the audit log, and whether the log still agrees with it.

import { type AuditCheckpoint, type AuditLeaf } from "../contract/palimpsest/v1/audit_pb";
import { audit, Code, isHash, problem } from "./client";
import { hex } from "./format";
import {
  canCheck,
  equal,
  frontierBefore,
  isConsistent,
  isIncluded,
  leafHash,
  push,
  readNote,
  rootOf,
  type Checkpoint,
  type Frontier,
} from "./proof";

const KEPT = "palimpsest.kept.";

/** A checkpoint that this browser kept, and since when. */
export interface Kept {
  note: string;
  key: string;
  size: string;
  root: string;
  since: string;
}

/** The checkpoints that are kept, by the name of their key. */
export function allKept(): Kept[] {
  return Object.keys(localStorage)
    .filter((name) => name.startsWith(KEPT))
    .flatMap((name) => {
      try {
        return [JSON.parse(localStorage.getItem(name) ?? "") as Kept];
      } catch {
        return [];
      }
    });
}

const keyName = (verifier: string) => verifier.split("+")[0] ?? "";

export function keptOf(verifier: string): Kept | undefined {
  return allKept().find((it) => it.key === verifier) ?? allKept().find((it) => keyName(it.key) === keyName(verifier));
}

export function keep(checkpoint: AuditCheckpoint, since?: string): void {
  const it: Kept = {
    note: checkpoint.note,
    key: checkpoint.verifierKey,
    size: String(checkpoint.size),
    root: hex(checkpoint.root),
    since: since ?? new Date().toISOString(),
  };
  localStorage.setItem(KEPT + keyName(checkpoint.verifierKey), JSON.stringify(it));
}

export interface Verdict {
  colour: "green" | "red" | "grey";
  said: string;
  todo?: string;
  /** Whether it is the log of a key that this browser does not know, though it knows another one. */
  strange?: boolean;
}

const RED =
  "Keep this page, the kept checkpoint and a copy of the store; ask who runs the server; 'palimpsest audit verify --since kept' says where the log is damaged.";

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/**
 * Checks the newest checkpoint's signature, and that the log goes on from the one that was kept. Where all is
 * well, the newest is what is kept from now on; where not, the old one stays.
 */
export async function checkGrowth(checkpoint: AuditCheckpoint): Promise<Verdict> {
  if (!canCheck())
    return {
      colour: "grey",
      said: "Not checked here: the browser has no cryptography for pages over plain http from another machine.",
      todo: "Open the console over https, or with 'palimpsest console' on this machine.",
    };
  try {
    const read = await readNote(checkpoint.note, checkpoint.verifierKey);
    if (read.size !== checkpoint.size || !equal(read.root, checkpoint.root))
      throw new Error("the signed note says other numbers than the answer around it");
  } catch (error) {
    return {
      colour: "red",
      said: `The newest checkpoint does not hold: ${error instanceof Error ? error.message : String(error)}.`,
      todo: RED,
    };
  }
  const kept = keptOf(checkpoint.verifierKey);
  if (!kept) {
    const others = allKept();
    // It stays red until somebody says that it is right: a second visit is no reason to believe it.
    if (others.length > 0) {
      return {
        colour: "red",
        strange: true,
        said: `This log is signed by another key (${keyName(checkpoint.verifierKey)}) than the one that this browser has seen here before (${others.map((it) => keyName(it.key)).join(", ")}).`,
        todo: "If another store is served at this address now, that is right, and you can say so below. If not, somebody replaced the log.",
      };
    }
    keep(checkpoint);
    return {
      colour: "green",
      said: `Signature checked. This browser saw this log for the first time: its ${checkpoint.size} entries are kept as what later visits are held against.`,
    };
  }
  if (kept.key !== checkpoint.verifierKey)
    return { colour: "red", said: "The key of this log has the name of the kept one and is another.", todo: RED };
  const [oldSize, oldRoot] = [BigInt(kept.size), bytesOf(kept.root)];
  const since = kept.since.slice(0, 10);
  if (checkpoint.size < oldSize)
    return {
      colour: "red",
      said: `The log has ${checkpoint.size} entries and had ${oldSize} on ${since}: entries were cut off.`,
      todo: RED,
    };
  try {
    const proof = await audit.proveAuditConsistency({ oldSize });
    const newest = proof.checkpoint;
    if (!newest) throw new Error("the proof has no checkpoint");
    const read = await readNote(newest.note, newest.verifierKey);
    if (newest.verifierKey !== kept.key) throw new Error("the proof is for the log of another key");
    if (!(await isConsistent(oldSize, oldRoot, read.size, read.root, proof.path))) {
      return {
        colour: "red",
        said: `The log does not go on from the ${oldSize} entries that this browser saw on ${since}: something before that was altered.`,
        todo: RED,
      };
    }
    keep(newest, kept.since);
    return read.size === oldSize
      ? { colour: "green", said: `Unchanged since ${since}: the same ${oldSize} entries.` }
      : {
          colour: "green",
          said: `Grew from ${oldSize} to ${read.size} entries since ${since}; nothing before changed.`,
        };
  } catch (error) {
    const it = problem(error);
    if (it.code === Code.Unavailable) return { colour: "grey", said: `Not checked: ${it.message}` };
    return {
      colour: "red",
      said: `No proof that the log goes on from the ${oldSize} entries of ${since}: ${it.message}`,
      todo: RED,
    };
  }
}

/** Reads a proof's checkpoint; its key must be the one that this browser knows. */
async function pinned(checkpoint: AuditCheckpoint | undefined): Promise<Checkpoint> {
  if (!checkpoint) throw new Error("the proof has no checkpoint");
  const kept = keptOf(checkpoint.verifierKey);
  if (kept && kept.key !== checkpoint.verifierKey) throw new Error("the proof is for the log of another key");
  return readNote(checkpoint.note, checkpoint.verifierKey);
}

/** The bytes that are hashed, as they were received; of an entry too large for a message its hash alone. */
export async function hashOf(leaf: AuditLeaf): Promise<Uint8Array> {
  return isHash(leaf) ? leaf.hash : leafHash(leaf.leaf);
}

export interface Proved {
  ok: boolean;
  said: string;
  path: string[];
}

/** Proves one entry: its own bytes, the path that the server gives, and a signed root. */
export async function proveEntry(leaf: AuditLeaf): Promise<Proved> {
  const sequence = leaf.entry?.sequence ?? 0n;
  try {
    const proof = await audit.proveAuditEntry({ sequence });
    const read = await pinned(proof.checkpoint);
    const ok = await isIncluded(await hashOf(leaf), sequence - 1n, read.size, proof.path, read.root);
    return {
      ok,
      said: ok
        ? `Entry ${sequence} is in the log of ${read.size} entries under the signed root ${hex(read.root).slice(0, 16)}…${
            isHash(leaf) ? ". That is proved of its hash: its texts are longer than an answer, and not proved here" : ""
          }`
        : `Entry ${sequence}, as it is shown here, is not in the log under its signed root: it was altered.`,
      path: proof.path.map(hex),
    };
  } catch (error) {
    return { ok: false, said: problem(error).message, path: [] };
  }
}

/** What was found of a run of entries that ends with the newest. */
export interface RunProved {
  /** All up to here are proved. */
  upTo: bigint;
  /** The first that does not hold. */
  broken: bigint | undefined;
  said: string;
}

/**
 * Proves a run of entries up to the newest with a single proof: the path of the first gives the tree before it,
 * the entries' own bytes the rest, and the root of all must be the signed one.
 */
export async function proveRun(leaves: readonly AuditLeaf[]): Promise<RunProved | undefined> {
  const first = leaves[0]?.entry?.sequence;
  const last = leaves.at(-1)?.entry?.sequence;
  if (first === undefined || last === undefined) return undefined;
  const proof = await audit.proveAuditEntry({ sequence: first });
  const read = await pinned(proof.checkpoint);
  if (read.size > last) return undefined;
  let tree: Frontier = frontierBefore(first - 1n, read.size, proof.path);
  let broken: bigint | undefined;
  let place = first - 1n;
  for (const leaf of leaves) {
    const entry = leaf.entry;
    place += 1n;
    if (!entry || place > read.size) break;
    // One that says that it is elsewhere would be shown there.
    if (entry.sequence !== place) broken ??= place;
    // An entry names the root of all before it, so the first that was altered is found.
    if (entry.previousRoot.length > 0 && broken === undefined && !equal(entry.previousRoot, await rootOf(tree)))
      broken = entry.sequence > first ? entry.sequence - 1n : entry.sequence;
    tree = await push(tree, await hashOf(leaf));
  }
  const holds = tree.size === read.size && equal(await rootOf(tree), read.root);
  if (holds && broken === undefined)
    return {
      upTo: read.size,
      broken: undefined,
      said: `Entries ${first} to ${read.size} are what the signed root says.`,
    };
  return {
    upTo: 0n,
    broken: broken ?? first,
    said:
      broken === undefined
        ? `The entries ${first} to ${read.size} do not come to the signed root: one of them was altered.`
        : `Entry ${broken}, or one before it, was altered: what follows names another root.`,
  };
}
