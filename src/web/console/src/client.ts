// The way to the coordinator: gRPC-Web to where this page came from, with what the visitor showed.

import type { BadRequest, ErrorInfo } from "../contract/error_details_pb";
import type { AuditEntry, AuditLeaf, AuditService } from "../contract/palimpsest/v1/audit_pb";
import type { JobService } from "../contract/palimpsest/v1/job_pb";
import type { ModelService } from "../contract/palimpsest/v1/model_pb";
import type { StatisticsService } from "../contract/palimpsest/v1/stats_pb";
import type { StatusService } from "../contract/palimpsest/v1/status_pb";
import type { VersionService } from "../contract/palimpsest/v1/version_pb";
import type { WorkerService } from "../contract/palimpsest/v1/worker_pb";
import { CallError, client, Code } from "./transport";
import { decode } from "./wire";

const KEY = "palimpsest.key";
const TOKEN = "palimpsest.token";

/** What a tab keeps until it is closed. No cookie: those are sent to other ports of the host, too. */
export const kept = {
  get key(): string {
    return sessionStorage.getItem(KEY) ?? "";
  },
  get token(): string {
    return sessionStorage.getItem(TOKEN) ?? "";
  },
  set token(value: string) {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  },
};

// Tabs of one browser lend each other what they keep, so that a link in a new tab needs no second sign-in.
const tabs = new BroadcastChannel("palimpsest");

/** What happens when another tab signs out. */
export const forgotten: { by: () => void } = { by: () => undefined };

tabs.onmessage = ({ data }: MessageEvent<unknown>) => {
  if (data === "ask" && (kept.key || kept.token)) tabs.postMessage({ key: kept.key, token: kept.token });
  if (data === "forget" && kept.token) {
    kept.token = "";
    forgotten.by();
  }
};

/** Asks the other tabs, and waits a moment for one that answers. */
export function borrow(): Promise<boolean> {
  return new Promise((done) => {
    const answered = ({ data }: MessageEvent<unknown>) => {
      const lent = data as { key?: string; token?: string } | undefined;
      if (typeof lent !== "object" || lent === null) return;
      if (lent.key) sessionStorage.setItem(KEY, lent.key);
      if (lent.token) kept.token = lent.token;
      end(true);
    };
    const end = (found: boolean) => {
      tabs.removeEventListener("message", answered);
      clearTimeout(timer);
      done(found);
    };
    const timer = setTimeout(() => end(false), 250);
    tabs.addEventListener("message", answered);
    tabs.postMessage("ask");
  });
}

/** Signs out in all tabs. */
export function forgetAll(): void {
  kept.token = "";
  tabs.postMessage("forget");
}

/** Takes the key out of the address, `#key=...`, which `palimpsest console` printed; says whether there was one. */
export function takeKey(): boolean {
  const found = /[#&]key=([0-9a-f]+)/.exec(location.hash)?.[1];
  if (!found) return false;
  sessionStorage.setItem(KEY, found);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

// An address with another key, put into a tab that is open already, loads nothing by itself.
addEventListener("hashchange", () => {
  if (takeKey()) location.reload();
});

function credentials(): Record<string, string> {
  const headers: Record<string, string> = {};
  if (kept.key) headers["x-palimpsest-key"] = kept.key;
  if (kept.token) headers.authorization = `Bearer ${kept.token}`;
  return headers;
}

const log = client<typeof AuditService>("AuditService", credentials);
/**
 * The audit log. What an entry says is read from the bytes that are hashed: what the server sends beside them, parsed,
 * no proof is of.
 */
export const audit: typeof log = {
  ...log,
  listAuditEntries: async (...given) => hashed(await log.listAuditEntries(...given)),
  async *watchAuditEntries(...given) {
    for await (const message of log.watchAuditEntries(...given)) yield hashed(message);
  },
};

function hashed<T extends { leaves: AuditLeaf[] }>(answer: T): T {
  for (const leaf of answer.leaves) if (!isHash(leaf)) leaf.entry = decode<AuditEntry>("AuditEntry", leaf.leaf);
  return answer;
}

/** Whether of an entry only its hash came, as it is too large for a message: its texts are not those that are proved. */
export function isHash(leaf: AuditLeaf): boolean {
  return leaf.leaf.length === 0 && leaf.hash.length === 32;
}
export const jobs = client<typeof JobService>("JobService", credentials);
export const models = client<typeof ModelService>("ModelService", credentials);
export const statistics = client<typeof StatisticsService>("StatisticsService", credentials);
export const status = client<typeof StatusService>("StatusService", credentials);
export const versions = client<typeof VersionService>("VersionService", credentials);
export const workers = client<typeof WorkerService>("WorkerService", credentials);

/** What a door asks for, `/sign-in.json`. */
export interface SignIn {
  version: string;
  asks: string[];
  certificate: boolean;
}

/** Asks the door what it wants, before anything is called: an unasked call would be a warning in its log. */
export async function askDoor(): Promise<SignIn> {
  const headers: Record<string, string> = kept.key ? { "x-palimpsest-key": kept.key } : {};
  const answer = await fetch("/sign-in.json", { headers, cache: "no-store" });
  if (!answer.ok) throw new CallError(Code.Unavailable, `the server answers ${answer.status}`);
  return (await answer.json()) as SignIn;
}

/** A figure as the server draws it, SVG, by its path below `/figures/`. */
export async function drawn(path: string, asked: Record<string, string | undefined> = {}): Promise<string> {
  const given = Object.entries(asked).filter((it): it is [string, string] => it[1] !== undefined);
  const query = new URLSearchParams(given).toString();
  const answer = await fetch(`/figures/${path}${query && `?${query}`}`, { headers: credentials(), cache: "no-store" });
  const text = await answer.text();
  if (!answer.ok) throw new CallError(answer.status === 404 ? Code.NotFound : Code.Unknown, text.trim());
  return text;
}

/** An error in the server's words, which name the remedy. */
export interface Problem {
  message: string;
  code: number;
  reason: string;
  metadata: Record<string, string>;
  fields: { name: string; problem: string }[];
}

export function problem(error: unknown): Problem {
  const it =
    error instanceof CallError
      ? error
      : new CallError(Code.Unknown, error instanceof Error ? error.message : String(error));
  const info = it.detail<ErrorInfo>("ErrorInfo");
  const fields = it.detail<BadRequest>("BadRequest")?.fieldViolations ?? [];
  return {
    message: it.message || "something went wrong",
    code: it.code,
    reason: info?.reason ?? "",
    metadata: info?.metadata ?? {},
    fields: fields.map((field) => ({ name: field.field, problem: field.description })),
  };
}

/** Whether a call ended because nobody waits for it any more. */
export function isCancelled(error: unknown): boolean {
  return (
    (error instanceof CallError && error.code === Code.Cancelled) ||
    (error instanceof DOMException && error.name === "AbortError")
  );
}

/** Whether a call may well succeed when it is made again. */
export function isPassing(error: unknown): boolean {
  const codes: number[] = [Code.Unavailable, Code.ResourceExhausted, Code.DeadlineExceeded];
  return error instanceof CallError && codes.includes(error.code);
}

export { Code };
