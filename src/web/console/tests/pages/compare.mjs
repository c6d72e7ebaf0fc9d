// Two sweeps over each other: fact by fact, head by head, on another version, and from what a diff says.

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  const { number } = await site.module("src/format.ts");
  const page = await site.open("editor");
  const { heads, other_heads: other, sweep } = site.jobs;
  const grids = (id, kind) => site.json("job", "results", id).filter((it) => it.kind === kind && it.scores?.length > 0);

  // Heads at single tokens: a position a page, with one cursor over all three.
  const [left, right] = [grids(heads, "head")[0], grids(other, "head")[0]];
  const at = 3;
  const cells = (grid) => {
    // [token, head, layer] of the file; a row a head in the map.
    return grid.scores[at].map((head) => head.map((score) => score - grid.low));
  };
  await site.visit(page, `/compare?left=${heads}&right=${other}&kind=head&token=${at}`);
  await page.waitForSelector("figure.map svg", { timeout: PATIENCE });
  const map = (side) =>
    page
      .locator("section", { has: page.locator("h2 u") })
      .locator("figure.map", { has: page.locator(`svg[aria-label^='${side}:']`) });
  const shown = async (side) => {
    await map(side).getByRole("button", { name: "as a table" }).click();
    return map(side).locator("tbody td").allTextContents();
  };
  const [l, r] = [cells(left).flat(), cells(right).flat()];
  site.equal(await shown("Left"), l.map(number), "the left map is of the heads at the token that is asked for");
  site.equal(await shown("Right"), r.map(number), "and so is the right one");
  site.equal(
    await shown("Right less left"),
    r.map((value, cell) => number(value - l[cell])),
    "and the third is what lies between them",
  );
  await map("Left").locator("svg").focus();
  await page.keyboard.press("ArrowRight");
  const lines = await Promise.all(
    ["Left", "Right", "Right less left"].map((side) => map(side).locator(".readout").textContent()),
  );
  site.check(lines[0].includes("head 0, layer 0") && new Set(lines).size === 1, `one cursor for all: ${lines[0]}`);
  await page.getByLabel("Heads at").selectOption("0");
  await page.waitForFunction(() => new URLSearchParams(location.search).get("token") === "0");
  site.check(
    (await map("Left").locator("svg").getAttribute("aria-label")).includes(left.tokens[0]),
    "another position is another page",
  );
  site.check(
    (await page
      .locator("section", { has: page.locator("h2 >> text=Averages") })
      .locator("figure.map")
      .count()) === 3,
    "averages of heads are laid over each other too",
  );
  await site.sound(page, "heads, compared");
  await site.shot(page, "compare-heads");
  await site.visit(page, `/compare?left=${heads}&right=${other}&kind=head_all`);
  await page.waitForSelector("figure.map svg", { timeout: PATIENCE });
  site.equal(await page.getByLabel("Heads at").count(), 0, "where every token is patched there are no pages");
  await site.sound(page, "heads at every token, compared");

  // Two as pages show them, by their ends.
  const end = (id) => id.slice(-8);
  await site.visit(page, `/compare?left=${end(heads)}&right=${end(other)}`);
  await page.waitForSelector("#both", { timeout: PATIENCE });
  site.check(true, "jobs are found by their ends");
  await page.getByText("Copy as").click();
  await page.waitForSelector(".copy pre");
  const [command, python] = await page.locator(".copy pre").allTextContents();
  site.equal(
    [command.split("\n"), python.split("\n")],
    [
      [heads, other].map((id) => `palimpsest job results ${id} --averages`),
      [`a = p.job("${heads}")`, `b = p.job("${other}")`],
    ],
    "both are copied whole",
  );
  page.expected = [/status of 404/];
  await site.visit(page, "/compare?left=ffffffff");
  await page.waitForSelector(".wrong", { timeout: PATIENCE });
  site.check((await page.textContent(".wrong")).includes("jobs/ffffffff does not exist"), "one that is none is told");
  page.wrong = [];

  // The same facts on another version: the new job is the other side, and the page follows it.
  await site.visit(page, `/compare?left=${sweep}`);
  await page.getByText("Trace the left one's facts on another version").click();
  await page.getByLabel("Version", { exact: true }).fill("main");
  await page.getByRole("button", { name: "Trace", exact: true }).click();
  await page.waitForFunction(
    (id) =>
      new URLSearchParams(location.search).get("right") && new URLSearchParams(location.search).get("right") !== id,
    sweep,
    { timeout: PATIENCE },
  );
  await page.waitForSelector("#both", { timeout: 3 * PATIENCE });
  await page.waitForFunction(
    () => /12 facts in both/.test(document.querySelector("#both")?.textContent ?? ""),
    undefined,
    { timeout: 3 * PATIENCE },
  );
  site.check((await page.textContent("table")).includes("version"), "what differs is the version");
  await site.sound(page, "one sweep on two versions");
  await site.shot(page, "compare-versions");

  // From a diff: its facts on both.
  await site.visit(page, `/models/${site.model}/diff?left=v0&right=reviewed`);
  await page.getByRole("button", { name: /^Trace [0-9]+ facts? on both versions$/ }).click();
  const link = page.getByRole("link", { name: "Compare the two traces" });
  await link.waitFor({ timeout: PATIENCE });
  await page.waitForFunction(() => document.querySelectorAll("#traced li").length === 2, undefined, {
    timeout: PATIENCE,
  });
  await page.waitForFunction(
    () => [...document.querySelectorAll("#traced li")].every((it) => it.textContent.includes("is succeeded")),
    undefined,
    { timeout: 3 * PATIENCE },
  );
  await site.sound(page, "a diff whose facts were traced");
  await link.click();
  await page.waitForSelector("#both", { timeout: PATIENCE });
  site.check(
    /4 facts in both/.test(await page.textContent("#both")),
    `all facts of the diff: ${await page.textContent("#both")}`,
  );
  await page.waitForSelector("figure.map svg", { timeout: PATIENCE });

  // An address may tell of answers and traces of other versions: those are not of what is seen.
  const { completions } = site.jobs;
  const told = `probes=${completions},${completions}&traces=${sweep},${sweep}`;
  const answers = page.getByLabel("What both say");
  await site.visit(page, `/models/${site.model}/diff?left=main&right=reviewed&${told}`);
  await page.waitForTimeout(1500);
  site.equal(await answers.count(), 0, "answers of other versions are not shown");
  site.equal(await page.locator("#traced").count(), 0, "nor traces");
  await page.getByLabel("Left", { exact: true }).fill("v0");
  await page.getByLabel("Left", { exact: true }).press("Enter");
  // What is read for it draws the page anew.
  await page.waitForSelector("h2 >> text=Only v0 has", { timeout: PATIENCE });
  await page.waitForTimeout(500);
  await page.getByLabel("Right", { exact: true }).fill("v0");
  await page.getByLabel("Right", { exact: true }).press("Enter");
  await answers.waitFor({ timeout: PATIENCE });
  site.check(true, "and those of these are");

  // All the edits, though an answer has one.
  await page.route("**/*VersionService/CompareVersions", async (route) => {
    const body = route.request().postDataBuffer();
    // The last value of a field counts: page_size, field 3, of one.
    const asked = Buffer.concat([body.subarray(5), Buffer.from([0x18, 1])]);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(asked.length, 1);
    await route.continue({ postData: Buffer.concat([head, asked]) });
  });
  await site.visit(page, `/models/${site.model}/diff?left=v0&right=reviewed`);
  const facts = () =>
    page
      .locator("section", { has: page.locator("h2 >> text=Only v") })
      .locator("tbody tr")
      .count();
  const first = await facts();
  await page.getByRole("button", { name: "More of them" }).click();
  await page.getByRole("button", { name: "More of them" }).waitFor({ state: "detached", timeout: PATIENCE });
  site.check(
    first < 4 && (await facts()) === 4,
    `every fact of every edit is there, page after page: ${first}, then ${await facts()}`,
  );
  site.check((await page.textContent("main")).includes("The page"), "those of an edit of many, too");
  await site.sound(page, "a diff of several pages");
  await site.shot(page, "diff-pages");

  // What computed them: the same here, and said where it is not.
  await site.visit(page, `/jobs/${sweep}`);
  const by = page.locator("section", { has: page.locator("h2 >> text=Computed by") });
  site.check(
    /1 thread, libtorch .*, engine [0-9]+.*: [0-9]+ results/.test(await by.textContent()),
    await by.textContent(),
  );
  await site.visit(page, `/compare?left=${sweep}&right=${site.jobs.other_sweep}`);
  await page.waitForSelector("#both", { timeout: PATIENCE });
  site.equal(await page.locator("#computed").count(), 0, "where both were computed alike nothing is said");
  await page.route("**/*JobService/ListResults", async (route) => {
    const answer = await route.fetch({ maxRetries: 3 });
    const body = await answer.body();
    const its = route.request().postDataBuffer().includes(site.jobs.other_sweep);
    // Of one side, another number format.
    const other = () => Buffer.from(body.toString("latin1").replaceAll("\u0003f32", "\u0003f16"), "latin1");
    await route.fulfill({ response: answer, body: its ? other() : body });
  });
  await site.visit(page, `/compare?left=${sweep}&right=${site.jobs.other_sweep}`);
  await page.waitForSelector("#computed", { timeout: PATIENCE });
  site.check(
    /Left[\s\S]*f32[\s\S]*Right[\s\S]*f16/.test(await page.textContent("#computed")),
    "where they were not it is said",
  );
  await site.sound(page, "two that were not computed alike");
}
