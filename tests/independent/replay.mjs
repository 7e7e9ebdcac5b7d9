// node tests/independent/replay.mjs [folder...]: replays the vectors of tests/vectors with this second implementation.
import { readFileSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Invalid, cat, hex, same, text, treeRoot, unhex } from "./bytes.mjs";
import { checkConsistency, inclusionRoot, openCheckpoint } from "./log.mjs";
import { cs1, holdsFrame, px1, raw1 } from "./px1.mjs";
import { statementOf } from "./custody.mjs";
import { manifestOf } from "./manifest.mjs";
import { ITEMS, derivedKey, encoded, findKey, imageKey, itemLeaf, recordId, saltOf } from "./records.mjs";
import * as trie from "./trie.mjs";
import { verify } from "./verify.mjs";

const VECTORS = join(dirname(fileURLToPath(import.meta.url)), "..", "vectors");
const hashOf = (c) => /-(sha256|blake3):/.exec(c.expect)?.[1];
const path = (c) => c.path.map(unhex);
const ok = (holds, step) => {
  if (!holds) throw new Invalid(step, "it leads elsewhere");
  return "ok";
};

/** Hex digits without 0x and leading zeros, and integers, in one notation. */
const plain = (v) => (typeof v === "number" ? BigInt(v).toString(16) : v.replace(/^0x/, "")).replace(/^0+(?=.)/, "");
/** A value with bytes for each `0x...` in it. */
const unhexed = (v) => (Array.isArray(v) ? v.map(unhexed) : v && typeof v === "object" ? Object.fromEntries(Object.entries(v).map(([name, one]) =>
  [name, unhexed(one)])) : /^0x/.test(v) ? unhex(v.slice(2)) : v);
const shown = (values) => Object.fromEntries(Object.entries(values).map(([name, v]) => [name, plain(typeof v === "bigint" ? v.toString(16) : hex(v))]));

/** A proof by itself: every node once, and each needed. */
function alone(nodes, read) {
  const index = trie.index(nodes.map(unhex)), found = read(index);
  if (index.size !== nodes.length || index.used.size !== nodes.length) throw new Invalid("state proof", "nodes that prove nothing");
  return found;
}

const headerOf = (bytes) => {
  const { hash, number, time, stateRoot } = trie.header(bytes);
  return shown({ hash, number, timestamp: time, state_root: stateRoot, rlp: bytes });
};

/** What each kind of state proof reads. */
const PROOFS = {
  header: (c) => headerOf(trie.headerRlp(c.block)),
  "header rlp": (c) => headerOf(unhex(c.rlp)),
  account: (c) => {
    const found = alone(c.nodes, (index) => trie.account(index, unhex(c.state_root), unhex(c.address)));
    return found ? shown({ nonce: found.nonce, balance: found.balance, storage_root: found.storageRoot, code_hash: found.codeHash }) : { nonce: "0", balance: "0" };
  },
  storage: (c) => shown({ value: alone(c.nodes, (index) => trie.storageWord(index, unhex(c.storage_root), unhex(c.slot))) }),
};

/** What each kind of vector, <folder>/<file>, gives; compared with `expect`. An `Invalid` gives its step. */
const KINDS = {
  "pixels/px1": (c) => px1(c, unhex(c.pixel_data), hashOf(c)),
  "pixels/cs1": (c) => cs1(c, hashOf(c)),
  "pixels/raw1": (c) => raw1(c, hashOf(c)),
  "pixels/frames": (c) => {
    let holds = false;
    try { holds = holdsFrame(c, unhex(c.values), path(c)); } catch { /* a path of another length */ }
    return ok(holds, "frame");
  },
  "log/inclusion": (c) =>
    ok(same(inclusionRoot(unhex(c.leaf), BigInt(c.index), BigInt(c.size), path(c)), unhex(c.root)), "inclusion"),
  "log/consistency": (c) => {
    checkConsistency(BigInt(c.old_size), unhex(c.old_root), BigInt(c.new_size), unhex(c.new_root), path(c));
    return "ok";
  },
  "log/checkpoint": (c) => {
    const { size, root } = openCheckpoint(c.note, c.origin, unhex(c.public_key));
    return ok(c.size === undefined || (size === BigInt(c.size) && same(root, unhex(c.root))), "checkpoint");
  },
  "records/records": (c) => {
    const record = unhexed(c.record);
    const words = `0x${hex(encoded(record))}`, id = `0x${hex(recordId(record, c.chain_id, unhex(c.verifying_contract.slice(2))))}`;
    return words === c.encoded && id === c.record_id ? "valid" : `${words} ${id}`;
  },
  "records/content": (c) => {
    const secret = unhex(c.study_secret.slice(2)), { values } = c, names = [values.PixelData, values.SOPInstanceUID];
    const key = c.parent ? derivedKey(secret, unhex(c.parent.slice(2)), values) : imageKey(secret, ...names);
    const kept = c.parent ? ITEMS.filter((item) => !c.changed.includes(item)) : [], parentKey = c.parent && Buffer.from(c.parent_image_key, "base64url");
    const salt = (item) => saltOf(kept.includes(item) ? parentKey : key, item);
    const leaves = ITEMS.map((item) => itemLeaf(salt(item), item, values[item] ?? null));
    const found = [key, findKey(secret), cat(...leaves), cat(...kept.map(salt))].map((bytes) => Buffer.from(bytes).toString("base64url"));
    const holds = same(treeRoot(leaves), unhex(c.root.slice(2))) && found.join() === [c.image_key, c.find_key, c.leaves, c.kept ?? ""].join();
    return holds ? "valid" : found.join();
  },
  "records/statements": (c) => {
    const { changed, allowed } = statementOf({ ...c, parents: c.parents.map((id) => unhex(id.slice(2))) });
    return JSON.stringify({ changed: changed.join(" "), allowed: ITEMS.filter((item) => allowed.includes(item)).join(" ") });
  },
  manifests: (c) => JSON.stringify(manifestOf(c.manifest_hex === undefined ? text(c.manifest) : unhex(c.manifest_hex))),
  stateproof: (c) => {
    const found = PROOFS[c.kind](c);
    return ok(Object.entries(found).every(([name, v]) => c[name] === undefined || v === plain(c[name])), "state proof");
  },
  bundles: (c, cases) => {
    // {"of": a case's name}: what that case has.
    const [trustToml, bundleJson] = ["trust", "bundle"].map((part) => cases.find(({ name }) => name === c[part].of)?.[part] ?? c[part]);
    const found = verify({ subject: c.subject, trustToml, bundleJson, facts: c.facts });
    return JSON.stringify(Object.fromEntries(Object.keys(c.expect).map((name) => [name, found[name]])));
  },
};

let passed = 0, failed = 0;
const folders = process.argv.length > 2 ? process.argv.slice(2) : readdirSync(VECTORS, { withFileTypes: true })
  .filter((entry) => entry.isDirectory()).map((entry) => join(VECTORS, entry.name));
for (const folder of folders)
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".json")).sort()) {
    const kind = `${basename(folder)}/${basename(file, ".json")}`, give = KINDS[kind] ?? KINDS[basename(folder)];
    const before = failed, cases = [JSON.parse(readFileSync(join(folder, file), "utf8"))].flat();
    for (const c of cases) {
      let given;
      try { given = (give ?? (() => "a kind that nobody replays"))(c, cases); } catch (error) { given = error instanceof Invalid ? error.step : `${error.stack}`.slice(0, 300); }
      const expected = typeof c.expect === "string" ? c.expect : JSON.stringify(c.expect);
      if (given === expected) passed++;
      else { failed++; console.log(`${kind}: ${c.name}: ${given}, not ${expected}`); }
    }
    console.log(`${kind}: ${cases.length} replayed, ${failed - before} failed`);
  }
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed || !passed ? 1 : 0;
