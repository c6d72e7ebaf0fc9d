// What waits for somebody: a job that is held, a worker that is excluded. Only where SITE.json has `held`.

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  if (!site.held) return;
  const { job, worker } = site.held;
  const page = await site.open();

  await site.visit(page, `/workers?worker=${worker}`);
  await page.waitForSelector(".state.excluded", { timeout: PATIENCE });
  site.check((await page.textContent("tbody")).includes("leases failed"), "it is said why a worker is excluded");
  await site.sound(page, "a worker that is excluded");
  await page.getByRole("button", { name: `Readmit ${worker}` }).click();
  await site.accessible(page, "the dialog of a readmission");
  await page.getByRole("button", { name: "Readmit it" }).click();
  await page.waitForSelector("dialog", { state: "detached", timeout: PATIENCE });
  await page.waitForSelector(".state.excluded", { state: "detached", timeout: PATIENCE });
  site.check(true, "a worker is readmitted by its button");
  await page.getByRole("button", { name: `Drain ${worker}` }).click();
  await site.accessible(page, "the dialog of a drain");
  await page.getByRole("button", { name: "Drain it" }).click();
  await page.waitForSelector("dialog", { state: "detached", timeout: PATIENCE });
  // It has nothing, so it goes at once.
  await page.waitForFunction(
    (name) =>
      !document.querySelector("tbody")?.textContent.includes(name) ||
      document.querySelector(".state.draining, .state.away"),
    worker,
    { timeout: PATIENCE },
  );
  site.check(true, "and drained by another");

  await site.visit(page, `/jobs/${job}`);
  await page.waitForSelector(".state.held", { timeout: PATIENCE });
  site.check(
    (await page.locator("details[open]").textContent()).includes("quarantine"),
    "a job that is held says why, without being asked",
  );
  await site.sound(page, "a job that is held");
  await site.shot(page, "held");
  await page.getByRole("button", { name: /^Requeue job/ }).click();
  await site.accessible(page, "the dialog of a requeue");
  await page.getByRole("button", { name: "Requeue", exact: true }).click();
  await page.waitForSelector("dialog", { state: "detached", timeout: PATIENCE });
  await page.waitForFunction(() => document.querySelector(".live .state")?.textContent === "succeeded", undefined, {
    timeout: PATIENCE,
  });
  site.check(true, "requeued, it goes on to its end");

  await page.getByRole("button", { name: "Run again" }).click();
  await site.accessible(page, "the dialog of another run");
  await page.getByRole("button", { name: "Run it" }).click();
  await page.waitForFunction((id) => !location.pathname.endsWith(id), job, { timeout: PATIENCE });
  await page.waitForFunction(() => document.querySelector(".live .state")?.textContent === "succeeded", undefined, {
    timeout: PATIENCE,
  });
  site.check(true, "run again, it is another job");
}
