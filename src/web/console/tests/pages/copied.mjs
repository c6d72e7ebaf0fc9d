// What is copied as a command and as Python is what is seen, and a link cannot make a command of its own of it.

export default async function (site) {
  const page = await site.open("editor");
  const copied = async (path) => {
    await site.visit(page, path);
    await page.getByText("Copy as").first().click();
    await page.waitForSelector(".copy pre");
    return page.locator(".copy pre").allTextContents();
  };
  const model = site.model;
  page.expected = [/./];
  site.equal(
    await copied(`/models/${model}/diff?left=v0;touch%20/tmp/x;&right=-x%22`),
    [
      `palimpsest diff --model ${model} -- 'v0;touch /tmp/x;' '-x"'`,
      `p.model("${model}").diff("v0;touch /tmp/x;", "-x\\"")`,
    ],
    "words of a link stay words",
  );
  site.equal(
    await copied("/models/$(id)"),
    ["palimpsest model show '$(id)'", 'p.model("$(id)")'],
    "and so does a model's name",
  );
  for (const path of ["/models/$(id)/history", "/models/$(id)/versions/`id`", "/models/$(id)/edits/`id`"]) {
    const [command] = await copied(path);
    site.check(command.includes("'$(id)'") && command.includes("`") === command.includes("'`id`'"), command);
  }
  page.expected = [];
  page.wrong = [];
  site.equal(
    await copied(`/jobs?state=succeeded&kind=trace&owner=ada&model=${model}&text=-x`),
    [
      `palimpsest job list --state succeeded --kind trace --owner ada --model ${model} --text=-x`,
      `p.jobs(state=["succeeded"], kind="trace", owner="ada", model="${model}", text="-x")`,
    ],
    "jobs are copied with their filters",
  );
  // The command line takes what is copied: it says the same as the page.
  const listed = site.json("job", "list", "--state", "succeeded", "--kind", "trace", "--owner", "ada", "--text=-x");
  site.equal(listed.length, 0, "a text that begins with a dash is one");
  site.equal(
    await copied(`/audit?principal=ada&action=refs&resource=models/${model}&outcome=refused`),
    [
      `palimpsest audit list --principal ada --action refs --resource models/${model} --refused`,
      `p.audit.entries(principal="ada", action="refs", resource="models/${model}", outcome="refused")`,
    ],
    "entries of the audit log, too",
  );
  const query = new URLSearchParams({
    model,
    prompt: "Look: The Colosseum is in",
    subject: "The Colosseum",
    target: "it's \"Rome\"",
    neighbours: "The river is in\n-x",
    layer: "1",
  });
  const [command, python] = await copied(`/playground?${query}`);
  const version = await page.locator("label", { hasText: "Version" }).locator("select").inputValue();
  site.equal(
    command.split("\n"),
    [
      `palimpsest branch scratch-ada ${version.slice(0, 12)} --force --model ${model}`,
      `palimpsest edit 'Look: {} is in' --subject 'The Colosseum' --target 'it'\\''s "Rome"' --layer 1 ` +
        `--method r-rome --neighbour 'The river is in' --neighbour=-x --ref scratch-ada --model ${model}`,
    ],
    "an edit is copied with all of it, on the version that is chosen and on one's own branch",
  );
  for (const part of ['target="it\'s \\"Rome\\""', 'neighbours=["The river is in", "-x"]'])
    site.check(python.includes(part), `${part} in ${python}`);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "JSON", exact: true }).click();
  await page.waitForSelector("text=JSON copied");
  const json = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
  site.equal([json.model, json.version, json.layer], [model, version, 1], "and as JSON");
  await site.sound(page, "what is copied");
}
