// Builds the console: `node build.mjs OUTDIR`, in this folder, after `npm ci --ignore-scripts`.
//
// Writes exactly index.html, main.js, main.css, icon.svg and help.html into OUTDIR. The same sources give
// the same bytes: nothing of the machine, the day or the folder goes into them. What decides them besides
// this folder: ../../python/palimpsest/contract.bin, the contract's descriptors, and ../../guide/*.md.
//
// `node build.mjs --contract` writes the contract's types alone, for an editor.

import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { create, createFileRegistry, fromBinary, ScalarType, toBinary } from "@bufbuild/protobuf";
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { build } from "esbuild";

import { guidesOf, page, reasons } from "./help.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const at = (...parts) => join(here, ...parts);
const guides = guidesOf(at("../../guide"));
/** The packages that a browser runs. */
const RUNS = ["preact", "@preact/signals", "@preact/signals-core"];
/** Most bytes of what a browser runs, gzipped. */
const MOST = 90 * 1024;

/** Runs a program and stops where it fails. */
function run(program, args, input) {
  const done = spawnSync(process.execPath, [program, ...args], { cwd: here, input, maxBuffer: 1 << 26 });
  if (done.status !== 0) {
    process.stderr.write(done.stdout);
    process.stderr.write(done.stderr);
    throw new Error(`${program} failed`);
  }
  return done.stdout;
}

/**
 * Writes contract/palimpsest/v1/*_pb.ts from the descriptors that the Python package ships, which a test of
 * the program holds against proto/. So neither protoc nor a network is needed.
 */
function contract() {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(at("../../python/palimpsest/contract.bin")));
  const ours = set.file.map((file) => file.name).filter((name) => !name.startsWith("google/protobuf/"));
  const request = create(CodeGeneratorRequestSchema, {
    fileToGenerate: ours,
    parameter: "target=ts",
    protoFile: set.file,
  });
  const answer = fromBinary(
    CodeGeneratorResponseSchema,
    run(
      at("node_modules/@bufbuild/protoc-gen-es/bin/protoc-gen-es"),
      [],
      toBinary(CodeGeneratorRequestSchema, request),
    ),
  );
  if (answer.error) throw new Error(answer.error);
  rmSync(at("contract"), { recursive: true, force: true });
  for (const file of answer.file) {
    mkdirSync(dirname(at("contract", file.name)), { recursive: true });
    writeFileSync(at("contract", file.name), file.content);
  }
  writeFileSync(at("contract/table.ts"), table(createFileRegistry(set)));
  writeFileSync(
    at("contract/explained.ts"),
    `/** The reasons of errors that the page of help has a paragraph on. */\nexport const EXPLAINED: readonly string[] = ${JSON.stringify(reasons(guides), null, 1)};\n`,
  );
}

/** Services of the console. Objects and the store are other programs' business. */
const SERVICES = [
  "AuditService",
  "JobService",
  "ModelService",
  "StatisticsService",
  "StatusService",
  "VersionService",
  "WorkerService",
];
/** Methods that a browser cannot call, or that are workers' own. */
const NOT_HERE = ["Connect", "ReadResults"];
const DETAILS = ["google.rpc.BadRequest", "google.rpc.ErrorInfo"];
const SCALARS = {
  [ScalarType.STRING]: "s",
  [ScalarType.BYTES]: "y",
  [ScalarType.BOOL]: "b",
  [ScalarType.DOUBLE]: "d",
  [ScalarType.UINT32]: "u",
  [ScalarType.INT32]: "i",
  [ScalarType.UINT64]: "U",
  [ScalarType.INT64]: "I",
};

/** What src/wire.ts and src/transport.ts read: every message that a method of the console needs, a line each. */
function table(registry) {
  const services = {};
  const messages = { MapEntry: "key:1:s value:2:s" };
  const names = new Map();
  /** `Job.State` as `Job_State`; of google.rpc's Status, whose name ours has, `Status_`. */
  const named = (message) => {
    const name =
      message.typeName === "google.rpc.Status"
        ? "Status_"
        : message.typeName.replace(/^(palimpsest\.v1|google\.rpc|google\.protobuf)\./, "").replaceAll(".", "_");
    if (name.length < 2 || (names.get(name) ?? message.typeName) !== message.typeName)
      throw new Error(`two messages are called ${name}`);
    names.set(name, message.typeName);
    return name;
  };
  const add = (message) => {
    const name = named(message);
    if (messages[name] !== undefined) return name;
    messages[name] = "";
    messages[name] = message.fields
      .map(
        (field) => `${field.oneof ? `${field.oneof.localName}.` : ""}${field.localName}:${field.number}:${type(field)}`,
      )
      .join(" ");
    return name;
  };
  const type = (field) => {
    if (field.fieldKind === "map") {
      if (field.mapKey !== ScalarType.STRING || field.scalar !== ScalarType.STRING)
        throw new Error(`${field} is no map of strings`);
      return "M";
    }
    const scalar = field.scalar && SCALARS[field.scalar];
    const one = field.message ? add(field.message) : field.enum ? "i" : scalar;
    if (!one) throw new Error(`${field} has a type that src/wire.ts does not know`);
    return (
      one + (field.fieldKind === "list" ? "*" : !field.oneof && !field.message && field.proto.proto3Optional ? "?" : "")
    );
  };
  for (const service of SERVICES) {
    const methods = registry
      .getService(`palimpsest.v1.${service}`)
      .methods.filter((method) => !NOT_HERE.includes(method.name));
    services[service] = methods
      .map((method) => {
        if (add(method.input) !== `${method.name}Request` || add(method.output) !== `${method.name}Response`)
          throw new Error(`${method} has other messages than its name says`);
        return method.name + (method.methodKind === "server_streaming" ? "*" : "");
      })
      .join(" ");
  }
  for (const name of [...DETAILS, "google.rpc.Status"]) add(registry.getMessage(name));
  const object = (it) => JSON.stringify(it, null, 1);
  return `export const SERVICES: Record<string, string> = ${object(services)};\n\nexport const MESSAGES: Record<string, string> = ${object(messages)};\n`;
}

/** Whose code is in main.js besides this folder's, and on what terms. */
function licences() {
  const parts = RUNS.map((name) => {
    const { version, license } = JSON.parse(readFileSync(at("node_modules", name, "package.json"), "utf8"));
    const text = readFileSync(at("node_modules", name, "LICENSE"), "utf8").trim();
    return `${name} ${version} (${license}):\n\n\`\`\`\n${text}\n\`\`\``;
  });
  return `## Whose code this is\n\nThe console is part of Palimpsest, MIT or Apache-2.0 at your choice. Its pages also have code of others in them:\n\n${parts.join("\n\n")}\n`;
}

/** The packages whose code a bundle has. */
function packagesOf({ outputs }) {
  const inputs = Object.values(outputs).flatMap((output) => Object.entries(output.inputs));
  const names = inputs
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .map(([path]) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]);
  return [...new Set(names.filter(Boolean))];
}

async function bundle(out) {
  run(at("node_modules/typescript/bin/tsc"), ["-p", "."]);
  mkdirSync(out, { recursive: true });
  const built = await build({
    absWorkingDir: here,
    entryPoints: { main: "src/main.tsx" },
    metafile: true,
    outdir: out,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    jsx: "automatic",
    jsxImportSource: "preact",
    charset: "utf8",
    legalComments: "eof",
    logLevel: "warning",
  });
  await build({
    absWorkingDir: here,
    entryPoints: { main: "src/main.css" },
    outdir: out,
    minify: true,
    target: "es2022",
    logLevel: "warning",
  });
  copyFileSync(at("src/index.html"), join(out, "index.html"));
  copyFileSync(at("src/icon.svg"), join(out, "icon.svg"));
  const [frame, own] = ["src/help.html", "src/help.md"].map((name) => readFileSync(at(name), "utf8"));
  writeFileSync(join(out, "help.html"), page(frame, own, guides, licences()));
  const sizes = ["main.js", "main.css"].map((name) => gzipSync(readFileSync(join(out, name)), { level: 9 }).length);
  const strange = packagesOf(built.metafile).filter((name) => !RUNS.includes(name));
  if (strange.length > 0)
    throw new Error(`main.js has code of ${strange.join(", ")}: name them in RUNS, with their licences`);
  const size = sizes.reduce((sum, part) => sum + part, 0);
  console.log(`console: main.js ${sizes[0]} and main.css ${sizes[1]} bytes gzipped`);
  if (size > MOST) throw new Error(`what the browser runs takes ${size} bytes gzipped, over ${MOST}`);
}

const [target] = process.argv.slice(2);
if (!target) {
  console.error("usage: node build.mjs OUTDIR, or --contract");
  process.exit(2);
}
contract();
if (target !== "--contract") await bundle(resolve(target));
