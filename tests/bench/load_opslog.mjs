// load_opslog.mjs - the same work on @backloghq/opslog.
//
//     append  dir= count=            new documents of a line's content, one after another
//     batch   dir= count= batch=     the same in batches
//     set     dir= keys= count=      values of that many documents, with its default settings
//     open    dir=                   opens a store; its own memory then
//
// In append and batch no checkpoint of its own comes in between; in set they come as they do by default.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [mode, ...rest] = process.argv.slice(2);
const given = Object.fromEntries(rest.map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)]));
const require = createRequire(pathToFileURL(`${given.modules}/`));
const { Store } = await import(pathToFileURL(require.resolve("@backloghq/opslog")).href);

const count = Number(given.count ?? 0);
const rare = { checkpointThreshold: 1e12, checkpointOnClose: false };
const text = "the tool has read a file and made of it what was asked so that the next step can begin ".repeat(3);
const line = (n) => ({ kind: "ToolCall", tool: "bash", tokens_in: n % 10000, payload: { n, text: text.slice(0, 118) } });
const value = (n) => ({ n, text: text.slice(0, 80) });

function tell(operations, began, more) {
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  console.log(JSON.stringify({ operations, bytes: operations * 200, seconds, ...more }));
}

function ownMemory() {
  const fields = readFileSync("/proc/self/status", "utf8");
  const kib = (name) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(fields)[1]);
  return (kib("RssAnon") + kib("RssShmem")) * 1024;
}

const store = new Store();
let began;
if (mode === "open") {
  began = process.hrtime.bigint();
  await store.open(given.dir, rare);
  tell(store.count(), began, { memory: ownMemory() });
} else if (mode === "append") {
  await store.open(given.dir, rare);
  began = process.hrtime.bigint();
  for (let n = 0; n < count; n++) await store.set(`record-${n}`, line(n));
  tell(count, began);
} else if (mode === "batch") {
  const batch = Number(given.batch);
  await store.open(given.dir, rare);
  began = process.hrtime.bigint();
  for (let n = 0; n < count; ) {
    await store.batch(() => {
      for (let i = 0; i < batch && n < count; i++, n++) store.set(`record-${n}`, line(n));
    });
  }
  tell(count, began);
} else if (mode === "set") {
  const keys = Number(given.keys);
  await store.open(given.dir);
  await store.batch(() => {
    for (let n = 0; n < keys; n++) store.set(`key-${n}`, value(n));
  });
  began = process.hrtime.bigint();
  for (let n = 0; n < count; n++) await store.set(`key-${n % keys}`, value(n));
  tell(count, began);
} else {
  console.error("usage: load_opslog.mjs append|batch|set|open modules=DIR dir=DIR name=value…");
  process.exit(1);
}
await store.close();
