// NumPy's npz: a zip file without compression, an `.npy` an array. And zip files of many of them, which are not held
// in this page's memory.

/** An array, row by row. */
export interface NpArray {
  name: string;
  /** None for a scalar. */
  shape: readonly number[];
  data: Float32Array | Float64Array | BigInt64Array | readonly string[] | readonly boolean[];
}

/** What a zip file without extensions can have. */
const [MOST_FILES, MOST_BYTES] = [0xffff, 0xffffffff];

/** A zip file that grows. */
export class Zip {
  private parts: BlobPart[] = [];
  private loose = 0;
  private readonly entries: Uint8Array<ArrayBuffer>[] = [];
  private at = 0;

  /** Bytes after which what was made is given to the browser, which keeps it where there is room. */
  constructor(private readonly most = 8 << 20) {}

  add(name: string, data: Uint8Array<ArrayBuffer>): void {
    const text = new TextEncoder().encode(name);
    const head = new DataView(new ArrayBuffer(26));
    const fields = [20, 0x0800, 0, 0, 0x21];
    fields.forEach((field, i) => head.setUint16(2 * i, field, true));
    head.setUint32(10, crc32(data), true);
    head.setUint32(14, data.length, true);
    head.setUint32(18, data.length, true);
    head.setUint16(22, text.length, true);
    const common = new Uint8Array(head.buffer);
    const behind = new DataView(new ArrayBuffer(14));
    behind.setUint32(10, this.at, true);
    this.entries.push(joined([Uint8Array.of(0x50, 0x4b, 1, 2, 20, 0), common, new Uint8Array(behind.buffer), text]));
    const local = joined([Uint8Array.of(0x50, 0x4b, 3, 4), common, text]);
    this.parts.push(local, data);
    this.at += local.length + data.length;
    this.loose += local.length + data.length;
    if (this.entries.length > MOST_FILES || this.at > MOST_BYTES)
      throw new Error("this is more than a zip file holds: ask the command line for the files");
    if (this.loose > this.most) {
      this.parts = [new Blob(this.parts)];
      this.loose = 0;
    }
  }

  /** All of it. */
  end(): BlobPart[] {
    const directory = joined(this.entries);
    const end = new DataView(new ArrayBuffer(22));
    end.setUint32(0, 0x06054b50, true);
    end.setUint16(8, this.entries.length, true);
    end.setUint16(10, this.entries.length, true);
    end.setUint32(12, directory.length, true);
    end.setUint32(16, this.at, true);
    return [...this.parts, directory, new Uint8Array(end.buffer)];
  }
}

/** Arrays as an npz. */
export function npz(arrays: readonly NpArray[]): Uint8Array<ArrayBuffer> {
  const zip = new Zip(Infinity);
  for (const array of arrays) zip.add(`${array.name}.npy`, npy(array));
  return joined(zip.end() as Uint8Array[]);
}

function npy({ shape, data: values }: NpArray): Uint8Array<ArrayBuffer> {
  const [type, data] = bytesOf(values);
  const size = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  let head = `{'descr': '${type}', 'fortran_order': False, 'shape': ${size}, }`;
  head = head.padEnd(Math.ceil((head.length + 11) / 64) * 64 - 11) + "\n";
  const length = Uint8Array.of(head.length & 255, head.length >> 8);
  const magic = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0);
  return joined([magic, length, new TextEncoder().encode(head), data]);
}

function bytesOf(values: NpArray["data"]): [string, Uint8Array] {
  if (ArrayBuffer.isView(values)) {
    const type = values instanceof Float32Array ? "<f4" : values instanceof Float64Array ? "<f8" : "<i8";
    return [type, new Uint8Array(values.buffer, values.byteOffset, values.byteLength)];
  }
  if (isTexts(values)) {
    const texts = values.map((text) => Array.from(text, (sign) => sign.codePointAt(0) ?? 0));
    const width = texts.reduce((most, text) => Math.max(most, text.length), 1);
    const view = new DataView(new ArrayBuffer(4 * width * texts.length));
    texts.forEach((text, row) => text.forEach((sign, i) => view.setUint32(4 * (row * width + i), sign, true)));
    return [`<U${width}`, new Uint8Array(view.buffer)];
  }
  return ["|b1", Uint8Array.from(values, Number)];
}

const isTexts = (values: readonly string[] | readonly boolean[]): values is readonly string[] =>
  typeof values[0] !== "boolean" && values.length > 0;

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const CRCS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  return crc;
});

function crc32(data: Uint8Array): number {
  let crc = ~0;
  for (const byte of data) crc = (crc >>> 8) ^ (CRCS[(crc ^ byte) & 255] as number);
  return ~crc >>> 0;
}
