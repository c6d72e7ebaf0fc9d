// What is seen can be taken along: as SVG, CSV or JSON lines, with the numbers that are shown.

/** Gives the visitor a file. */
export function save(name: string, type: string, ...parts: BlobPart[]): void {
  const address = URL.createObjectURL(new Blob(parts, { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** What a table has in a place. */
export type Cell = string | number | bigint | boolean | undefined | null;

/** A table as CSV (RFC 4180), and so that no program of tables takes a text for a formula. */
export function csv(head: readonly (string | number)[], rows: readonly (readonly Cell[])[]): string {
  const cell = (value: Cell): string => {
    if (value === undefined || value === null) return "";
    if (typeof value !== "string") return String(value);
    const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Objects as JSON, one a line. Numbers that JSON has not are null, as the command line writes them. */
export function jsonLines(items: readonly unknown[]): string {
  return items.map((item) => json(item, 0)).join("\n") + "\n";
}

export function json(item: unknown, indent = 2): string {
  return JSON.stringify(
    item,
    (_, value: unknown) => {
      if (typeof value === "bigint") return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value.toString();
      if (value instanceof Uint8Array) return Array.from(value, (byte) => byte.toString(16).padStart(2, "0")).join("");
      if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number>);
      return value;
    },
    indent,
  );
}

/** A figure of the page as a file: as it is drawn on white, whatever scheme the page is in. */
export function saveSvg(name: string, figure: SVGSVGElement): void {
  const copy = figure.cloneNode(true) as SVGSVGElement;
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.removeAttribute("class");
  copy.removeAttribute("tabindex");
  for (const node of copy.querySelectorAll("[data-page]")) node.remove();
  save(name, "image/svg+xml", new XMLSerializer().serializeToString(copy));
}
