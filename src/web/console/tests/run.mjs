// Walks the console's pages in a real browser: `node tests/run.mjs URL SITE.json [PAGE...]`.
//
// URL is a console for a team, whose callers show tokens. SITE.json says what is behind it:
//
// - `tokens`: one of each role, `viewer`, `submitter`, `editor`, `admin`;
// - `model`, `jobs`, `edit`: what there is to look at. Jobs: `sweep`, `other_sweep`, `heads`, `other_heads`,
//   `completions`, `statistics`, `edit`, `rejected_edit`, `mass_edit`, `evaluation`, `other_evaluation`;
// - `markup`: a text that looks like markup and is in prompts and reasons;
// - `own`: a console on the user's own machine, with its key in the address (left out: not tried);
// - `tls`: another console for a team, `url`, `ca`, and an editor's `certificate` and `key` (left out: not tried);
// - `cli`: `program`, `folder` and `arguments` by which an editor asks the coordinator;
// - `serve`: how the coordinator is started, `pid`, `program`, `folder`, `environment` and `arguments`, and with
//   `forked` on a store that went another way from some entry on (left out: not tried);
// - `python`: a Python with NumPy (left out: what is taken along is not read);
// - `held`: a `job` that is held and a `worker` that is excluded, instead of all else (left out: not tried);
// - `chromium`, `screenshots`: the browser, and the folder for pictures.
//
// With PAGE only those of tests/pages. With CONSOLE_DIST in the environment pages come from that folder, where
// `node build.mjs` has just put them, and not from the program. Ends with 0 when all that is promised holds.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { Site } from "./site.mjs";

const [url, file, ...wanted] = process.argv.slice(2);
if (!url || !file) {
  console.error("usage: node tests/run.mjs URL SITE.json [PAGE...]");
  process.exit(2);
}
const dist = process.env.CONSOLE_DIST ? resolve(process.env.CONSOLE_DIST) : undefined;
const site = new Site({ ...JSON.parse(readFileSync(file, "utf8")), url, dist });
const folder = join(dirname(fileURLToPath(import.meta.url)), "pages");
const names = readdirSync(folder)
  .filter((name) => name.endsWith(".mjs"))
  .map((name) => name.slice(0, -4))
  .sort();
for (const name of names) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  site.now = name;
  const [begun, checks] = [Date.now(), site.checks];
  try {
    const { default: walk } = await import(join(folder, `${name}.mjs`));
    await walk(site);
  } catch (error) {
    site.failed.push(`${name}: ${error?.stack ?? error}`);
    console.log(`  BROKE OFF: ${error?.stack ?? error}`);
    await site.picture(`broke-off-${name}`);
  }
  await site.close();
  console.log(`${name}: ${site.checks - checks} checks, ${((Date.now() - begun) / 1000).toFixed(1)} s`);
}
await site.end();
if (site.failed.length > 0) {
  console.log(`\n${site.failed.length} of ${site.checks} do not hold:`);
  for (const what of site.failed) console.log(`- ${what}`);
  process.exit(1);
}
console.log(`all ${site.checks} hold`);
