// The page of help, of Markdown: what the console says of itself, then the guides, where there are some.

import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";

import { Marked, Renderer } from "marked";

/** Where guides are in the repository: what they link to is seen from there. */
const GUIDES = "src/guide";
/** In the order in which they are read; others follow by name. */
const ORDER = ["first-hour", "ideas", "reading-maps", "editing-safely", "clusters", "auditing", "when-it-fails"];
/** The guide whose headings and list items are named by the reasons of errors. */
const FAILS = "when-it-fails";
/** What the console's own part is called in an address. */
const OWN = "console";
const REASON = /^[A-Z]+(_[A-Z]+)*$/;

const escape = (text) =>
  text.replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);

/** The guides of a folder, by their names. */
export function guidesOf(folder) {
  let files = [];
  try {
    files = readdirSync(folder);
  } catch {
    // There are none yet.
  }
  const names = files.filter((name) => name.endsWith(".md")).map((name) => name.slice(0, -3));
  const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  names.sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  return names.map((name) => ({ name, text: readFileSync(join(folder, `${name}.md`), "utf8") }));
}

/** A heading's name in an address, as forges make it. */
const slug = (text) =>
  text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replace(/\s+/g, "-");

/** `STORE_OCCUPIED` of a heading or the beginning of a list item; nothing of others. */
const reasonOf = (text) => {
  const word = text.replace(/^`([^`]+)`.*$/s, "$1").trim();
  return REASON.test(word) && word.length > 4 ? word : undefined;
};

/** The reasons that have a paragraph. */
export function reasons(guides) {
  const text = guides.find(({ name }) => name === FAILS)?.text ?? "";
  const found = [];
  new Marked({
    walkTokens: (token) => {
      if (token.type === "heading" || token.type === "list_item") found.push(reasonOf(token.text));
    },
  }).parse(text);
  return [...new Set(found.filter(Boolean))].sort();
}

/**
 * The page, from its frame: `own` has the only heading of the first level, `last` stands behind the guides.
 * Links between guides lead to their places on it, and files of the repository are only named.
 */
export function page(template, own, guides, last) {
  const contents = [];
  const taken = new Set();
  let tables = 0;
  const named = (name) => {
    let id = name || "part";
    for (let n = 1; taken.has(id); n++) id = `${name}-${n}`;
    taken.add(id);
    return id;
  };
  const known = new Set(guides.map(({ name }) => name));
  const address = (href, guide) => {
    if (/^https?:/.test(href)) return { href };
    const [path, anchor = ""] = href.split("#");
    const file = posix.join(GUIDES, path || `${guide}.md`);
    const to = new RegExp(`^${GUIDES}/([^/]+)\\.md$`).exec(file)?.[1];
    if (!known.has(to)) return { file };
    return { href: `#${to}${anchor ? `--${anchor}` : ""}` };
  };
  const render = (text, guide) => {
    const renderer = new Renderer();
    const deeper = guide ? 1 : 0;
    renderer.heading = function ({ tokens, depth, text: plain }) {
      const inner = this.parser.parseInline(tokens);
      const reason = guide === FAILS ? reasonOf(plain) : undefined;
      const bare = slug(inner.replace(/<[^>]*>/g, "").replace(/&[a-z0-9#]+;/g, ""));
      const id = named(reason ?? (depth === 1 ? (guide ?? OWN) : `${guide ?? OWN}--${bare}`));
      const level = depth + deeper;
      if (level === 2) contents.push({ id, inner, parts: [] });
      else if (level === 3) contents.at(-1)?.parts.push({ id, inner });
      return `<h${level} id="${id}">${inner}</h${level}>\n`;
    };
    const item = renderer.listitem;
    renderer.listitem = function (token) {
      const reason = guide === FAILS ? reasonOf(token.text) : undefined;
      const html = item.call(this, token);
      return reason ? html.replace("<li>", `<li id="${named(reason)}">`) : html;
    };
    renderer.link = function ({ href, tokens }) {
      const inner = this.parser.parseInline(tokens);
      const to = address(href, guide);
      if (to.href) return `<a href="${escape(to.href)}">${inner}</a>`;
      const file = `<code>${escape(to.file)}</code>`;
      return inner.replace(/<[^>]*>/g, "") === posix.basename(to.file) ? file : `${inner} (${file})`;
    };
    // No table is wider than a small window, and who has no mouse can scroll it.
    const table = renderer.table;
    renderer.table = function (token) {
      return `<div class="wide" tabindex="0" role="region" aria-label="Table ${++tables}">${table.call(this, token)}</div>`;
    };
    // The corner of a table whose rows have names heads nothing.
    const cell = renderer.tablecell;
    renderer.tablecell = function (token) {
      return token.header && token.tokens.length === 0 ? "<td></td>\n" : cell.call(this, token);
    };
    // A guide's pictures are in the repository and not in the program.
    renderer.image = ({ text: said }) => escape(said);
    renderer.code = ({ text: code }) => `<pre tabindex="0"><code>${escape(code)}</code></pre>\n`;
    // A text that looks like markup is a text.
    renderer.html = ({ text: raw }) => escape(raw);
    return new Marked({ renderer, async: false }).parse(text);
  };
  const body = [render(own), ...guides.map(({ name, text }) => render(text, name)), render(last)].join("\n");
  const entry = ({ id, inner, parts = [] }) =>
    `<li><a href="#${id}">${inner}</a>${parts.length ? `<ol>${parts.map(entry).join("")}</ol>` : ""}</li>`;
  return template
    .replace("<!-- contents -->", () => contents.map(entry).join("\n"))
    .replace("<!-- guides -->", () => body);
}
