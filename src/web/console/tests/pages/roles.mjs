// Each role sees the controls of what it may call, and no others; the server refuses all the same.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { addresses } from "./every.mjs";

/** What changes something and has no control here: imports, uploads and the store are other programs' business. */
const LEFT_OUT = ["ModelService/CreateModel", "ObjectService/WriteObject", "StoreService/CollectObjects"];

export default async function (site) {
  const methods = {};
  for (const role of Object.keys(site.tokens)) {
    const { message } = await site.call(role, "StatusService/GetStatus");
    methods[role] = message.status.caller.methods.map((name) => name.replace("palimpsest.v1.", ""));
  }
  const drawn = {};
  for (const role of Object.keys(site.tokens)) {
    const page = await site.open(role);
    drawn[role] = new Set();
    for (const path of Object.values(addresses(site))) {
      await site.visit(page, path);
      for (const method of await site.methods(page)) drawn[role].add(method);
    }
    const beyond = [...drawn[role]].filter((method) => !methods[role].includes(method));
    site.equal(beyond, [], `${role} sees nothing that they may not do`);
    site.equal(page.wrong, [], `${role} meets no error`);
    if (role === "viewer") {
      await site.visit(page, `/models/${site.model}/history`);
      site.check(
        (await page.textContent("main")).includes("vera is a viewer, who may not move refs."),
        "one quiet line stands where a viewer would look",
      );
      await site.shot(page, "history-viewer");
      for (const path of ["", "/versions/main"]) {
        await site.visit(page, `/models/${site.model}${path}`);
        const links = await page.getByRole("link", { name: "Playground" }).count();
        site.equal(links, 0, "a viewer has no playground, and no link to it");
      }
    }
  }
  const writing = methods.admin.filter((method) => !methods.viewer.includes(method));
  for (const role of ["submitter", "editor", "admin"]) {
    const lacking = [...drawn.admin].filter((method) => methods[role].includes(method) && !drawn[role].has(method));
    site.equal(lacking, [], `${role} sees what an admin sees of what both may do`);
  }
  const root = join(dirname(fileURLToPath(import.meta.url)), "../../src");
  const sources = readdirSync(root, { recursive: true })
    .filter((name) => name.endsWith(".tsx"))
    .map((name) => readFileSync(join(root, name), "utf8"))
    .join("\n");
  const without = writing.filter(
    (method) =>
      !LEFT_OUT.includes(method) && !sources.includes(`method="${method}"`) && !sources.includes(`method: "${method}"`),
  );
  site.equal(without, [], "every method that changes something has a control");

  const moved = await site.call("viewer", "VersionService/UpdateRef", {
    ref: { name: `models/${site.model}/refs/main`, version: `models/${site.model}/versions/v0`, why: "by hand" },
  });
  site.equal(moved.status, 7, "a viewer's call by hand is refused");
  const { message } = await site.call("viewer", "AuditService/ListAuditEntries", { principal: "vera", outcome: 2 });
  site.check(
    message.leaves.some((leaf) => leaf.entry.action.includes("UpdateRef")),
    "and stands in the audit log",
  );
  site.equal((await site.call(undefined, "VersionService/UpdateRef")).status, 16, "nobody's call is refused too");
  const worker = await site.call("admin", "WorkerService/ReadResults").catch((error) => ({ status: String(error) }));
  site.check(worker.status !== 0 || worker.http, "what is workers' own is not for people");
}
