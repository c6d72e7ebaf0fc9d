// The coordinator is killed and started again, and once on a store whose log went on in another way from the same
// beginnings: what a coordinator would show that rewrote its log. Only where SITE.json has `serve`.

import { spawn } from "node:child_process";

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  if (!site.serve) return;
  const { program, folder, environment } = site.serve;
  let kill = () => process.kill(site.serve.pid, "SIGKILL");
  const start = async (words) => {
    const child = spawn(program, words, { cwd: folder, env: { ...process.env, ...environment }, stdio: "ignore" });
    const gone = new Promise((resolve) => child.once("exit", resolve));
    // Whatever becomes of this walk, nothing of it stays behind.
    process.once("exit", () => child.kill("SIGKILL"));
    kill = async () => {
      child.kill("SIGKILL");
      await gone;
    };
  };

  const page = await site.open("viewer");
  // That nobody answers is what the browser says itself.
  page.expected.push(/ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE_CHUNKED_ENCODING/);
  await site.visit(page, "/audit");
  await page.waitForSelector(".witness.green", { timeout: PATIENCE });
  await site.visit(page, "/");
  await kill();
  await page.waitForSelector(".lost", { timeout: PATIENCE });
  site.check(true, "a page says that its coordinator is gone");
  await start(site.serve.arguments);
  await page.waitForSelector(".lost", { state: "detached", timeout: PATIENCE });
  site.check(true, "and comes back with it by itself");
  await site.sound(page, "a page that was left alone for a while");

  await kill();
  await start(site.serve.forked);
  await page.waitForSelector(".lost", { state: "detached", timeout: PATIENCE });
  await site.visit(page, "/audit");
  await page.waitForSelector(".witness.red", { timeout: PATIENCE });
  site.check((await page.textContent(".witness")).includes("audit verify"), "a log that was rewritten by its keeper is found out");

  await kill();
  await start(site.serve.arguments);
  await page.waitForSelector(".lost", { state: "detached", timeout: PATIENCE });
  await site.visit(page, "/jobs");
  site.check((await page.locator("tbody tr").count()) > 5, "and the coordinator is there again for the next walk");
}
