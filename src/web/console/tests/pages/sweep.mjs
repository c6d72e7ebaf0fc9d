// A sweep: its numbers are those of the command line, whichever way one looks.

export default async function (site) {
  const { number } = await site.module("src/format.ts");
  const page = await site.open("viewer");
  const told = site.json("job", "results", site.jobs.sweep);
  const averages = site.json("job", "results", site.jobs.sweep, "--averages");
  const grid = told.find((it) => it.kind === "mlp" && Array.isArray(it.scores) && it.scores.length > 0);
  const facts = new Set(told.map((it) => it.fact ?? it.prompt)).size;

  await site.visit(page, `/jobs/${site.jobs.sweep}/results?kind=mlp`);
  const sentence = await page.textContent("#sentence").catch(() => "");
  const mlp = averages.find((it) => it.kind === "mlp");
  const { layer, effect } = mlp.peak;
  site.check(sentence.includes(`layer ${layer}`), `the sentence has the layer of --averages: ${sentence}`);
  site.check(sentence.includes(number(effect.mean)), `and its effect, ${number(effect.mean)}: ${sentence}`);

  await site.visit(page, `/jobs/${site.jobs.sweep}/results?kind=mlp&tab=facts`);
  const rows = await page.locator("table tbody tr").count();
  site.check(
    rows === told.filter((it) => it.kind === "mlp").length && rows >= facts / 3,
    `the table has every fact: ${rows}`,
  );
  const fact = told.filter((it) => it.kind === "mlp").indexOf(grid);
  await site.visit(page, `/jobs/${site.jobs.sweep}/results?kind=mlp&tab=facts&fact=${fact}`);
  await page.waitForSelector("figure.map svg");
  const map = page.locator("figure.map", { has: page.locator("svg[aria-label^='MLP']") });
  await map.getByRole("button", { name: "as a table" }).click();
  const cells = await map.locator("tbody td").allTextContents();
  site.equal(cells, grid.scores.flat(2).map(number), "every cell of a map is that of job results --json");
  // The same line for mouse and keys.
  const svg = map.locator("svg");
  await svg.focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  const line = await map.locator(".readout").textContent();
  site.check(line.includes("layer 1") && line.includes(number(grid.scores.flat(2)[1])), `keys say the cell: ${line}`);
  const [csv] = await Promise.all([page.waitForEvent("download"), map.getByRole("button", { name: "CSV" }).click()]);
  site.check(csv.suggestedFilename().endsWith(".csv"), "a map can be taken along as CSV");
  const [svgFile] = await Promise.all([
    page.waitForEvent("download"),
    map.getByRole("button", { name: "SVG" }).click(),
  ]);
  const { readFileSync } = await import("node:fs");
  const drawn = readFileSync(await svgFile.path(), "utf8");
  site.check(drawn.includes("<rect") && !drawn.includes("data:image"), "and as SVG, a rectangle a cell");
  const [npz] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "NPZ", exact: true }).click(),
  ]);
  site.check(
    readFileSync(await npz.path())
      .subarray(0, 2)
      .toString() === "PK",
    "and as npz",
  );
  await page.getByRole("textbox", { name: "Text" }).fill("onerror");
  await page.keyboard.press("Enter");
  await site.settled(page);
  site.check(
    (await page.textContent("main")).includes(site.markup),
    "a prompt that looks like markup is shown as it stands",
  );
  const [found] = site.json("locate", site.jobs.sweep);
  const located = found.edit.layer;
  await site.visit(page, `/jobs/${site.jobs.sweep}/results`);
  site.check(
    (await page.textContent("main")).includes(`belongs in the MLP of layer ${located}`),
    `the layer is that of locate, ${located}`,
  );
  await site.sound(page, "a sweep");
}
