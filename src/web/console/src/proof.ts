// The browser as a witness: what the audit log says is checked here, and not believed.
//
// Leaves, paths and consistency as RFC 6962 and RFC 9162 have them (sections 2.1.3.2 and 2.1.4.2), checkpoints
// as signed notes (C2SP tlog-checkpoint) with ed25519. SHA-256 and ed25519 are the browser's own, which has
// them where the page came over https or from this machine.

export type Hash = Uint8Array<ArrayBuffer>;

/** Whether this page can check anything. */
export function canCheck(): boolean {
  return typeof crypto !== "undefined" && crypto.subtle !== undefined;
}

async function sha256(...parts: Uint8Array[]): Promise<Hash> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
}

/** The hash of a leaf, from its bytes as they were received. */
export function leafHash(leaf: Uint8Array): Promise<Hash> {
  return sha256(Uint8Array.of(0), leaf);
}

/** The hash of a node. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Promise<Hash> {
  return sha256(Uint8Array.of(1), left, right);
}

/** The root over no leaf: the hash of nothing. */
export function emptyRoot(): Promise<Hash> {
  return sha256();
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/** Whether `path` proves that `leaf` is leaf `index` of the tree of `size` leaves with this root. */
export async function isIncluded(
  leaf: Uint8Array,
  index: bigint,
  size: bigint,
  path: readonly Uint8Array[],
  root: Uint8Array,
): Promise<boolean> {
  if (index >= size) return false;
  let at = index;
  let end = size - 1n;
  let hash = leaf;
  for (const sibling of path) {
    if (end === 0n) return false;
    if ((at & 1n) === 1n || at === end) {
      hash = await nodeHash(sibling, hash);
      while ((at & 1n) === 0n && at !== 0n) {
        at >>= 1n;
        end >>= 1n;
      }
    } else {
      hash = await nodeHash(hash, sibling);
    }
    at >>= 1n;
    end >>= 1n;
  }
  return end === 0n && equal(hash, root);
}

/** Whether `proof` proves that the tree of `newSize` leaves goes on from that of `oldSize`. */
export async function isConsistent(
  oldSize: bigint,
  oldRoot: Uint8Array,
  newSize: bigint,
  newRoot: Uint8Array,
  proof: readonly Uint8Array[],
): Promise<boolean> {
  if (oldSize === 0n) return proof.length === 0 && equal(oldRoot, await emptyRoot());
  if (oldSize >= newSize) return oldSize === newSize && proof.length === 0 && equal(oldRoot, newRoot);
  // A whole subtree of a power of two begins with the root that the witness has.
  const hashes = (oldSize & (oldSize - 1n)) === 0n ? [oldRoot, ...proof] : [...proof];
  const first = hashes.shift();
  if (!first) return false;
  let at = oldSize - 1n;
  let end = newSize - 1n;
  while ((at & 1n) === 1n) {
    at >>= 1n;
    end >>= 1n;
  }
  let before = first;
  let after = first;
  for (const hash of hashes) {
    if (end === 0n) return false;
    if ((at & 1n) === 1n || at === end) {
      before = await nodeHash(hash, before);
      after = await nodeHash(hash, after);
      while ((at & 1n) === 0n && at !== 0n) {
        at >>= 1n;
        end >>= 1n;
      }
    } else {
      after = await nodeHash(after, hash);
    }
    at >>= 1n;
    end >>= 1n;
  }
  return end === 0n && equal(before, oldRoot) && equal(after, newRoot);
}

/** What of a tree is needed to go on from it: the roots of its whole subtrees, largest first. */
export interface Frontier {
  size: bigint;
  peaks: Uint8Array[];
}

/**
 * What stands before leaf `index`, out of the proof of that leaf: the siblings on its left are the roots of
 * the whole subtrees before it. So one proof and the leaves from there on give the root of the whole log.
 */
export function frontierBefore(index: bigint, size: bigint, path: readonly Uint8Array[]): Frontier {
  const left: Uint8Array[] = [];
  let at = index;
  let end = size - 1n;
  for (const sibling of path) {
    if ((at & 1n) === 1n || at === end) {
      left.push(sibling);
      while ((at & 1n) === 0n && at !== 0n) {
        at >>= 1n;
        end >>= 1n;
      }
    }
    at >>= 1n;
    end >>= 1n;
  }
  return { size: index, peaks: left.reverse() };
}

/** The tree with one leaf more. */
export async function push(frontier: Frontier, leaf: Uint8Array): Promise<Frontier> {
  const peaks = [...frontier.peaks];
  let hash = leaf;
  for (let size = frontier.size; (size & 1n) === 1n; size >>= 1n) {
    const left = peaks.pop();
    if (!left) break;
    hash = await nodeHash(left, hash);
  }
  return { size: frontier.size + 1n, peaks: [...peaks, hash] };
}

export async function rootOf(frontier: Frontier): Promise<Uint8Array> {
  const [last, ...rest] = [...frontier.peaks].reverse();
  if (!last) return emptyRoot();
  let root = last;
  for (const peak of rest) root = await nodeHash(peak, root);
  return root;
}

/** What a checkpoint says, once its signature was found to fit. */
export interface Checkpoint {
  origin: string;
  size: bigint;
  root: Uint8Array;
}

export function fromBase64(text: string): Hash {
  return Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
}

async function keyHash(name: string, key: Uint8Array): Promise<Uint8Array> {
  // The type of an ed25519 key in a signed note is 1.
  const hash = await sha256(new TextEncoder().encode(name), Uint8Array.of(10, 1), key);
  return hash.slice(0, 4);
}

/** Reads a note and checks its signature with a verifier key, `NAME+HASH+BASE64`. Says why it does not hold. */
export async function readNote(note: string, verifier: string): Promise<Checkpoint> {
  const parts = verifier.trim().split("+");
  const [name, , ...rest] = parts;
  const typed = fromBase64(rest.join("+"));
  if (!name || typed.length !== 33 || typed[0] !== 1) throw new Error("the verifier key is no ed25519 key");
  const key = typed.slice(1);
  const cut = note.indexOf("\n\n");
  if (cut < 0) throw new Error("the checkpoint has no empty line before a signature");
  const text = note.slice(0, cut + 1);
  const start = `\u2014 ${name} `;
  const line = note
    .slice(cut + 2)
    .split("\n")
    .find((it) => it.startsWith(start));
  if (!line) throw new Error(`the checkpoint is not signed by ${name}`);
  const signed = fromBase64(line.slice(start.length));
  if (!equal(signed.slice(0, 4), await keyHash(name, key)))
    throw new Error("the checkpoint's signature is of another key");
  const imported = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  const fits = await crypto.subtle.verify(
    { name: "Ed25519" },
    imported,
    signed.slice(4),
    new TextEncoder().encode(text),
  );
  if (!fits) throw new Error("the checkpoint's signature does not fit: it was altered");
  const [origin, size, root] = text.split("\n");
  if (origin !== name || !size || !/^[0-9]+$/.test(size) || !root)
    throw new Error("the checkpoint's lines are not origin, size and root");
  return { origin, size: BigInt(size), root: fromBase64(root) };
}
