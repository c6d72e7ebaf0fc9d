// What needs no browser: `node --test tests/unit.mjs`, after `node build.mjs --contract`.
//
// Messages are held against the runtime of protoc-gen-es, proofs against the vectors that other implementations
// of RFC 6962 repeat, against trees made here, and against what a coordinator answered: proofs.json, of a log with
// the jobs, edits and refs of a walk through the pages.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, generateKeyPairSync, sign, webcrypto } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { create, createFileRegistry, fromBinary, ScalarType, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { build } from "esbuild";

// Node 18 has it, and not as a global.
globalThis.crypto ??= webcrypto;

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const folder = mkdtempSync(join(tmpdir(), "console-"));
after(() => rmSync(folder, { recursive: true }));

async function load(file) {
  const outfile = join(folder, `${file.replace(/\W/g, "-")}.mjs`);
  await build({ absWorkingDir: root, entryPoints: [file], outfile, bundle: true, format: "esm", logLevel: "error" });
  return import(pathToFileURL(outfile).href);
}

const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hex = (data) => Buffer.from(data).toString("hex");

// A small generator of numbers, so that a failure comes again.
function random(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % below;
  };
}

test("messages have the bytes of the reference, and are read from them", async () => {
  const { encode, decode } = await load("src/wire.ts");
  const { MESSAGES } = await load("contract/table.ts");
  const registry = createFileRegistry(
    fromBinary(FileDescriptorSetSchema, readFileSync(join(root, "../../python/palimpsest/contract.bin"))),
  );
  const all = [...registry].filter((it) => it.kind === "message");
  const named = (message) =>
    message.typeName === "google.rpc.Status"
      ? "Status_"
      : message.typeName.replace(/^(palimpsest\.v1|google\.rpc|google\.protobuf)\./, "").replaceAll(".", "_");
  const pick = random(7);
  const scalar = (type) => {
    switch (type) {
      case ScalarType.STRING:
        return ["", "a", "Eiffel é ‮ 😀", "x".repeat(300)][pick(4)];
      case ScalarType.BYTES:
        return Uint8Array.from({ length: pick(5) }, () => pick(256));
      case ScalarType.BOOL:
        return pick(2) === 1;
      case ScalarType.DOUBLE:
        return [0, -0, 1.5, -1e300, NaN, Infinity, 1e-310][pick(7)];
      case ScalarType.UINT32:
        return [0, 1, 127, 128, 300, 0xffffffff][pick(6)];
      case ScalarType.INT32:
        return [0, 1, -1, 2147483647, -2147483648][pick(5)];
      case ScalarType.UINT64:
        return [0n, 1n, 1n << 31n, 1n << 32n, (1n << 35n) + 5n, (1n << 64n) - 1n][pick(6)];
      case ScalarType.INT64:
        return [0n, 1n, -1n, 1n << 40n, -(1n << 63n), (1n << 63n) - 1n][pick(6)];
    }
  };
  const made = (message, depth) => {
    const it = {};
    const one = (field) =>
      field.message
        ? made(field.message, depth + 1)
        : field.enum
          ? field.enum.values[pick(field.enum.values.length)].number
          : scalar(field.scalar);
    for (const field of message.fields) {
      if (pick(3) === 0 || (field.message && depth > 3)) continue;
      if (field.oneof) it[field.oneof.localName] = { case: field.localName, value: one(field) };
      else if (field.fieldKind === "map") it[field.localName] = { a: "b", "": "c" };
      else if (field.fieldKind === "list") it[field.localName] = Array.from({ length: pick(4) }, () => one(field));
      else it[field.localName] = one(field);
    }
    return it;
  };
  const plain = (value) => {
    if (value instanceof Uint8Array) return [...value];
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value !== "object" || value === null) return Object.is(value, -0) ? "-0" : value;
    // A generated message shows what was not said through its prototype.
    const entries = [];
    for (const name in value)
      if (name !== "$typeName" && name !== "$unknown" && value[name] !== undefined)
        entries.push([name, plain(value[name])]);
    return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
  };
  let seen = 0;
  for (const message of all) {
    const name = named(message);
    if (MESSAGES[name] === undefined || message.typeName.startsWith("google.protobuf.Any")) continue;
    for (let turn = 0; turn < 20; turn++) {
      const it = made(message, 0);
      const theirs = toBinary(message, create(message, it));
      const ours = encode(name, it);
      // The order of fields is the writer's own: what counts is what is read.
      assert.deepEqual(plain(decode(name, theirs)), plain(fromBinary(message, theirs)), `${name} read`);
      assert.deepEqual(plain(fromBinary(message, ours)), plain(fromBinary(message, theirs)), `${name} written`);
      seen += 1;
    }
    // A field that this program does not know is passed by.
    const strange = Uint8Array.of(
      ...encode(name, {}),
      0xfa,
      0x7f,
      2,
      1,
      2,
      0xf8,
      0x7f,
      5,
      0xfd,
      0x7f,
      1,
      2,
      3,
      4,
      0xf9,
      0x7f,
      1,
      2,
      3,
      4,
      5,
      6,
      7,
      8,
    );
    assert.deepEqual(plain(decode(name, strange)), plain(decode(name, new Uint8Array(0))));
  }
  assert.ok(seen > 1500, `${seen} messages`);
  assert.throws(() => decode("Job", Uint8Array.of(0x0a, 200)), /cut off/);
});

// The inputs, roots and proofs of certificate-transparency's own tests (merkle_tree_test.cc).
const INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS = [
  "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
  "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
  "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
  "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
  "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
  "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
  "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
  "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
const FIRST = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const SECOND = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const THIRD = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
const FIFTH = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const PAIR = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const SIXTH = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";

const sha = (...parts) => createHash("sha256").update(Buffer.concat(parts)).digest();
const node = (left, right) => sha(Uint8Array.of(1), left, right);
const split = (n) => 2 ** Math.floor(Math.log2(n - 1));
const rootOf = (leaves) =>
  leaves.length === 0
    ? sha()
    : leaves.length === 1
      ? leaves[0]
      : node(rootOf(leaves.slice(0, split(leaves.length))), rootOf(leaves.slice(split(leaves.length))));
function inclusion(leaves, index) {
  if (leaves.length <= 1) return [];
  const at = split(leaves.length);
  return index < at
    ? [...inclusion(leaves.slice(0, at), index), rootOf(leaves.slice(at))]
    : [...inclusion(leaves.slice(at), index - at), rootOf(leaves.slice(0, at))];
}
function consistency(leaves, old, whole = true) {
  if (old === leaves.length) return whole ? [] : [rootOf(leaves)];
  const at = split(leaves.length);
  return old <= at
    ? [...consistency(leaves.slice(0, at), old, whole), rootOf(leaves.slice(at))]
    : [...consistency(leaves.slice(at), old - at, false), rootOf(leaves.slice(0, at))];
}

test("proofs are those of the published vectors", async () => {
  const proof = await load("src/proof.ts");
  const leaves = await Promise.all(INPUTS.map((input) => proof.leafHash(bytes(input))));
  assert.equal(hex(await proof.emptyRoot()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  let tree = { size: 0n, peaks: [] };
  for (const [n, expected] of ROOTS.entries()) {
    tree = await proof.push(tree, leaves[n]);
    assert.equal(hex(await proof.rootOf(tree)), expected);
  }
  const included = (index, size, path) =>
    proof.isIncluded(leaves[index], BigInt(index), BigInt(size), path.map(bytes), bytes(ROOTS[size - 1]));
  assert.ok(await included(0, 1, []));
  assert.ok(await included(0, 8, [FIRST, SECOND, THIRD]));
  assert.ok(await included(5, 8, [FIFTH, PAIR, ROOTS[3]]));
  assert.ok(await included(2, 3, [ROOTS[1]]));
  assert.ok(await included(1, 5, [ROOTS[0], SECOND, FIFTH]));
  const consistent = (old, size, path) =>
    proof.isConsistent(BigInt(old), bytes(ROOTS[old - 1]), BigInt(size), bytes(ROOTS[size - 1]), path.map(bytes));
  assert.ok(await consistent(1, 1, []));
  assert.ok(await consistent(1, 8, [FIRST, SECOND, THIRD]));
  assert.ok(await consistent(6, 8, [SIXTH, PAIR, ROOTS[3]]));
  assert.ok(await consistent(2, 5, [SECOND, FIFTH]));
});

test("every proof of every small tree holds, and no altered one does", async () => {
  const proof = await load("src/proof.ts");
  const all = Array.from({ length: 33 }, (_, n) => sha(Uint8Array.of(0, n)));
  const altered = (path) =>
    path.map((_, at) =>
      path.map((hash, i) => (i === at ? Uint8Array.from(hash, (byte, b) => (b === 7 ? byte ^ 1 : byte)) : hash)),
    );
  for (let size = 1; size <= all.length; size++) {
    const tree = all.slice(0, size);
    const top = rootOf(tree);
    for (let index = 0; index < size; index++) {
      const path = inclusion(tree, index);
      const holds = (it, leaf = tree[index]) => proof.isIncluded(leaf, BigInt(index), BigInt(size), it, top);
      assert.ok(await holds(path), `${index} of ${size}`);
      assert.ok(!(await holds(path, sha())));
      assert.ok(!(await holds([...path, top])));
      for (const it of altered(path)) assert.ok(!(await holds(it)));
      // One path and the leaves behind it give the root of all.
      let rest = proof.frontierBefore(BigInt(index), BigInt(size), path);
      assert.equal(hex(await proof.rootOf(rest)), hex(rootOf(tree.slice(0, index))));
      for (const leaf of tree.slice(index)) rest = await proof.push(rest, leaf);
      assert.equal(hex(await proof.rootOf(rest)), hex(top));
    }
    for (let old = 0; old <= size; old++) {
      const [before, path] = [rootOf(tree.slice(0, old)), old === 0 ? [] : consistency(tree, old)];
      const holds = (it, was = before) => proof.isConsistent(BigInt(old), was, BigInt(size), top, it);
      assert.ok(await holds(path), `${old} to ${size}`);
      assert.ok(!(await holds(path, sha(Uint8Array.of(9)))));
      for (const it of altered(path)) assert.ok(!(await holds(it)));
    }
  }
});

test("a note is taken with its signature, and not when it was altered", async () => {
  const proof = await load("src/proof.ts");
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const key = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const name = "palimpsest-audit/0123";
  const hash = sha(Buffer.from(`${name}\n`), Uint8Array.of(1), key).subarray(0, 4);
  const verifier = `${name}+${hex(hash)}+${Buffer.concat([Uint8Array.of(1), key]).toString("base64")}`;
  const text = `${name}\n41\n${sha().toString("base64")}\n`;
  const signed = Buffer.concat([hash, sign(null, Buffer.from(text), privateKey)]).toString("base64");
  const note = `${text}\n\u2014 ${name} ${signed}\n`;
  const read = await proof.readNote(note, verifier);
  assert.equal(read.size, 41n);
  assert.equal(hex(read.root), hex(sha()));
  await assert.rejects(proof.readNote(note.replace("41", "42"), verifier), /altered/);
  await assert.rejects(proof.readNote(note.replace("\u2014", "-"), verifier), /not signed/);
  const other = generateKeyPairSync("ed25519").publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  await assert.rejects(
    proof.readNote(note, `${name}+0+${Buffer.concat([Uint8Array.of(1), other]).toString("base64")}`),
    /another key/,
  );
});

test("proofs that the program made hold", async () => {
  const proof = await load("src/proof.ts");
  const found = JSON.parse(readFileSync(join(root, "tests/proofs.json"), "utf8"));
  const { size, root: top } = await proof.readNote(found.note, found.key);
  assert.ok(found.entries.length > 0 && found.consistency.length > 0);
  for (const it of found.entries)
    assert.ok(
      await proof.isIncluded(await proof.leafHash(bytes(it.leaf)), BigInt(it.index), size, it.path.map(bytes), top),
      `entry ${it.index}`,
    );
  for (const it of found.consistency)
    assert.ok(
      await proof.isConsistent(BigInt(it.old_size), bytes(it.old_root), size, top, it.path.map(bytes)),
      `from ${it.old_size}`,
    );
});

test("numbers are written as the command line writes them", async () => {
  const { number, visible, token } = await load("src/format.ts");
  const pairs = [
    [0, "0"],
    [0.35641, "0.356"],
    [0.0012345, "0.0012"],
    [0.00012345, "1.23e-4"],
    [12.3456, "12.346"],
    [123.4, "123"],
    [2e-7, "2e-7"],
    [1.5e7, "1.5e7"],
    [NaN, "NaN"],
    [-0.5, "-0.500"],
  ];
  for (const [value, text] of pairs) assert.equal(number(value), text);
  assert.equal(visible("a\u202eb\nc"), "a\\u{202e}b\\nc");
  assert.equal(token(" Paris"), "\u2423Paris");
});

test("colours are those of the program's figures, and hatching is where no number is", async () => {
  const { anchors, shade, css } = await load("src/colours.ts");
  const source = readFileSync(join(root, "../../plot/palette.rs"), "utf8");
  for (const [name, ramp, two] of [
    ["PURPLES", "hidden", false],
    ["GREENS", "mlp", false],
    ["REDS", "attn", false],
  ]) {
    const listed = new RegExp(`${name}: \\[Rgb; 9\\] = ramp\\(\\[([^\\]]*)\\]`)
      .exec(source)[1]
      .match(/0x[0-9a-f]{6}/g)
      .map((it) => `#${it.slice(2)}`);
    assert.deepEqual(anchors(ramp, two).map(css), listed);
    assert.equal(css(shade(anchors(ramp, two), 1)), listed[8]);
    assert.equal(anchors(ramp, true).length, 17);
  }
  const { position, scale, around, ticks } = await load("src/parts/ticks.ts");
  assert.equal(position(NaN, { floor: 0, ceiling: 1 }), undefined);
  assert.deepEqual(scale([0.2, NaN, 0.9], 0.1), { floor: 0.1, ceiling: 0.9 });
  assert.equal(around([0.5, 1], 0), undefined);
  assert.deepEqual(
    ticks(0, 1, 5).map(([, label]) => label),
    ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"],
  );
});

test("means are those of the evaluation's own tests", async () => {
  const { meanOver, harmonic } = await load("src/evaluation.ts");
  assert.deepEqual(meanOver([1]), { count: 1, mean: 1, half: undefined });
  assert.ok(Math.abs(meanOver([0, 1]).half - 1.96 / 2) < 1e-12);
  assert.equal(harmonic([[1, 0, 1]]).mean, 0);
  assert.ok(
    Math.abs(
      harmonic([
        [1, 0.5, 0.25],
        [1, 0.5, 0.25],
      ]).mean -
        3 / 7,
    ) < 1e-12,
  );
});

test("ranks correlate as Spearman's do, ties shared", async () => {
  const { rankCorrelation } = await load("src/estimates.ts");
  assert.equal(rankCorrelation([1, 2, 3], [2, 4, 9]), 1);
  assert.equal(rankCorrelation([1, 2, 3], [3, 2, 1]), -1);
  assert.equal(rankCorrelation([1, 1], [1, 2]), undefined);
  assert.ok(Math.abs(rankCorrelation([1, 2, 2, 4], [1, 3, 2, 4]) - 0.9486832980505138) < 1e-12);
});

/** What could end a quotation, begin a command, turn a line around, or be taken for an option. */
const HOSTILE = [
  "",
  "main",
  "main~2",
  "~root",
  "v0;touch /tmp/x;",
  "$(id)",
  "`id`",
  "$HOME ${HOME}",
  "it's",
  "'",
  "''; id; '",
  'say "no"',
  "a\\",
  "\\'",
  "a\nb",
  "\n",
  "a\r\nid\r",
  "\t",
  "\u0015id\r",
  "\u001b[201~\nid\n",
  "\u007f",
  "-x",
  "--help",
  "--",
  "-x y",
  "a b",
  "*",
  "?",
  "[a]",
  "{a,b}",
  "#a",
  "!!",
  "a=b",
  "=ls",
  "a&b|c>d<e",
  "%1",
  "Zürich \u202e 東京 😀",
  "\u2028\u009b",
];

test("words of a copied command stay words, whatever is in them", async () => {
  const { command } = await load("src/copied.ts");
  const read = (shell, line) => {
    const says = `palimpsest() { for word in "$@"; do printf '%s\\0' "$word"; done; }\n${line}`;
    const done = spawnSync(shell, ["-c", says], { encoding: "utf8", cwd: folder });
    assert.equal(done.stderr, "", line);
    return done.stdout.split("\0").slice(0, -1);
  };
  for (const text of HOSTILE) {
    const options = { text, list: [text, "x"], so: true, not: false, none: undefined, no: 0 };
    const line = command("diff", [text, "b"], options);
    // Nothing of it is a key that a terminal takes for something else.
    assert.doesNotMatch(line, /[\x00-\x09\x0b-\x1f\x7f]/);
    const option = (name, value) => (value.startsWith("-") ? [`--${name}=${value}`] : [`--${name}`, value]);
    const flags = [
      ...(text ? option("text", text) : []),
      ...option("list", text),
      ...["--list", "x", "--so", "--no", "0"],
    ];
    const wanted = text.startsWith("-") ? [...flags, "--", text, "b"] : [text, "b", ...flags];
    for (const shell of ["sh", "bash"]) assert.deepEqual(read(shell, line), ["diff", ...wanted], line);
  }
  assert.equal(command("job list", [], { text: "-x" }), "palimpsest job list --text=-x");
  assert.equal(command("show", ["0123abcd"], { model: "tiny" }), "palimpsest show 0123abcd --model tiny");
  assert.equal(command("log", ["a\0b"]), "palimpsest log 'ab'");
});

test("texts of a copied line of Python are one literal each", async () => {
  const { call, literal } = await load("src/copied.ts");
  const python = spawnSync("python3", ["--version"]).status === 0;
  for (const text of [...HOSTILE, '"""', "\\", "\u0000", "{}"]) {
    const said = literal(text);
    assert.match(said, /^"([^"\\\n]|\\.)*"$/);
    assert.doesNotMatch(said, /[\x00-\x1f\x7f-\x9f\u2028\u202e]/);
    if (!python) continue;
    const reads = "import ast, json, sys; print(json.dumps(ast.literal_eval(sys.argv[1])))";
    const read = spawnSync("python3", ["-c", reads, said]);
    assert.deepEqual(JSON.parse(read.stdout.toString()), text, said);
  }
  assert.equal(
    call("p.jobs", [], { state: ["queued", "held"], kind: undefined, owner: "", model: "tiny", n: 0, so: true }),
    'p.jobs(state=["queued", "held"], model="tiny", n=0, so=True)',
  );
  assert.equal(call("p.model", ['a"b', undefined, 3]), 'p.model("a\\"b", 3)');
});

test("the audit log's filters are copied, and what the command line cannot ask is not", async () => {
  const { audited } = await load("src/copied.ts");
  const of = (query) => audited((name) => query[name] ?? "");
  assert.deepEqual(of({}), { command: "palimpsest audit list", python: "p.audit.verify()" });
  assert.deepEqual(of({ principal: "ada", action: "-refs", resource: "models/$(id)", outcome: "refused" }), {
    command: "palimpsest audit list --principal ada --action=-refs --resource 'models/$(id)' --refused",
    python: 'p.audit.entries(principal="ada", action="-refs", resource="models/$(id)", outcome="refused")',
  });
  assert.equal(of({ outcome: "ok" }).command, undefined);
  assert.equal(of({ outcome: "ok" }).python, 'p.audit.entries(outcome="ok")');
  assert.equal(of({ outcome: "constructor", from: "x" }).command, "palimpsest audit list");
  const days = of({ from: "2026-01-31", until: "2026-01-31" });
  const [from, until] = [new Date(2026, 0, 31), new Date(2026, 1, 1)].map((it) => it.toISOString().slice(0, 19));
  assert.equal(days.command, `palimpsest audit list --from ${from}Z --until ${until}Z`);
  assert.ok(days.python.startsWith("from datetime import datetime\n\n"));
  assert.ok(days.python.includes(`start=datetime.fromisoformat("${from}+00:00")`), days.python);
});

test("no line is copied but by the helper that quotes", () => {
  const files = readdirSync(join(root, "src"), { recursive: true }).filter((name) => /\.tsx?$/.test(name));
  for (const file of files) {
    if (/copied\.ts$|Sweep\.tsx$/.test(file)) continue;
    const source = readFileSync(join(root, "src", file), "utf8");
    assert.doesNotMatch(source, /`palimpsest [a-z][^`]*\$\{|`[^`]*\bp\.[a-z_]+\("?\$\{/, file);
  }
});

test("a subject that stands several times in a prompt is the one that was marked", async () => {
  const { fact, placed, startOf, template } = await load("src/subject.ts");
  const [prompt, subject] = ["Zürich 😀 Paris Hilton was born near Paris and", "Paris"];
  const second = prompt.lastIndexOf(subject);
  assert.equal(placed(prompt, subject, second), second);
  assert.equal(placed(prompt, subject, 0), 10);
  for (const at of [3, -4, NaN, 1e9]) assert.equal(placed(prompt, subject, at), 10);
  assert.equal(placed(prompt, "Rome", 10), -1);
  assert.equal(placed(prompt, "", 0), -1);
  assert.equal(template({ prompt, subject, at: second }), "Zürich 😀 Paris Hilton was born near {} and");
  assert.equal(template({ prompt, subject, at: -1 }), "");
  assert.equal(fact({ prompt, subject, at: 10 }).subjectStart, undefined);
  assert.equal(fact({ prompt, subject: "", at: -1 }).subjectStart, undefined);
  // In bytes, of which ü has two and the face four.
  const told = fact({ prompt, subject, at: second });
  assert.equal(told.subjectStart, Buffer.from(prompt).lastIndexOf(subject));
  assert.equal(startOf(told), second);
  assert.equal(startOf({ prompt }), undefined);
});

test("no source makes markup of a text, or code of one", () => {
  const files = readdirSync(join(root, "src"), { recursive: true }).filter((name) => /\.tsx?$/.test(name));
  assert.ok(files.length > 30);
  for (const file of files) {
    const source = readFileSync(join(root, "src", file), "utf8");
    assert.doesNotMatch(
      source,
      /dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function/,
      file,
    );
  }
});

test("versions of a tree stand in the columns of the command line's graph", async () => {
  const { leads } = await load("src/parts/graph.tsx");
  const of = (nodes) => leads(nodes.map(([id, parent]) => ({ id, parent })));
  assert.deepEqual(
    of([
      ["2", "1"],
      ["1", "0"],
      ["0", undefined],
    ]).map((lead) => lead.at),
    [0, 0, 0],
  );
  const found = of([
    ["5", "3"],
    ["4", "1"],
    ["3", "1"],
    ["2", "1"],
    ["1", "0"],
    ["0", undefined],
  ]);
  assert.deepEqual(
    found.map((lead) => lead.at),
    [0, 1, 0, 2, 0, 0],
  );
  assert.deepEqual(found[4].joined, [1, 2]);
});

test("guides are one page: links lead to places on it, files are named, texts stay texts", async () => {
  const { guidesOf, page, reasons } = await import(pathToFileURL(join(root, "help.mjs")).href);
  const made = mkdtempSync(join(folder, "guides-"));
  const write = (name, text) => writeFileSync(join(made, name), text);
  write(
    "one.md",
    "# One\n\nSee [two](two.md), [its part](two.md#a-part), [here](#mine), [this](../../README.md), [that](deploy.sh).\n\n## Mine\n\n<img src=x onerror=alert(1)> ![a picture](x.png)\n",
  );
  write(
    "two.md",
    "# Two\n\n## A part\n\n[elsewhere](https://example.org) [no](javascript:alert(1))\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
  );
  write(
    "when-it-fails.md",
    "# When it fails\n\n## The words\n\n- `ETAG_MISMATCH`: moved.\n- `not_one`: no.\n\n## `NOT_FOUND`\n\nNothing.\n\n### DISK_FULL\n\nFull.\n",
  );
  write("mod.rs", "//! No guide.\n");
  const guides = guidesOf(made);
  assert.deepEqual(
    guides.map(({ name }) => name),
    ["when-it-fails", "one", "two"],
  );
  assert.deepEqual(reasons(guides), ["DISK_FULL", "ETAG_MISMATCH", "NOT_FOUND"]);
  const html = page("<!-- contents -->|<!-- guides -->", "# Help\n\n## Pages\n", guides, "## Whose code this is\n");
  for (const part of [
    '<h1 id="console">Help</h1>',
    '<h2 id="one">One</h2>',
    '<h3 id="two--a-part">A part</h3>',
    '<a href="#two">two</a>, <a href="#two--a-part">its part</a>, <a href="#one--mine">here</a>, this (<code>README.md</code>), that (<code>src/guide/deploy.sh</code>)',
    "&lt;img src=x onerror=alert(1)&gt; a picture",
    '<a href="https://example.org">elsewhere</a>',
    '<li id="ETAG_MISMATCH">',
    '<h3 id="NOT_FOUND">',
    '<h4 id="DISK_FULL">',
    'role="region" aria-label="Table 1"',
  ])
    assert.ok(html.includes(part), `${part} in ${html}`);
  assert.doesNotMatch(html, /<img|javascript:alert[^<]*<\/a>/);
  assert.equal(html.match(/<h1/g).length, 1);
  // Those of the repository, too: a link that leads nowhere is found here.
  const ours = page(
    "<!-- contents --><!-- guides -->",
    readFileSync(join(root, "src/help.md"), "utf8"),
    guidesOf(join(root, "../../guide")),
    "",
  );
  for (const it of [html, ours]) {
    const ids = [...it.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id);
    assert.equal(new Set(ids).size, ids.length);
    for (const [, to] of it.matchAll(/ href="#([^"]*)"/g)) assert.ok(ids.includes(to), `#${to} is there`);
  }
  assert.deepEqual(guidesOf(join(made, "none")), []);
});

test("no module leads back to itself", () => {
  const sources = ["src", "src/parts", "src/pages"].flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((name) => /\.tsx?$/.test(name))
      .map((name) => join(root, folder, name)),
  );
  const bare = (path) => path.replace(/\.tsx?$/, "");
  const leads = new Map(
    sources.map((path) => {
      const named = [...readFileSync(path, "utf8").matchAll(/from "(\.[^"]*)"/g)];
      return [bare(path), named.map((it) => join(dirname(path), it[1]))];
    }),
  );
  assert.ok(leads.size > 40);
  for (const start of leads.keys()) {
    const seen = new Set();
    const next = [...(leads.get(start) ?? [])];
    while (next.length) {
      const at = next.pop();
      assert.notEqual(at, start);
      if (!seen.has(at)) next.push(...(leads.get(at) ?? []));
      seen.add(at);
    }
  }
});
