// Numbers of edits and evaluations: those of `job results --json`.

export default async function (site) {
  const { number } = await site.module("src/format.ts");
  const page = await site.open("viewer");
  const [edit] = site.json("job", "results", site.jobs.edit);
  await site.visit(page, `/jobs/${site.jobs.edit}/results`);
  await page.waitForSelector(".dumbbell svg");
  await page.locator(".dumbbell").getByRole("button", { name: "as a table" }).click();
  const cells = await page.locator(".dumbbell tbody td").allTextContents();
  const told = edit.probes.flatMap((probe) => [
    probe.kind,
    ...["new_before", "new_after", "true_before", "true_after"].map((name) =>
      probe[name] === null ? "" : number(probe[name]),
    ),
  ]);
  site.equal(cells, told, "what each prompt gave is that of --json");
  site.check(
    (await page.textContent(".said")).includes("The Eiffel Tower") &&
      (await page.textContent(".said")).includes("Rome"),
    "an edit says its sentence",
  );
  const curve = page.locator("figure.curves", { hasText: "The optimisation" });
  await curve.getByRole("button", { name: "as a table" }).click();
  const losses = await curve.locator("tbody tr td:nth-child(2)").allTextContents();
  site.equal(losses, edit.losses.map(number), "so are its losses");

  await site.visit(page, `/jobs/${site.jobs.rejected_edit}/results`);
  site.check((await page.textContent("main")).includes("rejected"), "an edit that failed a gate says so");
  site.equal(await page.getByRole("button", { name: "Commit" }).count(), 0, "and nobody can commit it");

  const means = site.json("job", "results", site.jobs.evaluation, "--averages");
  await site.visit(page, `/jobs/${site.jobs.evaluation}/results`);
  const rows = await page
    .locator("table")
    .first()
    .locator("tbody tr")
    .evaluateAll((all) => all.map((row) => [...row.children].map((cell) => cell.textContent)));
  site.check(rows.length > 0, "an evaluation has its measures");
  for (const row of rows) {
    const [name, , ...values] = row;
    const found = means.find((it) => it.measure === name);
    if (!site.check(found !== undefined, `${name} is a measure of --averages`)) continue;
    const scale = name === "GE" || name.startsWith("PPL") ? 1 : 100;
    const text = (value) => (value * scale).toFixed(1);
    const columns = [found.against, found.measured, found.change].filter(Boolean);
    const told = columns.flatMap((it) => [text(it.mean), it.interval ? it.interval.map(text).join(" to ") : ""]);
    site.equal(values.slice(0, told.length), told, `${name} and its intervals are those of --averages`);
  }
  site.equal(rows.length, means.length, "and no other");

  const mass = site.json("job", "results", site.jobs.mass_edit);
  const facts = mass.filter((it) => it.subject !== undefined && it.probes);
  await site.visit(page, `/jobs/${site.jobs.mass_edit}/results?tab=facts`);
  if (facts.length > 0) {
    const shown = await page.locator("tbody tr").count();
    site.equal(shown, facts.length, "every fact of a mass edit has a row");
    const text = await page.textContent("tbody");
    for (const fact of facts) {
      const after = fact.probes.find((probe) => probe.kind === "rewrite")?.new_after;
      site.check(after === undefined || text.includes(number(after)), `${fact.subject}: ${after}`);
    }
  }
  await site.sound(page, "a mass edit");
}
