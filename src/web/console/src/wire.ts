// Messages as bytes and back, by the table that build.mjs makes of the contract's descriptors.
//
// The types are those that protoc-gen-es generates; its runtime, which carries the whole of protobuf, would be
// a third of what the browser loads. A test holds every message against it, both ways.

import { MESSAGES } from "../contract/table";

/** A field, as the table says it: `name:number:type`, `*` for repeated, `?` for one that may be absent. */
interface Field {
  name: string;
  number: number;
  /** A letter for a scalar, or the name of a message. */
  type: string;
  repeated: boolean;
  optional: boolean;
  oneof: string | undefined;
}

interface Shape {
  fields: Field[];
  byNumber: Map<number, Field>;
  oneofs: string[];
}

type Value = unknown;
type Message = Record<string, Value>;
interface OneOf {
  case: string | undefined;
  value?: Value;
}

const shapes = new Map<string, Shape>();

function shapeOf(type: string): Shape {
  const known = shapes.get(type);
  if (known) return known;
  const line = MESSAGES[type];
  if (line === undefined) throw new Error(`the contract has no message ${type}`);
  const fields = line
    .split(" ")
    .filter(Boolean)
    .map((text): Field => {
      const [path = "", number = "", kind = ""] = text.split(":");
      const [first = "", second] = path.split(".");
      return {
        name: second ?? first,
        oneof: second === undefined ? undefined : first,
        number: Number(number),
        type: kind.replace(/[*?]/, ""),
        repeated: kind.endsWith("*"),
        optional: kind.endsWith("?"),
      };
    });
  const shape = {
    fields,
    byNumber: new Map(fields.map((field) => [field.number, field])),
    oneofs: [...new Set(fields.flatMap((field) => field.oneof ?? []))],
  };
  shapes.set(type, shape);
  return shape;
}

const isMessage = (type: string) => type.length > 1;

/** What a scalar is where nothing is said: strings `s`, bytes `y`, bools `b`, doubles `d`, 32 bits `u` `i`, 64 bits `U` `I`, a map of strings `M`. */
function nothing(type: string): Value {
  switch (type) {
    case "s":
      return "";
    case "y":
      return new Uint8Array(0);
    case "b":
      return false;
    case "U":
    case "I":
      return 0n;
    default:
      return 0;
  }
}

function fresh(shape: Shape): Message {
  const message: Message = {};
  for (const field of shape.fields) {
    if (field.oneof !== undefined) continue;
    if (field.type === "M") message[field.name] = {};
    else if (field.repeated) message[field.name] = [];
    else if (!field.optional && !isMessage(field.type)) message[field.name] = nothing(field.type);
  }
  for (const name of shape.oneofs) message[name] = { case: undefined };
  return message;
}

const texts = new TextDecoder();

class Reader {
  at = 0;
  private readonly view: DataView;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The low and the high 32 bits of a number of up to 64. */
  private halves(): [number, number] {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.bytes[this.at++];
      if (byte === undefined) break;
      const part = byte & 127;
      if (shift < 28) low |= part << shift;
      else if (shift === 28) {
        low |= part << 28;
        high = part >> 4;
      } else high |= part << (shift - 32);
      if (byte < 128) return [low >>> 0, high >>> 0];
    }
    throw new Error("a message is cut off");
  }

  number(): number {
    return this.halves()[0];
  }

  /** The end of what has its length before it. */
  end(): number {
    const length = this.number();
    const end = this.at + length;
    if (end > this.bytes.length) throw new Error("a message is cut off");
    return end;
  }

  scalar(type: string): Value {
    switch (type) {
      case "s":
        return texts.decode(this.data());
      case "y":
        return this.data().slice();
      case "d": {
        const value = this.view.getFloat64(this.at, true);
        this.at += 8;
        return value;
      }
      case "b":
        return this.number() !== 0;
      case "u":
        return this.number();
      case "i":
        return this.number() | 0;
      case "U":
      case "I": {
        const [low, high] = this.halves();
        const value = (BigInt(high) << 32n) | BigInt(low);
        return type === "I" ? BigInt.asIntN(64, value) : value;
      }
      default:
        throw new Error(`no such type: ${type}`);
    }
  }

  private data(): Uint8Array {
    const end = this.end();
    const data = this.bytes.subarray(this.at, end);
    this.at = end;
    return data;
  }

  /** Passes by a field that this program does not know. */
  skip(wire: number): void {
    if (wire === 0) this.halves();
    else if (wire === 1) this.at += 8;
    else if (wire === 2) this.at = this.end();
    else if (wire === 5) this.at += 4;
    else throw new Error(`no such wire type: ${wire}`);
  }

  message(type: string, end: number, into?: Message): Message {
    const shape = shapeOf(type);
    const message = into ?? fresh(shape);
    while (this.at < end) {
      const tag = this.number();
      const field = shape.byNumber.get(tag >>> 3);
      if (field) this.field(message, field, tag & 7);
      else this.skip(tag & 7);
    }
    return message;
  }

  private field(message: Message, field: Field, wire: number): void {
    const { name, type } = field;
    if (type === "M") {
      const entry = this.message("MapEntry", this.end());
      (message[name] as Record<string, Value>)[String(entry.key)] = entry.value;
    } else if (field.repeated) {
      const list = message[name] as Value[];
      if (isMessage(type)) list.push(this.message(type, this.end()));
      else if (wire === 2 && type !== "s" && type !== "y")
        for (const end = this.end(); this.at < end;) list.push(this.scalar(type));
      else list.push(this.scalar(type));
    } else if (field.oneof !== undefined) {
      const value = isMessage(type) ? this.message(type, this.end()) : this.scalar(type);
      message[field.oneof] = { case: name, value };
    } else {
      // A message that comes in two parts is one.
      message[name] = isMessage(type)
        ? this.message(type, this.end(), message[name] as Message | undefined)
        : this.scalar(type);
    }
  }
}

/** A message from its bytes. */
export function decode<T>(type: string, bytes: Uint8Array): T {
  return new Reader(bytes).message(type, bytes.length) as T;
}

class Writer {
  private bytes = new Uint8Array(256);
  private length = 0;

  get done(): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(0, this.length);
  }

  private room(more: number): void {
    if (this.length + more <= this.bytes.length) return;
    const larger = new Uint8Array(2 * (this.length + more));
    larger.set(this.bytes);
    this.bytes = larger;
  }

  number(value: bigint | number): void {
    this.room(10);
    let left = BigInt.asUintN(64, BigInt(value));
    while (left > 127n) {
      this.bytes[this.length++] = Number(left & 127n) | 128;
      left >>= 7n;
    }
    this.bytes[this.length++] = Number(left);
  }

  data(data: Uint8Array): void {
    this.number(data.length);
    this.room(data.length);
    this.bytes.set(data, this.length);
    this.length += data.length;
  }

  scalar(type: string, value: Value): void {
    if (type === "s") this.data(new TextEncoder().encode(value as string));
    else if (type === "y") this.data(value as Uint8Array);
    else if (type === "d") {
      this.room(8);
      new DataView(this.bytes.buffer).setFloat64(this.length, value as number, true);
      this.length += 8;
    } else this.number(type === "b" ? Number(value) : (value as bigint | number));
  }

  one(field: Field, value: Value): void {
    const { type, number } = field;
    const wire = isMessage(type) || type === "s" || type === "y" ? 2 : type === "d" ? 1 : 0;
    this.number((number << 3) | wire);
    if (isMessage(type)) this.data(encode(type, value as Message));
    else this.scalar(type, value);
  }

  message(type: string, message: Message): void {
    for (const field of shapeOf(type).fields) {
      if (field.oneof !== undefined) {
        const chosen = message[field.oneof] as OneOf | undefined;
        if (chosen?.case === field.name && chosen.value !== undefined) this.one(field, chosen.value);
        continue;
      }
      const value = message[field.name];
      if (value === undefined || value === null) continue;
      if (field.type === "M")
        for (const [key, text] of Object.entries(value))
          this.one({ ...field, type: "MapEntry" }, { key, value: text as Value });
      else if (field.repeated) this.list(field, value as Value[]);
      else if (field.optional || isMessage(field.type) || !isNothing(field.type, value)) this.one(field, value);
    }
  }

  private list(field: Field, values: readonly Value[]): void {
    if (values.length === 0) return;
    if (isMessage(field.type) || field.type === "s" || field.type === "y") {
      for (const value of values) this.one(field, value);
      return;
    }
    const packed = new Writer();
    for (const value of values) packed.scalar(field.type, value);
    this.number((field.number << 3) | 2);
    this.data(packed.done);
  }
}

function isNothing(type: string, value: Value): boolean {
  // A minus zero is said.
  if (type === "d") return Object.is(value, 0);
  return type === "y" ? (value as Uint8Array).length === 0 : value === nothing(type);
}

/** A message as bytes; what is not said is left out. */
export function encode(type: string, message: object): Uint8Array<ArrayBuffer> {
  const writer = new Writer();
  writer.message(type, message as Message);
  return writer.done;
}
