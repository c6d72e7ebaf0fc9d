// What the tests of the pages share: the browser, somebody of each role in it, and what is always checked.

import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const AXE = readFileSync(join(here, "../node_modules/axe-core/axe.min.js"), "utf8");
const ARGUMENTS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** What a figure, a list or a job may take to be there, on a machine that does much else. */
export const PATIENCE = 60_000;

export class Site {
  constructor(told) {
    Object.assign(this, told);
    this.folder = mkdtempSync(join(tmpdir(), "console-"));
    this.failed = [];
    this.checks = 0;
    this.contexts = [];
    mkdirSync(this.screenshots, { recursive: true });
    this.registry = createFileRegistry(
      fromBinary(FileDescriptorSetSchema, readFileSync(join(here, "../../../python/palimpsest/contract.bin"))),
    );
  }

  /** Says what holds and what does not; all of it is said before the run fails. */
  check(holds, what) {
    this.checks += 1;
    if (!holds) {
      this.failed.push(`${this.now}: ${what}`);
      console.log(`  NOT SO: ${what}`);
    }
    return holds;
  }

  equal(found, expected, what) {
    const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
    return this.check(a === b, a === b ? what : `${what}: ${a} and not ${b}`);
  }

  /** A browser of its own for somebody: `viewer`, `editor`, ..., or nobody. */
  async open(role, options = {}) {
    const { url = this.url, ...rest } = options;
    const context = await chromium.launchPersistentContext(mkdtempSync(join(this.folder, "profile-")), {
      executablePath: this.chromium,
      args: ARGUMENTS,
      viewport: { width: 1280, height: 900 },
      ...rest,
    });
    this.contexts.push(context);
    const token = role && this.tokens[role];
    await context.addInitScript(`
      ${token ? `sessionStorage.setItem("palimpsest.token", ${JSON.stringify(token)});` : ""}
      window.violations = [];
      addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective + " " + event.blockedURI));
    `);
    if (this.dist) await this.fromFolder(context, url);
    const page = context.pages()[0] ?? (await context.newPage());
    return this.watched(page, url);
  }

  /** Takes the pages of a folder that was just built, in front of a program that has others. */
  async fromFolder(context, url) {
    const files = {
      "/assets/main.js": ["main.js", "text/javascript"],
      "/assets/main.css": ["main.css", "text/css"],
      "/assets/icon.svg": ["icon.svg", "image/svg+xml"],
      "/help.html": ["help.html", "text/html"],
    };
    await context.route(
      (address) => address.origin === new URL(url).origin,
      async (route) => {
        const request = route.request();
        const path = new URL(request.url()).pathname;
        const drawn = path === "/sign-in.json" || path.startsWith("/figures/");
        if (request.method() !== "GET" || drawn) return route.continue();
        const [file, contentType] = files[path] ?? ["index.html", "text/html"];
        const answer = await route.fetch({ maxRetries: 3 });
        const headers = { ...answer.headers(), "content-type": contentType };
        delete headers["content-length"];
        return route.fulfill({ status: 200, headers, body: readFileSync(join(this.dist, file)) });
      },
    );
  }

  /** What must never be said by a page, wherever it goes. */
  watched(page, url) {
    page.wrong = [];
    page.expected = [];
    page.on("console", (message) => {
      if (message.type() === "error") page.wrong.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => page.wrong.push(`error: ${error}`));
    page.on("dialog", (dialog) => {
      page.wrong.push(`a dialog of the browser: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on("request", (request) => {
      const address = request.url();
      if (!address.startsWith(new URL(url).origin) && !/^(data|blob):/.test(address))
        page.wrong.push(`asked elsewhere: ${address}`);
    });
    page.base = new URL(url).origin;
    return page;
  }

  /** Goes to a page, and waits until it has what it asked for. */
  async visit(page, path) {
    await page.goto(page.base + path);
    await this.settled(page);
    return page;
  }

  async settled(page) {
    await page.waitForSelector("h1", { timeout: PATIENCE });
    await page.waitForFunction(
      () => ![...document.querySelectorAll("p.quiet")].some((it) => it.textContent?.startsWith("Reading ")),
      undefined,
      { timeout: PATIENCE },
    );
    await page.waitForTimeout(300);
  }

  /** What holds on every page: nothing was blocked, nothing went wrong, no text became markup, axe finds nothing. */
  async sound(page, what) {
    const found = await page.evaluate(() => ({
      violations: window.violations,
      markup: document.querySelectorAll("img[src=x], img[onerror]").length,
      title: document.title,
      h1: document.querySelectorAll("h1").length,
    }));
    this.equal(found.violations, [], `${what}: nothing is against the policy`);
    this.equal(found.markup, 0, `${what}: texts stay texts`);
    this.check(found.h1 === 1 && /Palimpsest/.test(found.title), `${what}: one heading, and a title`);
    const wrong = page.wrong.filter((it) => !page.expected.some((pattern) => pattern.test(it)));
    this.equal(wrong, [], `${what}: no error`);
    page.wrong = [];
    await this.accessible(page, what);
  }

  async accessible(page, what) {
    // Not added as a script of the page: its policy would refuse that, as it should.
    const client = await page.context().newCDPSession(page);
    const run = `${AXE}; axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], rules: { "target-size": { enabled: true } } }).then((found) => JSON.stringify(found.violations.map((it) => it.id + ": " + it.nodes.slice(0, 3).map((node) => node.target.join(" ") + " " + (node.any[0]?.message ?? node.all[0]?.message ?? "")).join(" | "))))`;
    const answer = await client.send("Runtime.evaluate", { expression: run, awaitPromise: true, returnByValue: true });
    await client.detach();
    this.equal(
      JSON.parse(answer.result.value ?? `["axe did not run: ${answer.exceptionDetails?.text}"]`),
      [],
      `${what}: axe finds nothing`,
    );
  }

  /** The methods of the controls that are drawn. */
  methods(page) {
    return page.evaluate(() =>
      [...new Set([...document.querySelectorAll("[data-method]")].map((it) => it.getAttribute("data-method")))].sort(),
    );
  }

  /** Whether nothing has to be scrolled sideways but what says so. */
  async fits(page, what) {
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    this.check(over <= 0, `${what}: fits, and is ${over} pixels too wide`);
  }

  async shot(page, name) {
    await page.screenshot({ path: join(this.screenshots, `${name}.png`), fullPage: true });
  }

  /** As if another tab were in front, or this one again. */
  async hidden(page, is) {
    await page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      Object.defineProperty(document, "visibilityState", {
        configurable: true,
        get: () => (hidden ? "hidden" : "visible"),
      });
      document.dispatchEvent(new Event("visibilitychange"));
    }, is);
  }

  /** What the command says. */
  command(...words) {
    const done = spawnSync(this.cli.program, [...words, ...this.cli.arguments], {
      cwd: this.cli.folder,
      encoding: "utf8",
      maxBuffer: 1 << 26,
    });
    if (done.status !== 0) throw new Error(`${words.join(" ")}: ${done.stderr}`);
    return done.stdout;
  }

  json(...words) {
    return this.command(...words, "--json")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  }

  /** A call by hand, as somebody of a role: its answer, or its status. */
  async call(role, method, request = {}) {
    const [service, name] = method.split("/");
    const found = this.registry.getService(`palimpsest.v1.${service}`).methods.find((it) => it.name === name);
    const message = toBinary(found.input, create(found.input, request));
    const body = new Uint8Array(5 + message.length);
    new DataView(body.buffer).setUint32(1, message.length);
    body.set(message, 5);
    const headers = {
      "content-type": "application/grpc-web+proto",
      "x-grpc-web": "1",
      origin: new URL(this.url).origin,
    };
    if (role) headers.authorization = `Bearer ${this.tokens[role]}`;
    const answer = await fetch(`${this.url}/palimpsest.v1.${method}`, { method: "POST", headers, body });
    const data = new Uint8Array(await answer.arrayBuffer());
    const early = answer.headers.get("grpc-status");
    if (early !== null && early !== "0") return { status: Number(early) };
    if (!answer.ok) return { http: answer.status };
    const size = new DataView(data.buffer).getUint32(1);
    if (data[0] & 0x80)
      return { status: Number(/grpc-status: *([0-9]+)/.exec(new TextDecoder().decode(data.subarray(5)))?.[1]) };
    return { status: 0, message: fromBinary(found.output, data.subarray(5, 5 + size)) };
  }

  /** A module of the console, to write numbers as it does. */
  async module(file) {
    const outfile = join(this.folder, `${file.replace(/\W/g, "-")}.mjs`);
    await build({
      absWorkingDir: join(here, ".."),
      entryPoints: [file],
      outfile,
      bundle: true,
      format: "esm",
      logLevel: "error",
    });
    return import(pathToFileURL(outfile).href);
  }

  /** How the pages look that are open: for whoever reads of a failure. */
  async picture(name) {
    for (const [n, page] of this.contexts.flatMap((context) => context.pages()).entries()) {
      await this.shot(page, `${name}-${n}`).catch(() => undefined);
      console.log(`  was at ${page.url()}`);
    }
  }

  /** Kills the coordinator and starts it again: on its store, or as one that has rewritten its log. */
  async restart(how = "arguments") {
    const { program, folder, environment } = this.serve;
    await this.stop();
    this.server = spawn(program, this.serve[how], {
      cwd: folder,
      env: { ...process.env, ...environment },
      stdio: "ignore",
    });
    // Whatever becomes of this walk, nothing of it stays behind.
    const child = this.server;
    process.once("exit", () => child.kill("SIGKILL"));
    for (let turn = 0; turn < 600; turn++) {
      const answers = await fetch(`${this.url}/sign-in.json`)
        .then((it) => it.ok)
        .catch(() => false);
      if (answers) return;
      await new Promise((done) => setTimeout(done, 100));
    }
    throw new Error("the coordinator did not come back");
  }

  async stop() {
    const pid = this.server?.pid ?? this.serve.pid;
    try {
      process.kill(pid, "SIGKILL");
      for (let turn = 0; turn < 100; turn++) {
        process.kill(pid, 0);
        await new Promise((done) => setTimeout(done, 50));
      }
    } catch {
      // It is gone.
    }
    await new Promise((done) => setTimeout(done, 300));
  }

  async close() {
    for (const context of this.contexts.splice(0)) await context.close().catch(() => undefined);
  }

  async end() {
    if (this.server) await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
