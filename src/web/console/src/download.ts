// What is seen can be taken along: as SVG, CSV, JSON lines or NumPy's npz, with the numbers that are shown.

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

/** An array of an npz file. */
export interface NpArray {
  name: string;
  shape: number[];
  data: Float64Array | BigInt64Array | string[];
}

/** Arrays as NumPy's npz: a zip file without compression, an `.npy` an array. */
export function npz(arrays: readonly NpArray[]): Uint8Array<ArrayBuffer> {
  const files = arrays.map((array) => ({ name: `${array.name}.npy`, data: npy(array) }));
  const parts: Uint8Array[] = [];
  const entries: Uint8Array[] = [];
  let at = 0;
  for (const { name, data } of files) {
    const text = new TextEncoder().encode(name);
    const head = new DataView(new ArrayBuffer(26));
    const fields = [20, 0x0800, 0, 0, 0x21];
    fields.forEach((field, i) => head.setUint16(2 * i, field, true));
    head.setUint32(10, crc32(data), true);
    head.setUint32(14, data.length, true);
    head.setUint32(18, data.length, true);
    head.setUint16(22, text.length, true);
    const common = new Uint8Array(head.buffer);
    const local = joined([Uint8Array.of(0x50, 0x4b, 3, 4), common, text, data]);
    const behind = new DataView(new ArrayBuffer(14));
    behind.setUint32(10, at, true);
    entries.push(joined([Uint8Array.of(0x50, 0x4b, 1, 2, 20, 0), common, new Uint8Array(behind.buffer), text]));
    parts.push(local);
    at += local.length;
  }
  const directory = joined(entries);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, directory.length, true);
  end.setUint32(16, at, true);
  return joined([...parts, directory, new Uint8Array(end.buffer)]);
}

function npy(array: NpArray): Uint8Array<ArrayBuffer> {
  let type = "<f8";
  let data: Uint8Array;
  if (array.data instanceof Float64Array)
    data = new Uint8Array(array.data.buffer, array.data.byteOffset, array.data.byteLength);
  else if (array.data instanceof BigInt64Array) {
    type = "<i8";
    data = new Uint8Array(array.data.buffer, array.data.byteOffset, array.data.byteLength);
  } else {
    const texts = array.data.map((text) => Array.from(text, (sign) => sign.codePointAt(0) ?? 0));
    const width = texts.reduce((most, text) => Math.max(most, text.length), 1);
    type = `<U${width}`;
    const view = new DataView(new ArrayBuffer(4 * width * texts.length));
    texts.forEach((text, row) => text.forEach((sign, i) => view.setUint32(4 * (row * width + i), sign, true)));
    data = new Uint8Array(view.buffer);
  }
  const shape = array.shape.length === 1 ? `(${array.shape[0]},)` : `(${array.shape.join(", ")})`;
  let head = `{'descr': '${type}', 'fortran_order': False, 'shape': ${shape}, }`;
  head = head.padEnd(Math.ceil((head.length + 11) / 64) * 64 - 11) + "\n";
  const length = Uint8Array.of(head.length & 255, head.length >> 8);
  const magic = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0);
  return joined([magic, length, new TextEncoder().encode(head), data]);
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function crc32(data: Uint8Array): number {
  let crc = ~0;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
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
