// Who the visitor is and what they may call: the server's own list, and no second table.

import { signal } from "@preact/signals";

import type { Status } from "../contract/palimpsest/v1/status_pb";
import { askDoor, borrow, Code, forgetAll, forgotten, kept, problem, status, takeKey, type SignIn } from "./client";

export type Session = { state: "starting" } | { state: "asks"; said: string; form: boolean } | { state: "in" };

export const session = signal<Session>({ state: "starting" });
/** The newest status that was read. */
export const now = signal<Status | undefined>(undefined);
export const door = signal<SignIn | undefined>(undefined);

/** Whether the visitor may call a method, such as `JobService/CancelJob`. */
export function may(method: string): boolean {
  return now.value?.caller?.methods.includes(`palimpsest.v1.${method}`) ?? false;
}

/** `bob is a viewer`; without sign-in only who the server takes the caller for. */
export function whoAmI(): string {
  const caller = now.value?.caller;
  if (!caller) return "";
  return caller.role
    ? `${caller.principal} is ${/^[aeiou]/.test(caller.role) ? "an" : "a"} ${caller.role}`
    : caller.principal;
}

/** The newest status; a refusal for want of sign-in leads back to the form. */
export async function refresh(signal?: AbortSignal): Promise<void> {
  try {
    const answer = await status.getStatus({}, { signal });
    now.value = answer.status;
    if (session.value.state !== "in") session.value = { state: "in" };
  } catch (error) {
    if (!isOut(error)) throw error;
  }
}

/** Whether a call failed for want of sign-in, as when a token has expired: then the form is there again. */
export function isOut(error: unknown): boolean {
  const { code, message } = problem(error);
  if (code !== Code.Unauthenticated) return false;
  refused(message);
  return true;
}

function refused(said: string): void {
  const asks = door.value?.asks ?? [];
  if (kept.token) kept.token = "";
  now.value = undefined;
  session.value = { state: "asks", said, form: asks.includes("token") };
}

/** Signs in with what there is: nothing needed, a certificate, the key of the address, or a token of this tab. */
export async function begin(): Promise<void> {
  takeKey();
  const found = await askDoor();
  door.value = found;
  const asks = found.asks;
  const shown = () =>
    asks.length === 0 ||
    found.certificate ||
    (asks.includes("token") && kept.token !== "") ||
    (asks.includes("key") && kept.key !== "");
  if (shown() || ((await borrow()) && shown())) return refresh();
  const said = asks.includes("key")
    ? "This address needs its key: open it as 'palimpsest console' printed it, with '#key=' at its end."
    : "";
  session.value = { state: "asks", said, form: asks.includes("token") };
}

/** Signs in with a token, which this tab keeps. */
export async function signIn(token: string): Promise<void> {
  const text = token.trim();
  // No header holds another sign, so that nothing could be asked with it, nor the form shown again.
  if (!/^[!-~]+$/.test(text)) throw new Error("a token has letters, digits, '.', '-' and '_' alone: copy it anew");
  kept.token = text;
  await refresh();
}

function out(): void {
  now.value = undefined;
  session.value = { state: "asks", said: "Signed out.", form: true };
}

forgotten.by = out;

/** Forgets the token, in every tab. */
export function signOut(): void {
  forgetAll();
  out();
}
