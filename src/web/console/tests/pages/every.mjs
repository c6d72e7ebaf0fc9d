// What every page promises: it can be used by everybody, keeps its policy, fits a small window, in both schemes.

export function addresses(site) {
  const { jobs, model, edit } = site;
  const id = edit.split("/").at(-1);
  return {
    overview: "/",
    jobs: "/jobs",
    job: `/jobs/${jobs.sweep}`,
    sweep: `/jobs/${jobs.sweep}/results`,
    facts: `/jobs/${jobs.sweep}/results?tab=facts`,
    map: `/jobs/${jobs.sweep}/results?tab=map&kind=mlp`,
    evaluation: `/jobs/${jobs.evaluation}/results?record=0`,
    completions: `/jobs/${jobs.completions}/results`,
    statistics: `/jobs/${jobs.statistics}/results`,
    "edit-results": `/jobs/${jobs.edit}/results`,
    "rejected-edit": `/jobs/${jobs.rejected_edit}/results`,
    "mass-edit": `/jobs/${jobs.mass_edit}/results`,
    "mass-edit-facts": `/jobs/${jobs.mass_edit}/results?tab=facts`,
    "mass-edit-check": `/jobs/${jobs.mass_edit}/results?tab=check`,
    compare: `/compare?left=${jobs.sweep}&right=${jobs.other_sweep}`,
    "compare-heads": `/compare?left=${jobs.heads}&right=${jobs.other_heads}&kind=head`,
    "compare-evaluations": `/compare?left=${jobs.evaluation}&right=${jobs.other_evaluation}`,
    models: "/models",
    model: `/models/${model}`,
    history: `/models/${model}/history`,
    version: `/models/${model}/versions/main`,
    edit: `/models/${model}/edits/${id}`,
    diff: `/models/${model}/diff?left=v0&right=main`,
    playground: `/playground?model=${model}`,
    workers: "/workers",
    audit: "/audit",
    help: "/help.html",
    nowhere: "/no/such/page",
  };
}

export default async function (site) {
  const light = await site.open("admin", { colorScheme: "light" });
  for (const [name, path] of Object.entries(addresses(site))) {
    await site.visit(light, path);
    await site.sound(light, name);
    await site.fits(light, name);
    await site.shot(light, name);
  }
  const small = await site.open("admin", {
    colorScheme: "dark",
    viewport: { width: 320, height: 640 },
    reducedMotion: "reduce",
  });
  for (const [name, path] of Object.entries(addresses(site))) {
    await site.visit(small, path);
    await site.sound(small, `${name}, dark and small`);
    await site.fits(small, `${name}, dark and small`);
    if (["overview", "facts", "audit", "history"].includes(name)) await site.shot(small, `${name}-small`);
    const menu = small.locator(".menu > summary");
    if ((await menu.count()) === 0) continue;
    await menu.click();
    await small.waitForSelector(".copy");
    await site.fits(small, `${name}, small, what is copied`);
    const box = await small.locator(".copy").boundingBox();
    site.check(box.x >= 0 && box.x + box.width <= 320, `${name}: the menu is inside, from ${box.x} for ${box.width}`);
  }
  // Everything can be come to by keys: the skip link first, then the pages.
  await site.visit(light, "/");
  await light.keyboard.press("Tab");
  site.equal(
    await light.evaluate(() => document.activeElement?.textContent),
    "To the page",
    "the first stop leads to the page",
  );
  await light.click("header nav a >> text=Jobs");
  await site.settled(light);
  site.equal(
    await light.evaluate(() => document.activeElement?.tagName),
    "H1",
    "after a link the focus is at the heading",
  );
  await light.goBack();
  await site.settled(light);
  site.equal(new URL(light.url()).pathname, "/", "the browser's own way back works");
}
