// A model with more refs than one looks at: what an edit's page says of where it is.

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  const page = await site.open("editor");
  const parent = `models/${site.model}`;
  const turn = Date.now();
  for (let n = 0; n < 30; n++) {
    const made = await site.call("editor", "VersionService/CreateRef", {
      parent,
      refId: `aa-${turn}-${String(n).padStart(2, "0")}`,
      ref: { version: `${parent}/versions/v0`, kind: 2 },
    });
    site.equal(made.status, 0, `a tag is made: ${made.status}`);
  }
  const edit = site.edit.split("/").at(-1);
  const having = site
    .json("refs", "--model", site.model)
    .filter((ref) => {
      const [version] = site.json("show", ref.version, "--model", site.model);
      return version.edits.includes(edit);
    })
    .map((ref) => ref.name.split("/").at(-1));
  await site.visit(page, `/${parent}/edits/${edit}`);
  await page.waitForSelector("text=/ref/", { timeout: PATIENCE });
  const said = await page.textContent("main");
  if (having.length === 0) site.check(said.includes("No ref has it now."), "no ref has it, and it says so");
  for (const name of having) site.check(said.includes(name), `${name}, behind thirty tags, is said to have it`);
  site.check((await site.methods(page)).length > 0, "and something can be done with it on a branch");
  await site.visit(page, `/${parent}/history`);
  await page.waitForSelector(".moves li", { timeout: PATIENCE });
  const first = await page.locator(".moves li").first().textContent();
  site.check(first.includes(`aa-${turn}-29`), `the newest movement is the first: ${first}`);
  const labels = page.locator("table.history tbody tr", { hasText: "more refs" });
  site.equal(await labels.locator(".ref").count(), 12, "of many refs at a version a row shows some, and how many more");
  await site.sound(page, "a history with many tags");
}
