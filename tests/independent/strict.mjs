// Bundles (FORMAT.md §7) and trust files (§8), read strictly: what is not said there does not pass.
import { X509Certificate } from "node:crypto";
import { parse as parseToml } from "smol-toml";
import { Invalid, unhex } from "./bytes.mjs";
import { HEAD, TYPES, isImage, isIssuedBy, validity } from "./records.mjs";

const MAX_DEPTH = 12;

/** JSON of §7 with BigInt for its numbers (unsigned integers), Map-free plain objects, no repeated member. */
export function strictJson(source, step = "bundle") {
  let at = 0;
  const fail = (message) => { throw new Invalid(step, `${message} at ${at}`); };
  const space = () => { while (" \t\n\r".includes(source[at] || "x")) at++; };
  const take = (token) => {
    if (source[at] !== token) fail(`no ${token}`);
    at++;
  };
  function string() {
    const start = at;
    take('"');
    while (source[at] !== '"') {
      if (source[at] === undefined) fail("a string without end");
      at += source[at] === "\\" ? 2 : 1;
    }
    at++;
    let found;
    try { found = JSON.parse(source.slice(start, at)); } catch { fail("a malformed string"); }
    return /\p{Cs}/u.test(found) ? fail("half a surrogate pair") : found;
  }
  function members(close, read) {
    at++;
    space();
    if (source[at] === close) return void at++;
    for (;;) {
      read();
      space();
      if (source[at] === close) return void at++;
      take(",");
      space();
    }
  }
  function value(depth) {
    if (depth > MAX_DEPTH) fail("too deep");
    space();
    if (source[at] === "{") {
      const found = Object.create(null);
      members("}", () => {
        const name = string();
        if (name in found) fail(`${name} twice`);
        space();
        take(":");
        found[name] = value(depth + 1);
      });
      return found;
    }
    if (source[at] === "[") {
      const found = [];
      members("]", () => found.push(value(depth + 1)));
      return found;
    }
    if (source[at] === '"') return string();
    if (source.startsWith("null", at)) { at += 4; return null; }
    const digits = /(?:0|[1-9][0-9]{0,19})(?![0-9.eE])/y;
    digits.lastIndex = at;
    const number = digits.exec(source)?.[0] ?? fail("no value of a bundle");
    at += number.length;
    return BigInt(number);
  }
  const found = value(1);
  space();
  return at === source.length ? found : fail("more than one value");
}

// A shape takes a value and gives what the verifier uses, or throws.
const wrong = (at, message) => { throw new Invalid("bundle", `${at}: ${message}`); };
const string = (v, at) => (typeof v === "string" ? v : wrong(at, "not a string"));
const uint = (v, at) => (typeof v === "bigint" && v >= 0n && v < 1n << 64n ? v : wrong(at, "not an integer below 2^64"));
const just = (...words) => (v, at) => (words.includes(v) ? v : wrong(at, `not ${words.join(" or ")}`));
const list = (shape) => (v, at) => (Array.isArray(v) ? v.map((one, i) => shape(one, `${at}.${i}`)) : wrong(at, "not a list"));
const maybe = (shape) => Object.assign((v, at) => shape(v, at), { optional: true });
const orNull = (shape) => maybe((v, at) => (v === null ? undefined : shape(v, at)));
const bytes = (size, unit) => (v, at) => {
  const found = new Uint8Array(Buffer.from(string(v, at), "base64url"));
  if (Buffer.from(found).toString("base64url") !== v) wrong(at, "not canonical base64url");
  if ((size && found.length !== size) || (unit && found.length % unit)) wrong(at, `${found.length} bytes`);
  return found;
};
const hexBytes = (size) => (v, at) =>
  (/^0x[0-9a-fA-F]*$/.test(string(v, at)) && v.length === 2 + 2 * size ? unhex(v.slice(2)) : wrong(at, `not 0x and ${2 * size} hex digits`));
const object = (shapes) => (v, at) => {
  if (v === null || typeof v !== "object" || Array.isArray(v)) wrong(at, "not an object");
  for (const name of Object.keys(v)) if (!Object.hasOwn(shapes, name)) wrong(at, `unknown member ${name}`);
  const found = {};
  for (const [name, shape] of Object.entries(shapes)) {
    if (v[name] !== undefined) found[name] = shape(v[name], `${at}.${name}`);
    else if (!shape.optional) wrong(at, `no ${name}`);
  }
  return found;
};

const MEMBERS = { "bytes32": bytes(32), "bytes32[]": list(bytes(32)), "string": string, "uint64": uint };
const members = (type) => Object.fromEntries([...HEAD, ...TYPES[type]].map(([kind, name, member]) => [member ?? name, MEMBERS[kind]]));
const RECORDS = Object.fromEntries(Object.keys(TYPES).map((type) =>
  [type, object(type === "AcquisitionRecord" ? members(type) : { type: just(type), ...members(type) })]));
const record = (v, at) => {
  const type = v?.type === undefined ? "AcquisitionRecord" : v.type;
  return Object.hasOwn(RECORDS, type) ? RECORDS[type](v, at) : wrong(at, "no type of record");
};
const included = orNull(object({ anchor: uint, index: uint, path: bytes() }));
const renewed = orNull(list(object({ renewal: uint, index: uint, path: bytes(), image: orNull(bytes(32)), opening: orNull(bytes(32)) })));

const BUNDLE = object({
  format: just("scanseal-bundle-1"),
  ledger: object({ chain_id: uint, anchor_log: bytes(20), device_registry: bytes(20), origin: string, log_id: bytes(32), log_key: bytes(32) }),
  certificates: list(bytes()),
  studies: list(bytes(32)),
  seals: list(object({
    record, signature: bytes(64), leaves: bytes(), image_key: bytes(16), kept: orNull(bytes()), study: maybe(uint), find: bytes(16),
    decoder: orNull(string), included,
    tiles: orNull(object({ kind: uint, photometric: uint, width: uint, samples_per_pixel: uint, rows: uint, columns: uint,
      frames: uint, palette: bytes(32), hashes: bytes() })),
    renewed,
  })),
  records: maybe(list(object({ record, signature: bytes(64), leaves: orNull(bytes()), included, renewed }))),
  anchors: maybe(list(object({ checkpoint: string, old_size: uint, block_number: uint, block_time: uint,
    beacons: list(object({ number: uint, hash: bytes(32) })), state: uint }))),
  states: maybe(list(object({ header: bytes(), nodes: list(bytes()) }))),
  headers: maybe(list(bytes())),
  renewals: maybe(list(object({ hash: just("blake3"), log_id: bytes(32), old_size: uint, new_size: uint, block_number: uint,
    block_time: uint, state: uint }))),
});

/** A bundle, its optional parts filled in; `entries` are its seals and records. Throws where §7 does not let it pass. */
export function parseBundle(source) {
  const bundle = { records: [], anchors: [], states: [], headers: [], renewals: [], ...BUNDLE(strictJson(source), "bundle") };
  const within = (index, all, at) => { if (index >= BigInt(all.length)) wrong(at, "an index outside its list"); };
  for (const seal of bundle.seals) {
    seal.study ??= 0n;
    within(seal.study, bundle.studies, "study");
    if (!isImage(seal.record)) wrong("seals", "a record that is no image's");
  }
  bundle.entries = [...bundle.seals, ...bundle.records];
  for (const entry of bundle.entries) {
    if (entry.included) within(entry.included.anchor, bundle.anchors, "anchor");
    for (const one of entry.renewed ?? []) within(one.renewal, bundle.renewals, "renewal");
  }
  for (const one of [...bundle.anchors, ...bundle.renewals]) within(one.state, bundle.states, "state");
  return bundle;
}

const contract = object({ address: hexBytes(20), code_hash: hexBytes(32) });
const natural = (v, at) => (typeof v === "bigint" && v >= 0n ? v : wrong(at, "not a natural number"));
const positive = (v, at) => (natural(v, at) > 0n ? v : wrong(at, "zero"));
const TRUST = object({
  format: just("scanseal-trust-1"), chain_id: positive, genesis_hash: hexBytes(32), rpc: maybe(list(string)),
  anchor_log: contract, device_registry: contract,
  logs: list(object({ origin: string, log_id: hexBytes(32), key: hexBytes(32) })),
  authorities: list(object({ name: string, certificate: string })),
  blocks: maybe(list(object({ number: natural, hash: hexBytes(32) }))),
  keys: maybe(list(object({ key: hexBytes(32), retired_at: maybe(natural), compromised_since: maybe(natural) }))),
  devices: maybe(list(object({ device: hexBytes(32), name: string, seals_everything_since: positive }))),
  fallen: maybe(list(object({ algorithm: just("sha256", "secp256k1", "p256"), since: positive }))),
  policy: maybe(object({ finality: maybe(just("included", "safe", "final")), clock_tolerance_s: maybe(natural),
    approvals: maybe(natural) })),
});

/** A trust file, its optional parts filled in; `issuers` are its authorities' certificates, `fell` says when each algorithm fell. Throws where
 * §8 does not let it pass. */
export function parseTrust(source) {
  const trust = TRUST(parseToml(source, { integersAsBigInt: true }), "trust");
  const issuers = trust.authorities.map(({ certificate }) => new X509Certificate(certificate));
  for (const issuer of issuers) if (!isIssuedBy(issuer, issuer)) wrong("trust.authorities", "not a self-signed authority");
  const blocks = new Map();
  for (const { number, hash } of trust.blocks ?? []) {
    const known = blocks.get(number);
    if (known && Buffer.compare(known, hash)) wrong("trust.blocks", `two hashes of block ${number}`);
    blocks.set(number, hash);
  }
  const fell = {};
  for (const { algorithm, since } of trust.fallen ?? []) fell[algorithm] = fell[algorithm] < since ? fell[algorithm] : since;
  return { keys: [], devices: [], ...trust, blocks, issuers, fell, tolerance: trust.policy?.clock_tolerance_s ?? 300n };
}
