// A whole sweep taken along: the files and arrays that the command line writes, read with NumPy.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { PATIENCE } from "../site.mjs";

const here = dirname(fileURLToPath(import.meta.url));

export default async function (site) {
  const page = await site.open("editor");
  const noise = ["--noise", "0.3", "--samples", "3"];
  const traced = (...words) => {
    site.command("trace", ...words, "--json");
    return site.json("job", "list")[0].name.split("/").at(-1);
  };
  const few = ["--facts", "facts.jsonl", "--limit", "3"];
  const estimates = ["--engine", "attribution", "--integrated", "4", "--verify", "6", "--metrics", "probability,kl"];
  const prompt = "The tower of town 1 stands in the country of";
  const sweeps = {
    "a sweep": site.jobs.sweep,
    heads: site.jobs.heads,
    estimates: traced(...few, ...noise, ...estimates, "--kinds", "hidden,mlp,head,neuron"),
    "a pair": traced(
      "The river runs in the",
      "--subject",
      "The river",
      ...["--corrupted", "The liver runs in the", "--direction", "noising", "--metrics", "logit_difference,rank"],
    ),
    "untraced facts": traced(...few, "--corrupt", "counterfactual", "--metrics", "probability,logit_difference,rank"),
    paths: traced(
      prompt,
      "--subject",
      "The tower of town 1",
      ...noise,
      "--kinds",
      "head_all",
      "--receivers",
      "1.0.q,1.1.k",
    ),
  };
  for (const [what, id] of Object.entries(sweeps)) {
    await site.visit(page, `/jobs/${id}/results`);
    const [file] = await Promise.all([
      page.waitForEvent("download", { timeout: PATIENCE }),
      page.getByRole("button", { name: "All as NPZ" }).click(),
    ]);
    site.check(
      /^sweep-.*-npz\.zip$/.test(file.suggestedFilename()),
      `${what} is taken along as ${file.suggestedFilename()}`,
    );
    await figures(site, page, what, id);
    if (!site.python) continue;
    const folder = mkdtempSync(join(site.folder, "npz-"));
    site.command("job", "results", id, "--npz", folder);
    const read = spawnSync(site.python, [join(here, "../npz.py"), await file.path(), folder], { encoding: "utf8" });
    site.check(
      read.status === 0 && Number(read.stdout) > 0,
      `NumPy reads ${what} as the command line writes it: ${read.stdout.trim()} files ${read.stderr}`,
    );
  }
  await site.sound(page, "a sweep that was taken along");
}

/** The figures that the server draws are those of the command line, byte for byte. */
async function figures(site, page, what, id) {
  const folder = mkdtempSync(join(site.folder, "svg-"));
  site.command("job", "results", id, "--svg", folder);
  const taken = async (button) => {
    const [file] = await Promise.all([page.waitForEvent("download", { timeout: PATIENCE }), button.click()]);
    return readFileSync(await file.path(), "utf8");
  };
  const written = readdirSync(folder).sort();
  const button = page.getByRole("button", { name: "Figure of the averages" });
  if (written.includes("averages.svg")) {
    const same = (await taken(button)) === readFileSync(join(folder, "averages.svg"), "utf8");
    site.check(same, `the figure of the averages of ${what} is that of the command line`);
  }
  await site.visit(page, `/jobs/${id}/results?tab=facts&fact=0`);
  const maps = page.getByRole("button", { name: "Figure", exact: true });
  if (!written.some((name) => name.startsWith("001_"))) {
    site.check((await maps.count()) === 0, `${what} has nothing to draw of its first fact`);
    return;
  }
  await maps.first().waitFor({ timeout: PATIENCE });
  const drawn = await taken(maps.first());
  const found = written.some((name) => name.startsWith("001_") && readFileSync(join(folder, name), "utf8") === drawn);
  site.check(found, `the figure of the first fact of ${what} is one that the command line draws`);
}
