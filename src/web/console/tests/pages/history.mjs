// The history: what is on it, and every change that can be made from it.

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  const page = await site.open("editor");
  // A store that was walked through before has refs of other names.
  const turn = Date.now();
  const path = `/models/${site.model}/history`;
  await site.visit(page, path);
  const rows = await page.locator("table.history tbody tr").count();
  const listed = site.json("log", "--model", site.model);
  site.check(
    rows >= 2 && (listed.length === 0 || rows === listed.length),
    `every version has a row: ${rows} of ${listed.length}`,
  );
  const main = () =>
    site.json("refs", "--model", site.model).find((ref) => (ref.name ?? ref.ref).split("/").at(-1) === "main");
  const version = (ref) => (ref.version ?? "").split("/").at(-1);
  const before = version(main());

  await page.getByRole("button", { name: "Roll back main to v0" }).click();
  await page.getByLabel("Why").fill("looked at in a test");
  await site.accessible(page, "the dialog of a rollback");
  await site.shot(page, "rollback");
  await page.getByRole("button", { name: "Move main" }).click();
  await page.waitForSelector("dialog", { state: "detached", timeout: PATIENCE });
  await page.waitForFunction(
    () =>
      [...document.querySelectorAll("table.history tbody tr:last-child .ref")].some((it) => it.textContent === "main"),
    undefined,
    { timeout: PATIENCE },
  );
  site.check(version(main()) !== before, "main was rolled back");
  site.check(
    (await page.textContent(".moves")).includes("looked at in a test"),
    "and the movement is listed with its reason",
  );

  // Somebody is faster: the dialog says who, and nothing is done.
  const row = page.locator("table.history tbody tr", { hasText: before.slice(0, 8) });
  await page.evaluate(() => {
    // The page as it was read stays: nothing newer comes.
    Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  site.command("rollback", "--to", before, "--why", "somebody else");
  await row.getByRole("button", { name: /^Roll back main/ }).click();
  await page.getByLabel("Why").fill("too late");
  await page.getByRole("button", { name: "Move main" }).click();
  await page.waitForSelector("text=The branch moved meanwhile", { timeout: PATIENCE });
  site.check((await page.textContent("dialog")).includes("ada"), "a conflict says who moved it");
  await site.accessible(page, "the dialog of a conflict");
  await page.getByRole("button", { name: "Read it again" }).click();
  await site.hidden(page, false);

  for (const [button, action, name] of [
    ["Tag", "Make the tag", `looked-at-${turn}`],
    ["Branch", "Make the branch", `another-line-${turn}`],
  ]) {
    await page.getByRole("button", { name: `${button.toLowerCase()} v0` }).click();
    await page.getByLabel("Name").fill(name);
    await page.getByRole("button", { name: action }).click();
    await page.waitForSelector("dialog", { state: "detached", timeout: PATIENCE });
    await page.waitForSelector(`.ref >> text=${name}`, { timeout: PATIENCE });
    site.check(true, `${name} is there`);
  }
  await page.getByLabel("Compare v0", { exact: true }).check();
  await page.getByLabel("Compare v1", { exact: true }).check();
  await page.getByRole("link", { name: "What differs", exact: true }).click();
  await site.settled(page);
  site.check(
    /\/diff\?/.test(page.url()) && (await page.textContent("main")).includes("Matrices"),
    "two that are picked are compared",
  );
  await page.getByLabel("Prompts, one a line").fill("The tower stands in");
  await page.getByRole("button", { name: "Ask both" }).click();
  await page.waitForSelector("text=/answers? of 1 differ/", { timeout: 2 * PATIENCE });
  await site.sound(page, "a diff with its probes");
  await site.shot(page, "diff-probes");

  // An edit is taken out of a branch and picked again.
  await site.visit(page, `/${site.edit.startsWith("models/") ? site.edit : `models/${site.model}/edits/${site.edit}`}`);
  await page.getByRole("button", { name: new RegExp(`^Pick onto another-line-${turn}`) }).click();
  await page.getByRole("button", { name: "Pick it" }).click();
  await page.waitForSelector("dialog", { state: "detached", timeout: PATIENCE });
  await page.getByRole("button", { name: new RegExp(`^Revert from another-line-${turn}`) }).click();
  await page.getByRole("button", { name: "Revert it" }).click();
  await page.waitForSelector("dialog", { state: "detached", timeout: PATIENCE });
  site.check(true, "an edit is picked onto a branch and reverted from it");
  await site.sound(page, "an edit");
}
