// The way to the coordinator: gRPC-Web to where this page came from, with what the visitor showed.

import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../contract/error_details_pb";
import { AuditService } from "../contract/palimpsest/v1/audit_pb";
import { JobService } from "../contract/palimpsest/v1/job_pb";
import { ModelService } from "../contract/palimpsest/v1/model_pb";
import { StatisticsService } from "../contract/palimpsest/v1/stats_pb";
import { StatusService } from "../contract/palimpsest/v1/status_pb";
import { VersionService } from "../contract/palimpsest/v1/version_pb";
import { WorkerService } from "../contract/palimpsest/v1/worker_pb";

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

/** Takes the key out of the address, `#key=...`, which `palimpsest console` printed. */
export function takeKey(): void {
  const found = /[#&]key=([^&]+)/.exec(location.hash)?.[1];
  if (!found) return;
  sessionStorage.setItem(KEY, decodeURIComponent(found));
  history.replaceState(null, "", location.pathname + location.search);
}

const credentials: Interceptor = (next) => (request) => {
  if (kept.key) request.header.set("x-palimpsest-key", kept.key);
  if (kept.token) request.header.set("authorization", `Bearer ${kept.token}`);
  return next(request);
};

const transport = createGrpcWebTransport({ baseUrl: location.origin, interceptors: [credentials] });

export const audit = createClient(AuditService, transport);
export const jobs = createClient(JobService, transport);
export const models = createClient(ModelService, transport);
export const statistics = createClient(StatisticsService, transport);
export const status = createClient(StatusService, transport);
export const versions = createClient(VersionService, transport);
export const workers = createClient(WorkerService, transport);

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
  if (!answer.ok) throw new ConnectError(`the server answers ${answer.status}`, Code.Unavailable);
  return (await answer.json()) as SignIn;
}

/** An error in the server's words, which name the remedy. */
export interface Problem {
  message: string;
  code: Code;
  reason: string;
  metadata: Record<string, string>;
  fields: { name: string; problem: string }[];
  retryAfter: number | undefined;
}

export function problem(error: unknown): Problem {
  const it = ConnectError.from(error);
  const info = it.findDetails(ErrorInfoSchema)[0];
  const delay = it.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const fields = it.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations);
  return {
    message: it.rawMessage || Code[it.code] || "something went wrong",
    code: it.code,
    reason: info?.reason ?? "",
    metadata: info?.metadata ?? {},
    fields: fields.map((field) => ({ name: field.field, problem: field.description })),
    retryAfter: delay ? Number(delay.seconds) + delay.nanos / 1e9 : undefined,
  };
}

/** Whether a call ended because nobody waits for it any more. */
export function isCancelled(error: unknown): boolean {
  return ConnectError.from(error).code === Code.Canceled || (error instanceof DOMException && error.name === "AbortError");
}

/** Whether a call may well succeed when it is made again. */
export function isPassing(error: unknown): boolean {
  return [Code.Unavailable, Code.ResourceExhausted, Code.DeadlineExceeded, Code.Unknown, Code.Internal].includes(
    ConnectError.from(error).code,
  );
}

/** All pages of a list, up to `most` items. */
export async function pages<T>(
  page: (token: string) => Promise<{ items: T[]; next: string }>,
  most = 100_000,
): Promise<{ items: T[]; more: boolean }> {
  const items: T[] = [];
  let token = "";
  do {
    const answer = await page(token);
    items.push(...answer.items);
    token = answer.next;
  } while (token && items.length < most);
  return { items, more: token !== "" };
}

export { Code };
