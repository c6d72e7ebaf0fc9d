// The audit log with this browser as its witness: green, and red when somebody altered what it saw.

import { createHash } from "node:crypto";

import { fromBinary, toBinary } from "@bufbuild/protobuf";

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  const page = await site.open("viewer");
  const verdict = async (colour) => {
    await page.waitForSelector(`.witness.${colour}`, { timeout: PATIENCE });
    return page.textContent("#witness");
  };
  await site.visit(page, "/audit");
  site.check((await verdict("green")).includes("for the first time"), "a first visit keeps the checkpoint");
  await page.waitForSelector("#proved", { timeout: PATIENCE });
  const rows = await page.locator("tbody tr").count();
  await page.waitForFunction(
    (all) =>
      [...document.querySelectorAll("tbody tr td:last-child")].filter((it) => it.textContent === "✓ proved").length ===
      all,
    rows,
    { timeout: PATIENCE },
  );
  site.check(rows > 10, `every entry is proved here: ${rows}`);
  await page.locator("tbody tr td:last-child button").first().click();
  await page.waitForSelector("[aria-label=Proof] .good", { timeout: PATIENCE });
  site.check((await page.locator("[aria-label=Proof] ol li").count()) > 1, "on request with its path");
  await site.sound(page, "the audit log");
  const [note] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Keep", exact: true }).click(),
  ]);
  const { readFileSync } = await import("node:fs");
  site.check(
    /^palimpsest-audit\/.*\n[0-9]+\n/.test(readFileSync(await note.path(), "utf8")),
    "the note can be kept as a file",
  );

  // It grows while one looks, and at the next visit it went on from there.
  site.command("tag", `seen-${Date.now()}`, "v0");
  await page.waitForFunction((had) => document.querySelectorAll("tbody tr").length > had, rows, { timeout: PATIENCE });
  await page.reload();
  await site.settled(page);
  site.check(
    /Grew from [0-9]+ to [0-9]+|Unchanged/.test(await verdict("green")),
    "at the next visit it grew from what was kept",
  );
  await page.getByRole("button", { name: "Have the server verify it all" }).click();
  await page.waitForSelector("text=finds nothing wrong", { timeout: PATIENCE });

  // Another root was seen here before: somebody rewrote the log since.
  const kept = await page.evaluate(() => {
    const name = Object.keys(localStorage).find((it) => it.startsWith("palimpsest.kept."));
    const it = JSON.parse(localStorage.getItem(name));
    it.root = (it.root.startsWith("0") ? "1" : "0") + it.root.slice(1);
    localStorage.setItem(name, JSON.stringify(it));
    return name;
  });
  await page.reload();
  await site.settled(page);
  await verdict("red");
  site.check(
    (await page.textContent(".witness")).includes("audit verify"),
    "a log that was rewritten is red, with what to do",
  );
  await site.accessible(page, "the audit log in red");
  await site.shot(page, "audit-red");
  await page.evaluate((name) => localStorage.removeItem(name), kept);

  // The log of another key than the one that was seen here before.
  await page.evaluate(() => {
    const key = "palimpsest-audit/of-another-store+00000000+AQ";
    localStorage.clear();
    localStorage.setItem(
      "palimpsest.kept.palimpsest-audit/of-another-store",
      JSON.stringify({ note: "", key, size: "3", root: "00", since: "2026-01-01" }),
    );
  });
  for (const visit of ["first", "second"]) {
    await page.reload();
    await site.settled(page);
    site.check((await verdict("red")).includes("another key"), `another key is red on the ${visit} visit`);
  }
  await page.getByRole("button", { name: "It is another store" }).click();
  await verdict("green");
  site.check(true, "until somebody says that it is right");

  // An entry that was altered on its way, in its bytes and in what is shown.
  await page.route("**/*AuditService/ListAuditEntries", async (route) => {
    const answer = await route.fetch({ maxRetries: 3 });
    const body = Buffer.from(
      (await answer.body()).toString("latin1").replaceAll("it was a try", "it was a lie"),
      "latin1",
    );
    await route.fulfill({ response: answer, body });
  });
  await site.visit(page, "/audit?action=refs");
  const altered = page.locator("tbody tr", { hasText: "it was a lie" });
  site.equal(await altered.count(), 1, "an altered entry is shown");
  await altered.locator("td:last-child button").click();
  await page.waitForSelector("[aria-label=Proof] .wrong", { timeout: PATIENCE });
  site.check((await altered.locator("td:last-child").textContent()).includes("✗"), "and found out");
  const other = page.locator("tbody tr", { hasText: "it was none" });
  await other.locator("td:last-child button").click();
  await page.waitForSelector("[aria-label=Proof] .good", { timeout: PATIENCE });
  site.check(true, "another one is proved all the same");
  await page.unroute("**/*AuditService/ListAuditEntries");

  // What is said beside the bytes that are hashed is not shown; where only a hash came, it is said what of it holds.
  const isIt = (leaf) => leaf.entry.why === "it was a try";
  await rewritten(site, page, (leaf) => {
    if (isIt(leaf)) leaf.entry.why = "it was a lie";
  });
  await site.visit(page, "/audit?action=refs");
  const shown = page.locator("tbody tr", { hasText: "it was a try" });
  await shown.locator("td:last-child button").click();
  await page.waitForSelector("[aria-label=Proof] .good", { timeout: PATIENCE });
  site.check(
    !(await page.textContent("main")).includes("it was a lie"),
    "an entry says what is in the bytes that are hashed, and nothing that was sent beside them",
  );
  await page.unroute("**/*AuditService/ListAuditEntries");
  await rewritten(site, page, (leaf) => {
    if (!isIt(leaf)) return;
    leaf.hash = createHash("sha256").update(Buffer.of(0)).update(leaf.leaf).digest();
    leaf.leaf = new Uint8Array(0);
    leaf.entry.why = "it was a lie";
  });
  await site.visit(page, "/audit?action=refs");
  const cut = page.locator("tbody tr", { hasText: "it was a lie" });
  await cut.locator("td:last-child button").click();
  await page.waitForSelector("[aria-label=Proof] .good", { timeout: PATIENCE });
  site.check((await cut.locator("td:last-child").textContent()).includes("not its texts"), "a hash proves no texts");
  site.check((await page.textContent("[aria-label=Proof]")).includes("not proved here"), "and its proof says so");
}

/** Has the answers of the log come with changed leaves. */
async function rewritten(site, page, change) {
  const service = site.registry.getService("palimpsest.v1.AuditService");
  const { output } = service.methods.find((it) => it.name === "ListAuditEntries");
  await page.route("**/*AuditService/ListAuditEntries", async (route) => {
    const answer = await route.fetch({ maxRetries: 3 });
    const data = await answer.body();
    const size = data.readUInt32BE(1);
    const message = fromBinary(output, data.subarray(5, 5 + size));
    message.leaves.forEach(change);
    const body = toBinary(output, message);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(body.length, 1);
    await route.fulfill({ response: answer, body: Buffer.concat([head, body, data.subarray(5 + size)]) });
  });
}
