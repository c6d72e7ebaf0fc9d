// gRPC-Web over fetch: unary calls and streams from the server, with the errors' details.
//
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md, in its binary form.

import type {
  DescMessage,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";

import { SERVICES } from "../contract/table";
import { decode, encode } from "./wire";

/** gRPC's codes. */
export const Code = {
  Ok: 0,
  Cancelled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;

/** Why a call did not succeed. */
export class CallError extends Error {
  constructor(
    readonly code: number,
    message: string,
    /** The details, each with its type and its bytes. */
    readonly details: { typeUrl: string; value: Uint8Array }[] = [],
  ) {
    super(message);
  }

  /** The first detail of a type. */
  detail<T>(type: string): T | undefined {
    const found = this.details.find((it) => it.typeUrl.endsWith(`/google.rpc.${type}`));
    return found && decode<T>(type, found.value);
  }
}

export interface CallOptions {
  signal?: AbortSignal;
}

/** The methods of a service that this door has, as functions. */
export type Client<S extends { method: object }> = {
  [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? Unary<I, O>
    : S["method"][K] extends DescMethodServerStreaming<infer I, infer O>
      ? Streaming<I, O>
      : never;
};
type Unary<I extends DescMessage, O extends DescMessage> = (
  request: MessageInitShape<I>,
  options?: CallOptions,
) => Promise<MessageShape<O>>;
type Streaming<I extends DescMessage, O extends DescMessage> = (
  request: MessageInitShape<I>,
  options?: CallOptions,
) => AsyncIterable<MessageShape<O>>;

/** A client of a service of the contract; `headers` says what every call shows. */
export function client<S extends { method: object }>(
  service: string,
  headers: () => Record<string, string>,
): Client<S> {
  const methods: Record<string, unknown> = {};
  for (const word of (SERVICES[service] ?? "").split(" ")) {
    const name = word.replace("*", "");
    const start = (request: object, options?: CallOptions) =>
      call(
        `palimpsest.v1.${service}/${name}`,
        encode(`${name}Request`, request),
        `${name}Response`,
        headers(),
        options?.signal,
      );
    const unary = async (request: object, options?: CallOptions) => {
      for await (const message of start(request, options)) return message;
      throw new CallError(Code.Unknown, "the server answered without a message");
    };
    methods[name.charAt(0).toLowerCase() + name.slice(1)] = word.endsWith("*") ? start : unary;
  }
  return methods as Client<S>;
}

/** The messages of a call, as they come. */
async function* call(
  path: string,
  request: Uint8Array,
  answer: string,
  headers: Record<string, string>,
  signal?: AbortSignal,
): AsyncGenerator<unknown> {
  const body = new Uint8Array(5 + request.length);
  new DataView(body.buffer).setUint32(1, request.length);
  body.set(request, 5);
  let response: Response;
  try {
    response = await fetch(`/${path}`, {
      method: "POST",
      body,
      signal,
      headers: { ...headers, "content-type": "application/grpc-web+proto", "x-grpc-web": "1" },
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    signal?.throwIfAborted();
    throw new CallError(Code.Unavailable, error instanceof Error ? error.message : String(error));
  }
  // A call that fails before its first message has its status among the headers.
  if (response.headers.get("grpc-status") !== null) check((name) => response.headers.get(name));
  if (!response.ok || !response.body)
    throw new CallError(ofHttp(response.status), `the server answers ${response.status} ${response.statusText}`);
  const reader = response.body.getReader();
  try {
    for await (const frame of frames(reader, signal)) {
      if (frame.trailers) {
        const trailers = trailersOf(frame.data);
        check((name) => trailers.get(name) ?? null);
        return;
      }
      yield decode(answer, frame.data);
    }
    throw new CallError(Code.Unavailable, "the connection broke");
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

/** The frames of an answer: messages, and at the end the trailers. */
async function* frames(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<{ trailers: boolean; data: Uint8Array }> {
  let parts: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    // Parts are joined when a frame is whole, and not with every one that comes.
    if (length >= 5) {
      const first = (parts[0]?.length ?? 0) >= 5 ? (parts[0] as Uint8Array) : joined(parts, length);
      const size = new DataView(first.buffer, first.byteOffset, first.byteLength).getUint32(1);
      if (length >= 5 + size) {
        const all = parts.length === 1 ? (parts[0] as Uint8Array) : joined(parts, length);
        yield { trailers: ((all[0] ?? 0) & 0x80) !== 0, data: all.subarray(5, 5 + size) };
        length -= 5 + size;
        parts = length > 0 ? [all.subarray(5 + size)] : [];
        continue;
      }
    }
    let read: ReadableStreamReadResult<Uint8Array>;
    try {
      read = await reader.read();
    } catch (error) {
      signal?.throwIfAborted();
      throw new CallError(Code.Unavailable, error instanceof Error ? error.message : String(error));
    }
    if (read.done) return;
    parts.push(read.value);
    length += read.value.length;
  }
}

function joined(parts: readonly Uint8Array[], length: number): Uint8Array {
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function trailersOf(data: Uint8Array): Map<string, string> {
  const lines = new TextDecoder().decode(data).split("\r\n");
  return new Map(
    lines.flatMap((line): [string, string][] => {
      const colon = line.indexOf(":");
      return colon > 0 ? [[line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()]] : [];
    }),
  );
}

/** Throws what a status says, unless it is well. */
function check(header: (name: string) => string | null): void {
  const code = Number(header("grpc-status") ?? Code.Unknown);
  if (code === Code.Ok) return;
  const packed = header("grpc-status-details-bin");
  const status = packed
    ? decode<{ message: string; details: CallError["details"] }>("Status_", fromBase64(packed))
    : undefined;
  throw new CallError(code, status?.message || percentDecoded(header("grpc-message") ?? ""), status?.details);
}

function percentDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));
}

function ofHttp(status: number): number {
  const codes: Record<number, number> = {
    400: Code.Internal,
    401: Code.Unauthenticated,
    403: Code.PermissionDenied,
    404: Code.Unimplemented,
    421: Code.PermissionDenied,
    429: Code.Unavailable,
    502: Code.Unavailable,
    503: Code.Unavailable,
    504: Code.Unavailable,
  };
  return codes[status] ?? Code.Unknown;
}
