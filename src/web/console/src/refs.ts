// The refs of a model, however many they are.

import type { Ref } from "../contract/palimpsest/v1/version_pb";
import { versions } from "./client";

/** Refs that are read; a model has a handful, one with a tag a night some thousands. */
export const MOST_REFS = 20_000;

export async function allRefs(parent: string, signal: AbortSignal): Promise<Ref[]> {
  const refs: Ref[] = [];
  let pageToken = "";
  do {
    const page = await versions.listRefs({ parent, pageSize: 1000, pageToken }, { signal });
    refs.push(...page.refs);
    pageToken = page.nextPageToken;
  } while (pageToken && refs.length < MOST_REFS);
  return refs;
}
