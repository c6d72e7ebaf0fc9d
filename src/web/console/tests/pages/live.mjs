// What moves: a sweep that the command line submits, a tab that is hidden, a server that goes and comes back.

import { PATIENCE } from "../site.mjs";

const TRACE = [
  "trace",
  "--facts",
  "facts.jsonl",
  "--noise",
  "0.2",
  "--samples",
  "60",
  "--engine",
  "plain",
  "--no-cache",
  "--detach",
];

export default async function (site) {
  const page = await site.open("editor");
  await site.visit(page, "/jobs");
  const before = await page.textContent("#shown");
  const said = site.command(...TRACE);
  const id = /jobs\/([0-9a-f-]+)/.exec(said)?.[1] ?? site.json("job", "list")[0].name.split("/").at(-1);
  await page.waitForFunction((was) => document.querySelector("#shown")?.textContent !== was, before, {
    timeout: PATIENCE,
  });
  site.check((await page.textContent("main")).includes(id.slice(-8)), "a new job comes into the list by itself");

  let streams = 0;
  const is = (request) => request.url().endsWith("/WatchJob");
  page.on("request", (request) => (streams += is(request) ? 1 : 0));
  const over = (request) => (streams -= is(request) ? 1 : 0);
  page.on("requestfinished", over);
  page.on("requestfailed", over);
  await site.visit(page, `/jobs/${id}`);
  const done = () =>
    page.evaluate(() =>
      Number(
        /([0-9,]+) of/.exec(document.querySelector(".live .large")?.textContent ?? "")?.[1]?.replaceAll(",", "") ?? -1,
      ),
    );
  const state = () => page.evaluate(() => document.querySelector(".live .state")?.textContent);
  const first = await done();
  if ((await state()) === "running") {
    site.check(streams === 1, `a page has one stream, and not ${streams}`);
    await page.waitForFunction(
      (was) => Number(/([0-9,]+) of/.exec(document.querySelector(".live .large")?.textContent ?? "")?.[1]) > was,
      first,
      { timeout: PATIENCE },
    );
    site.check(true, "units come in by themselves");
    site.check((await site.methods(page)).includes("JobService/CancelJob"), "a running job can be cancelled");
    await site.hidden(page, true);
    await page.waitForTimeout(500);
    site.equal(streams, 0, "a hidden tab has no stream");
    const missed = await done();
    await page.waitForTimeout(1500);
    site.equal(await done(), missed, "and does not move");
    await site.hidden(page, false);
  }
  // Its map takes in what comes, to the last fact, without being loaded again.
  const beside = site.watched(await page.context().newPage(), site.url);
  await site.visit(beside, `/jobs/${id}/results?tab=map`);
  const drawn = "main p[role=status].quiet";
  const early = (await state()) === "running" && (await beside.textContent(drawn));
  await page.waitForFunction(() => document.querySelector(".live .state")?.textContent === "succeeded", undefined, {
    timeout: 3 * PATIENCE,
  });
  const facts = site.json("job", "results", id).filter((it) => it.kind === "hidden" && it.scores?.length).length;
  await beside.waitForFunction(
    ([where, all]) => [...document.querySelectorAll(where)].some((it) => it.textContent.startsWith(`${all} fact`)),
    [drawn, facts],
    { timeout: PATIENCE },
  );
  site.check(facts > 1, `the map of a running sweep goes on to all ${facts} facts${early ? `, from "${early}"` : ""}`);
  await beside.close();
  const [job] = site.json("job", "show", id);
  const units = job.counts?.units ?? job.units;
  if (units !== undefined) site.equal(await done(), Number(units), "shown again, it has missed nothing");
  await page.waitForTimeout(500);
  site.equal(streams, 0, "of a job that ended there is no stream");
  await site.sound(page, "a job that was followed");

  // Another one, cancelled from its page.
  site.command(...TRACE.map((word) => (word === "60" ? "61" : word)));
  const other = site.json("job", "list")[0].name.split("/").at(-1);
  await site.visit(page, `/jobs/${other}`);
  if (await page.getByRole("button", { name: /^Cancel job/ }).count()) {
    await page.getByRole("button", { name: /^Cancel job/ }).click();
    await site.accessible(page, "the dialog");
    await page.getByRole("button", { name: "Cancel the job" }).click();
    await page.waitForFunction(
      () => ["cancelled", "succeeded"].includes(document.querySelector(".live .state")?.textContent ?? ""),
      undefined,
      { timeout: PATIENCE },
    );
    site.check(true, "a job is cancelled from its page");
  }

  // The server goes, and comes back: the page says so, and needs nobody.
  page.expected.push(/net::ERR_INTERNET_DISCONNECTED/);
  await site.visit(page, "/");
  await page.context().setOffline(true);
  await page.waitForSelector(".lost", { timeout: PATIENCE });
  site.check(
    (await page.textContent(".lost")).includes("Nothing comes from the server"),
    "a page says that nothing comes",
  );
  await page.context().setOffline(false);
  await page.waitForSelector(".lost", { state: "detached", timeout: PATIENCE });
  site.check(true, "and comes back by itself");

  // A browser has six connections to a server that speaks HTTP/1.1: hidden tabs keep none of them.
  for (let n = 0; n < 8; n++) {
    const tab = site.watched(await page.context().newPage(), site.url);
    await site.visit(tab, "/audit");
    await site.hidden(tab, true);
  }
  const ninth = site.watched(await page.context().newPage(), site.url);
  const begun = Date.now();
  await site.visit(ninth, "/jobs");
  site.check(
    (await ninth.locator("tbody tr").count()) > 0 && Date.now() - begun < 20_000,
    "behind eight tabs the ninth lists jobs",
  );
}
