// The playground: asked, traced, previewed, tried, committed, and taken back; with somebody faster in between.

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  const page = await site.open("editor");
  const refs = () =>
    Object.fromEntries(
      site
        .json("refs", "--model", site.model)
        .map((ref) => [(ref.name ?? ref.ref).split("/").at(-1), ref.version.split("/").at(-1)]),
    );
  const main = refs().main;
  await site.visit(page, `/playground?model=${site.model}`);
  const prompt = "Look: The Colosseum is in";
  await page.fill("#prompt", prompt);
  // The subject is marked with the mouse.
  await page.evaluate(() => {
    const box = document.querySelector("#prompt");
    box.focus();
    box.setSelectionRange(6, 19);
    box.dispatchEvent(new Event("select", { bubbles: true }));
  });
  site.equal(
    await page.getByLabel("Subject", { exact: true }).inputValue(),
    "The Colosseum",
    "what is marked is the subject",
  );
  await page.getByRole("button", { name: "Complete" }).click();
  await page.waitForSelector(".said ins", { timeout: PATIENCE });
  await page.getByRole("button", { name: "Trace" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".fact figure.map svg").length === 3, undefined, {
    timeout: 2 * PATIENCE,
  });
  await page.waitForFunction(
    () =>
      [...document.querySelectorAll("label")].some(
        (it) => it.textContent === "Layer" && it.querySelector("input")?.value !== "",
      ),
    undefined,
    { timeout: PATIENCE },
  );
  site.check(true, "the layer comes from the trace");
  await page.getByLabel("Layer", { exact: true }).fill("1");
  await page.getByLabel("It is to say").fill("Rome");
  await page.getByLabel("What is true").fill("Paris");
  await page.getByLabel("Paraphrases, one a line").fill("The Colosseum stands in");
  await page.getByLabel("Neighbours, one a line").fill("The river is in");
  await page.getByLabel("Why", { exact: true }).fill("a test of the playground");
  await page.getByRole("button", { name: "Preview" }).click();
  await page.waitForSelector(".dumbbell svg", { timeout: 3 * PATIENCE });
  site.equal(refs().main, main, "a preview moves nothing");
  await page.getByRole("button", { name: "Ask both" }).click();
  await page.waitForSelector("th >> text=With the edit", { timeout: 2 * PATIENCE });
  site.equal(refs().main, main, "neither does a try");
  site.check(refs()["scratch-ada"] !== undefined, "which is on the visitor's own branch");
  await site.sound(page, "the playground");

  // A second editor in between.
  site.command("rollback", "--to", "v0", "--why", "a second editor");
  await page.getByRole("button", { name: "Commit to main" }).click();
  await page.waitForSelector("#conflict-box", { timeout: PATIENCE });
  site.check(
    (await page.textContent("#conflict-box")).includes("a second editor"),
    "a conflict says who moved it and why",
  );
  await site.accessible(page, "the conflict");
  await site.shot(page, "playground-conflict");
  const between = refs().main;
  await page.getByRole("button", { name: "Leave it" }).click();
  site.equal(refs().main, between, "and nothing was done");
  site.command("rollback", "--to", main, "--why", "back");

  // Again, on what main has now.
  await page.getByRole("button", { name: "Commit to main" }).click();
  await page.waitForSelector("#conflict-box", { timeout: PATIENCE });
  await page.getByRole("button", { name: "Cherry-pick all the same" }).click();
  await page.waitForSelector("#kept", { timeout: PATIENCE });
  site.check(refs().main !== main, "committed, main has moved");
  await site.shot(page, "playground");
  await page.getByRole("button", { name: "Take back" }).click();
  await page.waitForSelector("#kept", { state: "detached", timeout: PATIENCE });
  site.equal(refs().main, main, "taken back, main is where it was");
  // The same page from its address.
  await page.reload();
  await site.settled(page);
  await page.waitForSelector(".dumbbell svg", { timeout: PATIENCE });
  site.check(true, "the address leads back to it");
}
