// The coordinator is killed and comes back; another time it comes back with a log that it has rewritten.

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  if (!site.serve) return;
  const page = await site.open("editor");
  page.expected.push(/Failed to load resource|net::ERR_/);
  const said = site.command(
    "trace",
    "--facts",
    "facts.jsonl",
    "--noise",
    "0.2",
    "--samples",
    "80",
    "--engine",
    "plain",
    "--no-cache",
    "--detach",
  );
  const id = /jobs\/([0-9a-f-]+)/.exec(said)?.[1] ?? site.json("job", "list")[0].name.split("/").at(-1);
  await site.visit(page, `/jobs/${id}`);
  await site.stop();
  await page.waitForSelector(".lost", { timeout: PATIENCE });
  site.check(true, "a page says that the coordinator is gone");
  // A page that is opened now waits with it.
  const beside = site.watched(await page.context().newPage(), site.url);
  beside.expected.push(/Failed to load resource|net::ERR_/);
  const model = `/models/${site.model}`;
  await site.restart();
  await site.visit(beside, model);
  await site.stop();
  await beside.click("header nav >> text=Models");
  await beside.waitForSelector(".lost", { timeout: PATIENCE });
  await beside.goBack();
  // One whose pages come from a console that is still there is loaded now, and waits with them.
  const own = site.own && (await site.open(undefined, { url: site.own }));
  if (own) {
    await own.goto(site.own);
    await own.waitForSelector("text=The server does not answer", { timeout: PATIENCE });
  }
  await site.restart();
  if (own) {
    await own.waitForSelector("#who", { timeout: 2 * PATIENCE });
    site.check(true, "a page that was loaded while the coordinator was away waits for it");
    await own.close();
  }
  await beside.waitForSelector(`main >> text=${site.model}`, { timeout: 2 * PATIENCE });
  await beside.waitForSelector("main h2", { timeout: 2 * PATIENCE });
  site.check(true, "a page that was opened meanwhile reads what it is of when the coordinator is back");
  await beside.close();
  await page.waitForSelector(".lost", { state: "detached", timeout: 2 * PATIENCE });
  await page.waitForFunction(() => document.querySelector(".live .state")?.textContent === "succeeded", undefined, {
    timeout: 4 * PATIENCE,
  });
  site.check(true, "and goes on by itself when it is back, to the job's end");
  await site.sound(page, "a job that lost its coordinator");

  await site.visit(page, "/audit");
  await page.waitForSelector(".witness.green", { timeout: PATIENCE });
  await site.restart("forked");
  await page.reload();
  await site.settled(page);
  await page.waitForSelector(".witness.red", { timeout: PATIENCE });
  site.check(
    /does not go on from|cut off|No proof/.test(await page.textContent("#witness")),
    "a log that was rewritten is red",
  );
  await site.shot(page, "witness-red");
  await site.restart();
  await page.reload();
  await site.settled(page);
  await page.waitForSelector(".witness.green", { timeout: PATIENCE });
  site.check(true, "the true one is green again: what was kept is kept");
}
