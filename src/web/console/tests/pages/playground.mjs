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
  const links = (step) => page.locator(`section[aria-labelledby=${step}] a[href^='/jobs/']`);
  site.equal(await links("ask").count(), 1, "a completion has a link to its job");
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
  await page.getByLabel("Layer", { exact: true }).fill("999");
  await page.waitForSelector("text=/layers are 0 to [0-9]/", { timeout: PATIENCE });
  site.equal(await page.getByRole("button", { name: /^Collect/ }).count(), 0, "nothing is collected of no layer");
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
  site.equal(await links("try").count(), 2, "both jobs of a try have their links");
  site.check(refs()["scratch-ada"] !== undefined, "which is on the visitor's own branch");
  await site.sound(page, "the playground");

  // A second editor in between.
  site.command("rollback", "--to", "v0", "--why", "a second editor");
  await page.getByRole("button", { name: "Commit to main" }).click();
  // Who it was is asked for when the conflict is there.
  await page.waitForSelector("#conflict-box >> text=a second editor", { timeout: PATIENCE });
  site.check(
    (await page.textContent("#conflict-box")).includes("ada"),
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
  await page.getByRole("button", { name: "Commit to main" }).click();
  await page.waitForSelector("#kept, #conflict-box", { timeout: PATIENCE });
  site.equal(await page.locator("#conflict-box").count(), 0, "one's own movements are no conflict");
  await page.waitForFunction(() => /main: v[0-9]+ → v[0-9]+/.test(document.querySelector("#kept").textContent));
  site.check(true, "versions have their numbers");
  await page.getByRole("button", { name: "Take back" }).click();
  await page.waitForSelector("#kept", { state: "detached", timeout: PATIENCE });
  // The same page from its address.
  await page.reload();
  await site.settled(page);
  await page.waitForSelector(".dumbbell svg", { timeout: PATIENCE });
  site.check(true, "the address leads back to it");

  // Another edit: what was said with the first is not said of it.
  const table = page.getByRole("columnheader", { name: "With the edit" });
  await table.waitFor({ timeout: PATIENCE });
  const answers = await page.evaluate(() => new URLSearchParams(location.search).get("said"));
  const preview = async (target) => {
    await page.getByLabel("It is to say").fill(target);
    await page.getByRole("button", { name: "Preview" }).click();
    await page.waitForFunction(
      (to) =>
        [...document.querySelectorAll("section[aria-labelledby=edit] .sentence ins")].some(
          (it) => it.textContent === to,
        ),
      target,
      { timeout: 3 * PATIENCE },
    );
    await page.waitForSelector("#try", { timeout: PATIENCE });
    await page.waitForTimeout(1000);
  };
  await preview("Oslo");
  site.equal(await table.count(), 0, "answers of one edit are not shown under another");
  await page.getByRole("button", { name: "Ask both" }).click();
  await table.waitFor({ timeout: 2 * PATIENCE });
  site.check(true, "until it is asked with that one");
  // Neither by an address that says so.
  await page.goto(`${page.url().replace(/([?&]said=)[^&]*/, `$1${encodeURIComponent(answers)}`)}`);
  await site.settled(page);
  await page.waitForSelector("#try", { timeout: PATIENCE });
  await page.waitForTimeout(1500);
  site.equal(await table.count(), 0, "whatever the address has");
  await page.getByLabel("Prompt", { exact: true }).fill("Look: The river is in");
  await page.getByLabel("Subject", { exact: true }).fill("The river");
  await page.getByRole("button", { name: "Complete" }).click();
  await page.waitForSelector("section[aria-labelledby=ask] .said ins", { timeout: PATIENCE });
  site.equal(await page.locator("#try, #keep, .dumbbell").count(), 0, "an edit of another prompt is not of this one");

  // A subject that is there twice, and all of it marked to be written anew.
  await site.visit(page, `/playground?model=${site.model}`);
  const twice = "The river Ü is where The river is in";
  await page.fill("#prompt", twice);
  const select = (from, to) =>
    page.evaluate(
      ([from, to]) => {
        const box = document.querySelector("#prompt");
        box.focus();
        box.setSelectionRange(from, to);
        box.dispatchEvent(new Event("select", { bubbles: true }));
      },
      [from, to],
    );
  await select(20, 30);
  await page.waitForSelector(".said u");
  const marked = () => page.evaluate(() => document.querySelector(".said u")?.previousSibling?.textContent ?? "");
  site.equal(await marked(), "The river Ü is where ", "the second of two is marked");
  await page.keyboard.press("Control+A");
  await page.waitForTimeout(200);
  site.equal(
    await page.getByLabel("Subject", { exact: true }).inputValue(),
    "The river",
    "the whole prompt is no subject",
  );
  await page.getByRole("button", { name: "Trace" }).click();
  await page.waitForFunction(() => new URLSearchParams(location.search).get("trace"), undefined, { timeout: PATIENCE });
  const id = new URL(page.url()).searchParams.get("trace");
  const { message } = await site.call("editor", "JobService/GetJob", { name: `jobs/${id}` });
  const asked = message.job.spec.value.facts[0];
  site.equal([asked.subject, asked.subjectStart], ["The river", 22], "it is traced where it was marked, in bytes");
  await page.reload();
  await site.settled(page);
  site.equal(await marked(), "The river Ü is where ", "the address has its place");
  await page.getByText("Copy as").click();
  await page.waitForSelector(".copy pre");
  const [command, python] = await page.locator(".copy pre").allTextContents();
  site.check(
    command.startsWith("palimpsest trace 'The river Ü is where {} is in' --subject 'The river'") &&
      command.includes(`--model ${site.model} --ref ${main.slice(0, 12)}`),
    `the copied line names place, model and version: ${command}`,
  );
  site.check(python.includes(`m = p.model("${site.model}", "${main.slice(0, 12)}")`), python);

  // A completion that somebody cancels.
  const prompts = Array.from({ length: 200 }, (_, n) => `The river number ${n} ${Date.now()}`);
  const job = {
    model: `models/${site.model}`,
    noCache: true,
    spec: { case: "generate", value: { prompts, maxTokens: 40 } },
  };
  const made = await site.call("editor", "JobService/CreateJob", { job, requestId: `cancelled ${Date.now()}` });
  const { name } = made.message.job;
  await site.call("editor", "JobService/CancelJob", { name });
  const query = new URLSearchParams({ model: site.model, prompt: prompts[0], completion: name.split("/").at(-1) });
  await site.visit(page, `/playground?${query}`);
  await page.waitForSelector("text=is cancelled", { timeout: PATIENCE });
  site.equal(await page.locator(".said .quiet").count(), 0, "a completion that was cancelled is not waited for");
  let calls = 0;
  page.on("request", (request) => (calls += /JobService\//.test(request.url()) ? 1 : 0));
  await page.waitForTimeout(4000);
  site.equal(calls, 0, "nor asked for again");
  await site.sound(page, "a completion that was cancelled");

  // Long texts: this tab has them, and the address stays short.
  const long = `Look: The Colosseum ${"and again ".repeat(800)}is in`;
  await site.visit(page, `/playground?model=${site.model}&subject=The+Colosseum`);
  await page.fill("#prompt", long);
  await page.getByRole("button", { name: "Complete" }).click();
  await page.waitForSelector("#texts", { timeout: PATIENCE });
  site.check(page.url().length < 1000, `the address has ${page.url().length} signs`);
  await page.reload();
  await site.settled(page);
  site.equal(await page.inputValue("#prompt"), long, "a long prompt is there when the tab is loaded anew");
  await site.sound(page, "long texts");
  const other = await site.open("editor");
  await site.visit(other, page.url().slice(page.base.length));
  site.check(
    (await other.textContent("#texts")).includes("the link does not carry them"),
    "where the link is opened, it is said that it does not carry them",
  );
  // Those of another page's link, too.
  await site.visit(other, `/playground?${new URLSearchParams({ model: site.model, prompt: long.slice(0, 6000) })}`);
  site.check(other.url().length < 1000, "long texts of a link are taken out of the address");
}
