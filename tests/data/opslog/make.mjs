// make.mjs DIR [random SEED COUNT]: makes stores with the real @backloghq/opslog, and what it reads from them.
//
// For each store DIR/NAME/store, and DIR/NAME/expected.json: the documents, archives and operations that the package
// itself gives when it opens a copy of the store. Run it where `npm install @backloghq/opslog@0.8.1` was run. The
// clock is ours, so that the same stores come out each time.
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, unlinkSync, writeFileSync, appendFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.cwd(), "here.js"));
const { Store, FsBackend } = await import(pathToFileURL(require.resolve("@backloghq/opslog")).href);

const RealDate = Date;
let now = RealDate.UTC(2025, 2, 1, 9, 0, 0);
let step = 1;
globalThis.Date = class extends RealDate {
  constructor(...given) {
    if (given.length) super(...given);
    else super((now += step));
  }
  static now() {
    return (now += step);
  }
};
const later = (seconds) => (now += seconds * 1000);

const [root, mode, seed, count] = process.argv.slice(2);

// The package as a reader. Of several agents only a reader with an agent's name merges; it is given a copy, because
// it would add a file of its own.
async function read(directory, agentId) {
  const copy = `${directory}.copy`;
  rmSync(copy, { recursive: true, force: true });
  cpSync(directory, copy, { recursive: true });
  rmSync(join(copy, ".lock"), { force: true });
  const store = new Store();
  await store.open(copy, { readOnly: true, agentId });
  // A document that was set to undefined is null in JSON, and JSON is what its file says.
  const plain = (entries) => entries.map(([id, value]) => [id, value === undefined ? null : value]);
  const archives = {};
  for (const path of store.listArchiveSegments()) {
    const name = path.slice("archive/archive-".length, -".json".length);
    archives[name] = plain([...(await store.loadArchive(name))]);
  }
  const expected = { documents: plain(store.entries()), archives, operations: store.getOps() };
  rmSync(copy, { recursive: true, force: true });
  return expected;
}

async function make(name, work, agentId) {
  const directory = join(root, name, "store");
  rmSync(join(root, name), { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  step = 1;
  await work(directory);
  rmSync(join(directory, ".lock"), { force: true });
  const expected = await read(directory, agentId);
  writeFileSync(join(root, name, "expected.json"), JSON.stringify(expected) + "\n");
}

const open = async (directory, options = {}) => {
  const store = new Store();
  await store.open(directory, { checkpointOnClose: false, ...options });
  return store;
};
const newest = (directory, part) =>
  join(directory, part, readdirSync(join(directory, part)).sort((a, b) => a.match(/\d+\.json/)[0] < b.match(/\d+\.json/)[0] ? -1 : 1).at(-1));

// As it was written before snapshots had a line for each record.
class OldBackend extends FsBackend {
  constructor(indent) {
    super();
    this.indent = indent;
  }
  async writeSnapshot(records, version) {
    const name = `snapshots/snap-${Date.now()}.json`;
    const snapshot = { version, timestamp: new Date().toISOString(), records: Object.fromEntries(records) };
    writeFileSync(join(this.dir, name), JSON.stringify(snapshot, null, this.indent));
    return name;
  }
}

const stores = {
  // Operations of every sort on one empty snapshot.
  async single(directory) {
    const store = await open(directory);
    await store.set("player-1", { name: "Ada", level: 1, bag: ["rope", "lamp"], note: "a long note that stays as it is" });
    await store.set("player-1", { name: "Ada", level: 2, bag: ["rope", "lamp"], note: "a long note that stays as it is" }); // delta
    await store.set("player-1", { n: 1 }); // full prev
    await store.set("player-1", { n: 1 }); // no change
    await store.set("undone", { n: 1 });
    await store.undo();
    await store.set("with/slash % and ü 日本語 \u{1f600}", { text: "line\nbreak \"quoted\" \\ \u2028", empty: {}, list: [] });
    await store.set("gone", { n: 1 });
    await store.delete("gone");
    await store.set("back", { n: 1 });
    await store.delete("back");
    await store.set("back", { n: 2 });
    await store.batch(() => {
      store.set("batch-1", { n: 1 });
      store.set("batch-2", { n: 2 });
      store.delete("batch-1");
    });
    await store.set("numbers", { big: 12345678901234567000, small: 1e-7, huge: 1e300, negative: -0.5, zero: 0, yes: true, no: null });
    await store.close();
  },

  // The package's undo counts characters where it should count bytes: the operation before the one that is taken back
  // loses its end if letters beyond ASCII stand before it, and the next one is written behind what is left.
  async undone(directory) {
    const store = await open(directory);
    await store.set("a", { n: 1 });
    await store.delete("a");
    await store.undo();
    await store.set("b", { text: "für" });
    await store.set("c", { n: 1 });
    await store.undo();
    await store.set("d", { n: 1 });
    await store.set("e", { n: 1 });
    await store.close();
  },

  // Several checkpoints: old snapshots and old operations stay.
  async generations(directory) {
    for (let round = 0; round < 3; round++) {
      later(3600);
      const store = await open(directory, { checkpointThreshold: 4, checkpointOnClose: round === 1 });
      for (let i = 0; i < 6; i++) await store.set(`key-${i % 4}`, { round, i });
      if (round > 0) await store.delete("key-0");
      await store.close();
    }
  },

  async archived(directory) {
    const store = await open(directory);
    for (let i = 0; i < 8; i++) await store.set(`task-${i}`, { n: i, done: i < 5 });
    later(60);
    await store.archive((value) => value.n === 0); // the quarter's own name
    await store.archive((value) => value.n === 1 || value.n === 2, "first");
    await store.set("task-1", { n: 1, again: true }); // lives again beside its archived self
    await store.set("task-2", { n: 2, changed: true });
    await store.archive((value) => value.changed, "first"); // replaces the archived one
    await store.set("task-9", { n: 9 });
    await store.archive((value) => value.n === 9, "second");
    await store.set("task-9", { n: 9 });
    await store.archive((value) => value.n === 9, "third"); // the same value in two segments
    await store.set("task-3", { n: 3, last: true });
    await store.close();
  },

  // The past was tidied away: only what counts is left.
  async tidied(directory) {
    await stores.archived(directory);
    const manifest = JSON.parse(readFileSync(join(directory, "manifest.json")));
    for (const part of ["snapshots", "ops"]) {
      for (const name of readdirSync(join(directory, part))) {
        const path = `${part}/${name}`;
        if (path !== manifest.currentSnapshot && path !== manifest.activeOps) unlinkSync(join(directory, path));
      }
    }
  },

  async agents(directory) {
    const a = await open(directory, { agentId: "agent-a" });
    await a.set("shared", { by: "a", n: 1 });
    const b = await open(directory, { agentId: "Agent-B" });
    const c = await open(directory, { agentId: "agent_c" });
    // None sees the others' operations from here on: clocks tie.
    for (let i = 0; i < 4; i++) {
      await c.set("shared", { by: "c", i });
      await a.set("shared", { by: "a", i });
      await b.set("shared", { by: "b", i });
      await a.set(`a-${i}`, { i });
      if (i % 2) await b.set(`a-${i}`, { by: "b", i });
    }
    await b.refresh();
    await b.set("late", { n: 1 });
    await b.delete("a-0");
    await a.set("undone", { n: 1 });
    await a.undo();
    for (const store of [a, b, c]) await store.close();
  },

  // Names of agents that differ in their case, in accents, and in what is no letter.
  async names(directory) {
    const names = ["Bot", "bot", "bót", "bot 1", "bot-1", "bot_1", "bot1", "BOT.1", "10", "9"];
    const agents = [];
    for (const agentId of names) agents.push(await open(directory, { agentId }));
    for (let round = 0; round < names.length; round++) {
      // In each round another one is left out, so that each order of two neighbours shows.
      for (const [at, store] of agents.entries()) await store.set(at < round ? `own-${at}` : `round-${round}`, { by: names[at], round });
    }
    for (let first = 0; first < names.length; first++) {
      for (let second = 0; second < names.length; second++) {
        const [a, b] = [agents[first], agents[second]];
        if (first !== second) await Promise.all([a.set(`${first}-${second}`, { by: names[first] }), b.set(`${first}-${second}`, { by: names[second] })]);
      }
    }
    for (const store of agents) await store.close();
  },

  // One agent checkpoints while another goes on with a file that no longer counts.
  async orphaned(directory) {
    const a = await open(directory, { agentId: "a" });
    await a.set("x", { by: "a" });
    const b = await open(directory, { agentId: "b" });
    await b.set("y", { by: "b" });
    await a.refresh();
    later(10);
    await a.compact();
    await b.set("lost", { by: "b" });
    await b.set("x", { by: "b", lost: true });
    await a.set("x", { by: "a", n: 2 });
    await b.refresh();
    await b.set("y", { by: "b", n: 2 });
    later(10);
    await a.refresh();
    await a.archive((value) => value.n === 2 && value.by === "b", "agents");
    await a.set("z", { by: "a" });
    await a.close();
    await b.close();
  },

  // Begun by a single writer, gone on with by agents that never read its operations again.
  async mixed(directory) {
    const single = await open(directory);
    await single.set("first", { n: 1 });
    await single.set("shared", { n: 1 });
    await single.close();
    const a = await open(directory, { agentId: "a" });
    await a.set("shared", { n: 2 });
    await a.close();
  },

  async pretty(directory) {
    const backend = new OldBackend(2);
    const store = await open(directory, { backend });
    for (let i = 0; i < 5; i++) await store.set(`old-${i}`, { i, text: "two  blanks, \"quotes\"\nand a line\u2028", deep: { list: [1, [2, {}]] } });
    await store.compact();
    await store.set("old-1", { i: 10 });
    await store.delete("old-2");
    await store.close();
  },

  async oneline(directory) {
    const store = await open(directory, { backend: new OldBackend(0) });
    for (let i = 0; i < 5; i++) await store.set(`old-${i}`, { i });
    await store.compact();
    await store.close();
  },

  async migrated(directory) {
    let store = await open(directory);
    await store.set("a", { n: 1 });
    await store.set("b", { n: 2 });
    await store.compact();
    await store.close();
    later(100);
    store = await open(directory, { version: 2, migrate: (record) => ({ ...record, migrated: true }) });
    await store.set("c", { n: 3 });
    await store.compact();
    await store.close();
  },

  async torn(directory) {
    const store = await open(directory);
    await store.set("a", { n: 1 });
    await store.set("b", [1, 2, 3]);
    await store.set("b", ["its prev is a list, and opslog will not read that"]);
    await store.close();
    const ops = newest(directory, "ops");
    appendFileSync(ops, 'this is no JSON\n\n   \n{"op":"set","id":"no time","data":{},"prev":null}\r\n');
    appendFileSync(ops, '{"ts":"2025-03-01T10:00:00.000Z","op":"set","id":"crlf","prev":null,"data":{"n":1}}\r\n');
    appendFileSync(ops, Buffer.concat([Buffer.from('{"ts":"2025-03-01T10:00:00.000Z","op":"set","id":"latin","prev":null,"data":{"n":"'), Buffer.from([0xe9]), Buffer.from('"}}\n')]));
    appendFileSync(ops, '{"ts":"2025-03-01T10:00:01.000Z","op":"set","id":"torn","prev":nu');
  },

  // A checkpoint that ended between the snapshot and the manifest; operations went on with the old ones.
  async crashed(directory) {
    class Crashing extends FsBackend {
      async writeManifest(manifest) {
        if (this.crash) throw new Error("crash");
        return super.writeManifest(manifest);
      }
    }
    const backend = new Crashing();
    let store = await open(directory, { backend });
    await store.set("a", { n: 1 });
    await store.set("b", { n: 1 });
    backend.crash = true;
    await store.compact().catch(() => {});
    later(10);
    rmSync(join(directory, ".lock"));
    store = await open(directory);
    await store.set("a", { n: 2 });
    await store.delete("b");
    later(10);
    await store.compact();
    await store.set("c", { n: 1 });
    await store.close();
    // And one at the end.
    backend.crash = false;
    store = await open(directory, { backend });
    backend.crash = true;
    await store.archive((value) => value.n === 1, "unlisted").catch(() => {});
    backend.crash = false;
  },

  async group(directory) {
    const store = await open(directory, { writeMode: "group", groupCommitSize: 5, groupCommitMs: 1e6 });
    const all = [];
    for (let i = 0; i < 10; i++) all.push(store.set(`g-${i % 3}`, { i }));
    await Promise.all(all);
    await store.close();
  },

  // All that JSON has, as documents.
  async values(directory) {
    const store = await open(directory);
    const values = { list: [1, "two", null], text: "text", number: 17, yes: true, nothing: null, none: undefined, deep: {} };
    for (let i = 0, at = values.deep; i < 200; i++) at = at[`level ${i}`] = {};
    await store.batch(() => {
      for (const [key, value] of Object.entries(values)) store.set(key, value);
    });
    await store.compact();
    await store.set("list", { now: "an object" });
    await store.close();
  },

  // What hotlogfs cannot hold as it is.
  async unfit(directory) {
    const store = await open(directory);
    const deep = {};
    for (let i = 0, at = deep; i < 600; i++) at = at.in = {};
    await store.set("good", { n: 1 });
    await store.set("long key ".repeat(40), { n: 1 });
    await store.set("nul \0 in a key", { n: 1 });
    await store.set("half \ud83d", { n: 1 });
    await store.set("deep", { n: 1 });
    await store.set("deep", deep);
    await store.set("half", { text: "cut \ud83d here" });
    await store.set("half", { text: "whole \u{1f600}", list: [1] });
    await store.set("half", { text: "cut again \ude00", list: [1] });
    await store.delete("nul \0 in a key");
    await store.compact();
    await store.archive((value, id) => id.startsWith("long"), "long");
    await store.close();
  },

  // A clock that stands still: names collide.
  async still(directory) {
    step = 0;
    const store = await open(directory, { checkpointThreshold: 3 });
    for (let i = 0; i < 7; i++) await store.set(`k-${i % 4}`, { i });
    await store.delete("k-0");
    await store.archive((value) => value.i === 5, "still");
    await store.close();
    step = 1;
  },
};

// Stores that a random walk over the package's own operations makes.
function randomFrom(state) {
  const next = (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * below);
  };
  return { next, pick: (list) => list[next(list.length)] };
}

async function randomStore(directory, random) {
  const agents = random.next(2) ? ["a", "B", "b-2", "_c", "ü"].slice(0, 1 + random.next(5)) : [undefined];
  const keys = ["k1", "k2", "k3", "ключ", "a/b", "%2F", "k4", "k5"];
  let stores = [];
  const reopen = async () => {
    for (const store of stores) await store.close();
    stores = [];
    for (const agentId of agents) {
      const backend = random.next(6) ? new FsBackend() : new OldBackend(random.next(2) * 2);
      const options = { agentId, backend, checkpointThreshold: 3 + random.next(30), checkpointOnClose: random.next(3) === 0 };
      stores.push(await open(directory, options));
    }
  };
  await reopen();
  const steps = 20 + random.next(120);
  for (let at = 0; at < steps; at++) {
    later(random.next(3));
    const store = random.pick(stores);
    const key = random.pick(keys);
    const value = { at, text: "x".repeat(random.next(40)), same: "y".repeat(30) };
    const kind = random.next(40);
    if (kind < 22) await store.set(key, value);
    else if (kind < 27) store.has(key) && (await store.delete(key));
    else if (kind < 30) await store.undo();
    else if (kind < 33) await store.batch(() => { store.set(key, value); store.set("batch", { at }); });
    else if (kind < 35) await store.refresh();
    else if (kind < 36) await store.compact();
    else if (kind < 38) await store.archive((_, id) => id === key || random.next(4) === 0, random.pick(["one", "two", undefined]));
    else if (kind < 39) await reopen();
    else step = random.next(2);
  }
  for (const store of stores) await store.close();
  return agents[0];
}

if (mode === "random") {
  for (let at = 0; at < Number(count); at++) {
    const random = randomFrom((Number(seed) + at * 7919) >>> 0);
    const name = `random-${at}`;
    const directory = join(root, name, "store");
    rmSync(join(root, name), { recursive: true, force: true });
    mkdirSync(directory, { recursive: true });
    step = 1;
    const agentId = await randomStore(directory, random);
    writeFileSync(join(root, name, "expected.json"), JSON.stringify(await read(directory, agentId)) + "\n");
  }
} else {
  const agentOf = { agents: "agent-a", names: "bot", orphaned: "a", mixed: "a" };
  for (const name of Object.keys(stores)) await make(name, stores[name], agentOf[name]);
}
