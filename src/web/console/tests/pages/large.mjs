// What grows: a job of a million units opens at once, and 2,000 facts can be worked with. Only where SITE.json has
// `large`: `million`, a job of a million units, and `sweep`, one of 2,000 facts.

import { statSync } from "node:fs";

import { PATIENCE } from "../site.mjs";

const ROUNDS = 5;

export default async function (site) {
  if (!site.large) return;
  const { million, sweep } = site.large;
  const page = await site.open();
  await site.visit(page, "/jobs");

  /** The least time of several in which a link leads to what is waited for, in milliseconds. */
  const opened = async (what, back, link, ready) => {
    let least = Infinity;
    for (let n = 0; n < ROUNDS; n++) {
      await site.visit(page, back);
      const begun = await page.evaluate((href) => {
        const link = document.createElement("a");
        link.href = href;
        document.querySelector("main").append(link);
        link.click();
        link.remove();
        return performance.now();
      }, link);
      await page.waitForFunction(ready, undefined, { timeout: PATIENCE, polling: "raf" });
      least = Math.min(least, (await page.evaluate(() => performance.now())) - begun);
    }
    console.log(`  ${what}: ${least.toFixed(0)} ms`);
    return least;
  };

  const job = await opened("a job of a million units", "/jobs", `/jobs/${million}`, () =>
    /1,000,002/.test(document.querySelector(".live")?.textContent ?? ""),
  );
  site.check(job < 1000, `a job of a million units opens in under a second: ${job.toFixed(0)} ms`);
  await site.sound(page, "a job of a million units");

  const results = `/jobs/${sweep}/results?kind=mlp`;
  await opened("averages of 2,000 facts", "/jobs", results, () =>
    /effects peak at/.test(document.querySelector("#sentence")?.textContent ?? ""),
  );
  const table = await opened(
    "a table of 2,000 facts",
    "/jobs",
    `${results}&tab=facts`,
    () => document.querySelectorAll("main table tbody tr").length > 10,
  );
  const map = await opened(
    "a map of 2,000 facts",
    "/jobs",
    `${results}&tab=map`,
    () => document.querySelector("main image[data-cells]") !== null,
  );
  await opened(
    "a whole map of 2,000 facts",
    "/jobs",
    `${results}&tab=map`,
    () =>
      document.querySelector("main image[data-cells]") !== null &&
      !document.querySelector("main").textContent.includes("so far"),
  );
  site.check(
    table < 5000 && map < 5000,
    `2,000 facts are there in a few seconds: ${table.toFixed(0)} and ${map.toFixed(0)} ms`,
  );
  const elements = await page.evaluate(() => document.querySelectorAll("*").length);
  site.check(elements < 5000, `no element a fact and layer: ${elements}`);
  await site.sound(page, "a map of 2,000 facts");
  await site.shot(page, "map-2000");

  // All of it as files: one a fact and kind, in a zip file that is made page by page.
  await site.visit(page, `/jobs/${sweep}/results`);
  const begun = Date.now();
  const [file] = await Promise.all([
    page.waitForEvent("download", { timeout: 4 * PATIENCE }),
    page.getByRole("button", { name: "All as NPZ" }).click(),
  ]);
  const { size } = statSync(await file.path());
  const { heap } = await page.evaluate(() => ({ heap: performance.memory.usedJSHeapSize }));
  console.log(
    `  2,000 facts taken along: ${Date.now() - begun} ms, ${(size / 1e6).toFixed(1)} MB, ${(heap / 1e6).toFixed(0)} MB of heap`,
  );
  site.check(size > 1e6, `files of 2,000 facts are taken along: ${size} bytes`);
}
