// A whole sweep taken along: the files and arrays that the command line writes, read with NumPy.

import { spawnSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
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
