// The page of help: its guides, where the program was built with some, and the way there from an error.

import { PATIENCE } from "../site.mjs";

export default async function (site) {
  const page = await site.open("editor");
  await site.visit(page, "/help");
  await page.waitForURL("**/help.html", { timeout: PATIENCE });
  const astray = await page.evaluate(() =>
    [...document.querySelectorAll('a[href^="#"]')]
      .filter((it) => !document.getElementById(it.hash.slice(1)))
      .map(String),
  );
  site.equal(astray, [], "every link leads to a place on the page");
  const guides = await page.locator("#when-it-fails").count();
  await page.locator(".contents a").last().click();
  site.check((await page.locator(":target").count()) === 1, "the contents lead to their parts");
  await site.sound(page, "help");

  await site.visit(page, "/jobs/00000000-0000-7000-8000-000000000000");
  await page.waitForSelector(".wrong", { timeout: PATIENCE });
  const link = page.getByRole("link", { name: "What helps with NOT_FOUND" });
  site.equal(await link.count(), guides, "an error leads to its paragraph, where there is one");
  await site.sound(page, "a job that there is not");
  if (guides === 0) return;
  await link.click();
  await page.waitForURL("**/help.html#NOT_FOUND", { timeout: PATIENCE });
  await page.waitForSelector("#NOT_FOUND:target", { timeout: PATIENCE });
  site.check(
    await page.evaluate(() => {
      const { top } = document.getElementById("NOT_FOUND").getBoundingClientRect();
      // A browser scrolls by whole pixels.
      return top > -1 && top < innerHeight;
    }),
    "and it is seen there",
  );
}
