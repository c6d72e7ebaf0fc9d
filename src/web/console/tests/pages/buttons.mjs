// Buttons that no other walk presses: statistics that are collected, made and withdrawn, an edit that becomes a
// version from its job, one that is computed again because somebody was faster; what is picked, pinned, swapped.

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  const page = await site.open("editor");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  const press = (name, options = {}) => page.getByRole("button", { name, exact: true, ...options }).click();
  const query = (name) => page.evaluate((it) => new URLSearchParams(location.search).get(it), name);
  const asked = (name, value) =>
    page.waitForFunction(([it, is]) => new URLSearchParams(location.search).get(it) === is, [name, value], {
      timeout: PATIENCE,
    });
  const main = () =>
    site
      .json("refs", "--model", site.model)
      .find((ref) => (ref.name ?? ref.ref).split("/").at(-1) === "main")
      .version.split("/")
      .at(-1);
  const before = main();

  // A layer without statistics: they are collected first, and then it can be edited.
  const playground = `/playground?model=${site.model}&prompt=Look%3A+The+Colosseum+is+in&subject=The+Colosseum&target=Rome`;
  await site.visit(page, `${playground}&layer=2`);
  await press("Collect 25,000 tokens first");
  await page.getByRole("button", { name: "Preview" }).waitFor({ timeout: 4 * PATIENCE });
  site.check(true, "statistics are collected in the playground");
  const [stats] = site.json("job", "list", "--kind", "stats").map((job) => job.name.split("/").at(-1));
  await site.visit(page, `/jobs/${stats}/results`);
  await press("Make statistics of it");
  const withdraw = page.getByRole("button", { name: "Withdraw statistics of layer 2" });
  await withdraw.waitFor({ timeout: PATIENCE });
  site.check(true, "made again, they are the same");
  await withdraw.click();
  await page.getByLabel("Why").fill("a test of the button");
  await site.accessible(page, "the dialog of a withdrawal");
  await press("Withdraw", { exact: true });
  await page.waitForSelector("dialog", { state: "detached", timeout: PATIENCE });
  await withdraw.waitFor({ state: "detached", timeout: PATIENCE });
  site.check(true, "and withdrawn");

  // A collection that was left: whoever began it finds it made, and a link makes nothing of another's.
  const left = `${playground}&layer=2&sums=${stats}`;
  const collect = (on) => on.getByRole("button", { name: "Collect 25,000 tokens first" });
  const admin = await site.open("admin");
  await site.visit(admin, left);
  await collect(admin).waitFor({ timeout: PATIENCE });
  await admin.waitForTimeout(1000);
  site.equal(await admin.getByRole("button", { name: "Preview" }).count(), 0, "a link makes nothing of another's job");
  await site.visit(page, left);
  await page.getByRole("button", { name: "Preview", exact: true }).waitFor({ timeout: PATIENCE });
  await asked("sums", null);
  site.check(true, "a collection goes on when the page was left meanwhile");
  const parent = `models/${site.model}`;
  const ofLayer = async () => {
    const { message } = await site.call("editor", "StatisticsService/ListStatistics", { parent, pageSize: 1000 });
    return message.statistics.filter((one) => one.layer === 2);
  };
  const drop = async () => {
    for (const one of await ofLayer())
      await site.call("editor", "StatisticsService/DeleteStatistics", { name: one.name, why: "a test" });
  };
  await drop();

  // Those of somebody who may not edit are not used by themselves.
  const source = { case: "job", value: `jobs/${stats}` };
  await site.call("submitter", "StatisticsService/CreateStatistics", { source });
  await site.visit(page, `${playground}&layer=2`);
  await collect(page).waitFor({ timeout: PATIENCE });
  site.equal(
    await page.getByRole("button", { name: "Preview", exact: true }).count(),
    0,
    "an editor collects where only a submitter did",
  );
  await press("Preview with those of sam");
  await page.waitForSelector(".dumbbell svg", { timeout: 3 * PATIENCE });
  site.check(true, "or computes with those, by their name");
  const sam = await site.open("submitter");
  await site.visit(sam, `${playground}&layer=2`);
  await sam.getByRole("button", { name: "Preview with those of sam" }).waitFor({ timeout: PATIENCE });
  site.equal(await collect(sam).count(), 0, "a submitter, for whom it would change nothing, is not sent to collect");
  await drop();

  // An edit that is only a job becomes a version.
  await site.visit(page, `${playground}&layer=1`);
  await press("Preview");
  await page.waitForSelector(".dumbbell svg", { timeout: 3 * PATIENCE });
  const edit = await query("edit");
  await site.visit(page, `/jobs/${edit}/results`);
  await press("Commit");
  await page.getByLabel("Why").fill("a test of the button");
  await site.accessible(page, "the dialog of a commit");
  await page.locator("dialog").getByRole("button", { name: "Commit", exact: true }).click();
  await page.waitForSelector("text=has it.", { timeout: PATIENCE });
  site.check(main() !== before, "an edit is committed from its job");
  site.command("rollback", "--to", before, "--why", "back");

  // Somebody was faster: the same again, on what is there now.
  await site.visit(page, `${playground}&layer=1`);
  await press("Preview");
  await page.waitForSelector(".dumbbell svg", { timeout: 3 * PATIENCE });
  site.command("rollback", "--to", "v0", "--why", "a second editor");
  await press("Commit to main");
  await page.waitForSelector("#conflict-box", { timeout: PATIENCE });
  await press("Compute again on the new version");
  await asked("version", main());
  await asked("edit", null);
  await press("Preview");
  await page.waitForSelector(".dumbbell svg", { timeout: 3 * PATIENCE });
  site.check(true, "what was too late is computed again on the new version");
  site.command("rollback", "--to", before, "--why", "back");
  await site.sound(page, "the playground after a conflict");

  // Jobs: picked, pinned, held against the baseline.
  await site.visit(page, "/jobs?kind=trace");
  const box = (id) => page.getByLabel(`Compare job ${id.slice(-8)}`);
  await box(site.jobs.sweep).check();
  await press("Pin as baseline");
  await page.waitForSelector("text=Baseline:", { timeout: PATIENCE });
  await box(site.jobs.other_sweep).check();
  const two = page.getByRole("link", { name: "Compare the two" });
  await two.waitFor({ timeout: PATIENCE });
  await box(site.jobs.sweep).uncheck();
  await page.getByRole("link", { name: "Compare with the baseline" }).click();
  await page.waitForSelector("#both", { timeout: PATIENCE });
  site.equal(
    [await query("left"), await query("right")],
    [site.jobs.sweep, site.jobs.other_sweep],
    "a job is held against the baseline",
  );
  await press("Swap");
  await asked("left", site.jobs.other_sweep);
  await page.waitForSelector("#both", { timeout: PATIENCE });
  await site.visit(page, "/jobs");
  await press("unpin");
  await page.waitForSelector("text=Baseline:", { state: "detached", timeout: PATIENCE });
  await site.visit(page, `/models/${site.model}/diff?left=v0&right=main`);
  await press("Swap");
  await page.waitForFunction(
    () => [...document.querySelectorAll("h2")].map((it) => it.textContent)[1] === "Only v0 has",
    undefined,
    { timeout: PATIENCE },
  );
  site.equal(await query("left"), "main", "sides are swapped");

  // A job: its events, and what it is as a command and as JSON.
  await site.visit(page, `/jobs/${site.jobs.sweep}`);
  await page.getByText(/^Events/).click();
  await press("All of them");
  await page.waitForFunction(() => document.querySelectorAll(".events li").length > 10, undefined, {
    timeout: PATIENCE,
  });
  site.check(
    (await page.textContent(".events")).includes("the job is succeeded"),
    "events are there when they are asked for",
  );
  await page.getByText("Copy as").click();
  for (const [what, part] of [
    ["Command", `palimpsest job show ${site.jobs.sweep}`],
    ["Python", `p.job("${site.jobs.sweep}")`],
    ["JSON", `"jobs/${site.jobs.sweep}"`],
  ]) {
    await press(what);
    await page.waitForSelector(`text=${what} copied`, { timeout: PATIENCE });
    site.check((await page.evaluate(() => navigator.clipboard.readText())).includes(part), `it is copied as ${what}`);
  }
  await press("Run again");
  await press("Run it");
  await page.waitForFunction((id) => !location.pathname.endsWith(id), site.jobs.sweep, { timeout: PATIENCE });
  await page.waitForFunction(() => document.querySelector(".live .state")?.textContent === "succeeded", undefined, {
    timeout: PATIENCE,
  });
  site.check((await page.textContent(".live")).includes("from the store"), "run again, it is answered from the store");

  // Results: one map as wide as the page, a record, an edit of many.
  await site.visit(page, `/jobs/${site.jobs.sweep}/results?tab=facts`);
  await page.getByRole("button", { name: "full width" }).first().click();
  await page.waitForFunction(() => document.querySelectorAll(".fact figure.map").length === 1, undefined, {
    timeout: PATIENCE,
  });
  await press("all kinds");
  await page.waitForFunction(() => document.querySelectorAll(".fact figure.map").length === 3, undefined, {
    timeout: PATIENCE,
  });
  await press("Maps of fact 2");
  await asked("fact", "2");
  await site.visit(page, `/jobs/${site.jobs.evaluation}/results`);
  await page.getByRole("button", { name: "Answers of record 2" }).click();
  await asked("record", "1");
  await site.visit(page, `/jobs/${site.jobs.mass_edit}/results?tab=facts`);
  await page
    .getByRole("button", { name: /^Probes of unit/ })
    .last()
    .click();
  await page.waitForSelector(".dumbbell svg, .detail", { timeout: PATIENCE });
  site.check(true, "what is chosen in a table is shown");
  await site.visit(page, "/workers?worker=w1");
  await press("All of them");
  await asked("worker", null);
  await site.sound(page, "the workers");
}
