// The ways in: a token that is typed, a key in the address, a certificate.

import { createServer } from "node:http";

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  const page = await site.open(undefined);
  let calls = 0;
  page.on("request", (request) => (calls += request.url().includes("palimpsest.v1") ? 1 : 0));
  await page.goto(site.url);
  await page.waitForSelector("#token", { timeout: PATIENCE });
  site.equal(calls, 0, "nothing is called before there is something to show");
  await site.sound(page, "the way in");
  await site.shot(page, "sign-in");
  await page.fill("#token", "pal_wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForSelector("[role=alert]", { timeout: PATIENCE });
  site.check((await page.locator("#token").count()) === 1, "a wrong token is refused");
  // One that no header holds is refused before it is kept: else nothing could be asked any more.
  await page.fill("#token", `${site.tokens.editor}…`);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForSelector("text=copy it anew", { timeout: PATIENCE });
  await page.reload();
  await page.waitForSelector("#token", { timeout: PATIENCE });
  await page.fill("#token", site.tokens.editor);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForSelector("#who", { timeout: PATIENCE });
  site.check((await page.textContent("#who")).includes("ada"), "a right one is taken");
  for (const address of ["/jobs/%ff", "/models/%", "/audit?from=x&until=y", "/jobs?states=9,x"]) {
    await page.goto(site.url + address);
    await page.waitForSelector("h1", { timeout: PATIENCE });
    const drawn = await page.textContent("main");
    site.check(!drawn.includes("could not be drawn"), `${address} is no page's, and says so`);
  }
  await page.goto(site.url);
  await page.waitForSelector("#who", { timeout: PATIENCE });
  site.check(!page.url().includes(site.tokens.editor), "and is not in the address");
  site.equal(await page.context().cookies(), [], "there is no cookie");
  site.equal(
    await page.evaluate((token) => JSON.stringify(localStorage).includes(token), site.tokens.editor),
    false,
    "a token goes with its tab",
  );
  // A token that has expired, or was withdrawn, leads back to the form.
  page.expected.push(/401|Unauthorized/);
  await page.evaluate(() => sessionStorage.setItem("palimpsest.token", "pal_expired"));
  await page.click("header nav >> text=Models");
  await page.waitForSelector("#token", { timeout: PATIENCE });
  await page.fill("#token", site.tokens.editor);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForSelector("#who", { timeout: PATIENCE });
  site.check(new URL(page.url()).pathname === "/models", "one that expired is asked for where one was");

  const beside = site.watched(await page.context().newPage(), site.url);
  await beside.goto(`${site.url}/jobs`);
  await beside.waitForSelector("#who", { timeout: PATIENCE });
  site.check(true, "a link in a new tab needs no second sign-in");
  await page.getByRole("button", { name: "sign out" }).click();
  await beside.waitForSelector("#token", { timeout: PATIENCE });
  site.check(true, "and is signed out with the first");
  await beside.close();
  await page.waitForSelector("#token", { timeout: PATIENCE });
  await page.reload();
  await page.waitForSelector("#token", { timeout: PATIENCE });
  site.check(true, "signed out, it is forgotten");

  // A page of another origin reaches nothing, neither with a call that asks the door first nor with one that no browser
  // asks before.
  const others = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<h1>another</h1>"));
  await new Promise((done) => others.listen(0, "127.0.0.1", done));
  const stranger = await site.open("editor");
  await stranger.goto(`http://127.0.0.1:${others.address().port}`);
  const tried = await stranger.evaluate(async (path) => {
    const call = (init) => fetch(path, { method: "POST", body: new Uint8Array(5), ...init });
    const type = { "content-type": "application/grpc-web+proto" };
    const tried = [call({ headers: type }), call({ mode: "no-cors", credentials: "include" })];
    return (await Promise.allSettled(tried)).map((it) => it.status);
  }, `${site.url}/palimpsest.v1.StatusService/GetStatus`);
  site.equal(tried, ["rejected", "rejected"], "a page of another origin reads nothing");
  await stranger.close();
  await new Promise((done) => others.close(done));

  if (site.own) {
    const own = await site.open(undefined, { url: site.own });
    await own.goto(new URL(site.own).origin);
    await own.waitForSelector("#said", { timeout: PATIENCE });
    site.check(
      (await own.textContent("#said")).includes("needs its key"),
      "without its key an own console says what is missing",
    );
    // Into the tab that is open, where a browser loads nothing for it.
    await own.evaluate((address) => location.assign(address), site.own);
    await own.waitForSelector("#who", { timeout: PATIENCE });
    site.check(!own.url().includes("key="), "the key leaves the address");
    await own.reload();
    await own.waitForSelector("#who", { timeout: PATIENCE });
    await site.visit(own, "/jobs");
    site.check((await own.locator("tbody tr").count()) > 0, "an own console shows the coordinator's jobs");
    await site.sound(own, "an own console");
  }
  if (site.tls) {
    const { url, certificate, key } = site.tls;
    const secure = await site.open(undefined, {
      url,
      ignoreHTTPSErrors: true,
      clientCertificates: [{ origin: new URL(url).origin, certPath: certificate, keyPath: key }],
    });
    await secure.goto(url);
    await secure.waitForSelector("#who", { timeout: PATIENCE });
    site.check(/ada.*editor/s.test(await secure.textContent("#who")), "a certificate signs in");
    await site.sound(secure, "a console over TLS");
  }
}
