// What is seen as lines for a shell and for Python. Names and texts come from addresses and from others: whatever is
// in one, it stays one word of the line.

/** What an option may have; `code` is Python's, as it stands. */
type Value = string | number | boolean | readonly string[] | { code: string } | undefined;
type Options = Record<string, Value>;

const HIDDEN =
  /[\x01-\t\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const octal = (byte: number) => `\\${byte.toString(8).padStart(3, "0")}`;

/** A word as POSIX shells take it, whatever is in it. */
export function quoted(text: string): string {
  if (/^[\w@%+:,./-]+$/.test(text)) return text;
  const inner = text
    .replaceAll("\0", "")
    .replaceAll("'", "'\\''")
    // Where a line is pasted, such a sign is a key that is pressed: Ctrl+U would take away the quote before it. Others do
    // not show, or turn the line around.
    .replace(HIDDEN, (sign) => `'"$(printf '${[...new TextEncoder().encode(sign)].map(octal).join("")}')"'`);
  return `'${inner}'`;
}

/** Options that have a value, each of a list's by itself. */
const set = (options: Options) =>
  Object.entries(options).filter(([, value]) => (Array.isArray(value) ? value.length > 0 : value || value === 0));

/** A command: its name, the words that it is given, and its options. */
export function command(name: string, given: readonly string[] = [], options: Options = {}): string {
  const flags = set(options)
    .flatMap(([flag, value]) => (Array.isArray(value) ? value : [value]).map((it) => [flag, it] as const))
    // A value that begins with a dash would be taken for another option.
    .map(([flag, it]) => {
      const text = String(it);
      return it === true ? `--${flag}` : `--${flag}${text.startsWith("-") ? "=" : " "}${quoted(text)}`;
    });
  const words = given.map(quoted);
  const all = given.some((word) => word.startsWith("-")) ? [...flags, "--", ...words] : [...words, ...flags];
  return ["palimpsest", name, ...all].join(" ");
}

/** A value as Python reads it. */
export function literal(value: Value): string {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return (value as { code: string }).code;
  if (typeof value === "boolean") return value ? "True" : "False";
  // JSON's escapes are Python's, too. What does not show, or turns the line around, is escaped as well.
  return JSON.stringify(value).replace(
    /[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A call in Python: its name, the values that it is given, and those by name. */
export function call(name: string, given: readonly Value[] = [], options: Options = {}): string {
  const named = set(options).map(([key, value]) => `${key}=${literal(value)}`);
  return `${name}(${[...given.filter((it) => it !== undefined).map(literal), ...named].join(", ")})`;
}

const DATETIME = "from datetime import datetime\n\n";

/** What the audit log's filters let through, by the names that the page's address gives them. */
export function audited(asked: (name: string) => string): { command?: string; python: string } {
  const day = (name: string, plus: number) => {
    const time = new Date(`${asked(name)}T00:00:00`);
    time.setDate(time.getDate() + plus);
    return Number.isNaN(time.getTime()) ? undefined : time.toISOString().replace(".000Z", "Z");
  };
  const of = { principal: asked("principal"), action: asked("action"), resource: asked("resource") };
  const [from, until] = [day("from", 0), day("until", 1)];
  const outcome = ["ok", "refused"].find((it) => it === asked("outcome"));
  const at = (time: string | undefined) => time && { code: `datetime.fromisoformat("${time.replace("Z", "+00:00")}")` };
  const named = { ...of, outcome, start: at(from), end: at(until) };
  const lines = call("p.audit.entries", [], named);
  return {
    // The command line lists all, or what was refused.
    command: outcome === "ok" ? undefined : command("audit list", [], { ...of, refused: !!outcome, from, until }),
    python: set(named).length === 0 ? "p.audit.verify()" : from || until ? `${DATETIME}${lines}` : lines,
  };
}
