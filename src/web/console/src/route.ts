// Where one is: every page, filter, tab and selection is in the address, so that a view can be sent on.

import { signal } from "@preact/signals";

/** A path and what stands behind its question mark. */
export interface Place {
  path: string;
  query: URLSearchParams;
}

function read(): Place {
  let path = location.pathname;
  try {
    path = decodeURI(path);
  } catch {
    // No page has such an address, and one that says so is drawn.
  }
  return { path, query: new URLSearchParams(location.search) };
}

export const place = signal<Place>(read());

/** Whether one came here by a link of the console, and not by loading its page. */
export const came = { byLink: false };

addEventListener("popstate", () => {
  came.byLink = true;
  place.value = read();
});

/** An address with its query; empty values are left out. */
export function to(path: string, query: Record<string, string | number | undefined> = {}): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") params.set(name, String(value));
  }
  const text = params.toString();
  return encodeURI(path) + (text ? `?${text}` : "");
}

/** Goes to another page: the focus goes to its heading, as after a click on a common link. */
export function go(address: string): void {
  came.byLink = true;
  history.pushState(null, "", address);
  place.value = read();
  scrollTo(0, 0);
}

/** Changes a part of the query. A filter or a tab is no step to come back to, unless `step` says so. */
export function setQuery(change: Record<string, string | number | undefined>, step = false): void {
  const query = new URLSearchParams(place.value.query);
  for (const [name, value] of Object.entries(change)) {
    if (value === undefined || value === "") query.delete(name);
    else query.set(name, String(value));
  }
  const text = query.toString();
  const address = location.pathname + (text ? `?${text}` : "");
  if (step) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  place.value = read();
}

/** A value of the query. */
export function asked(name: string, otherwise = ""): string {
  return place.value.query.get(name) ?? otherwise;
}

/** Whether a click is for this window: those with a key or the middle button are the browser's. */
export function isPlain(event: MouseEvent): boolean {
  return event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
}

/** Takes clicks on links of the console's own pages; help.html is no page of this script. */
export function follow(event: MouseEvent): void {
  const link = (event.target as Element | null)?.closest?.("a");
  if (!link || !isPlain(event) || event.defaultPrevented) return;
  if (link.origin !== location.origin || link.target || link.hasAttribute("download")) return;
  if (link.pathname.endsWith(".html") || (link.pathname === location.pathname && link.hash)) return;
  event.preventDefault();
  go(link.pathname + link.search);
}

/** The parts of a path that fits a pattern such as `/jobs/:job`. */
export function match(pattern: string, path: string): string[] | undefined {
  const wanted = pattern.split("/");
  const found = path.replace(/(.)\/$/, "$1").split("/");
  if (wanted.length !== found.length) return undefined;
  const parts: string[] = [];
  for (let at = 0; at < wanted.length; at++) {
    const want = wanted[at] ?? "";
    const got = found[at] ?? "";
    if (want.startsWith(":") && got) parts.push(got);
    else if (want !== got) return undefined;
  }
  return parts;
}
