// The verification of FORMAT.md §9, steps 2 to 10, with the step's number where it is done.
// node tests/independent/verify.mjs --bundle B --trust T --subject S.json [--facts F.json]
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";
import { Invalid, big, cat, hex, integer, keccak, leafHash, pieces, same, sha256, text, treeRoot, unhex } from "./bytes.mjs";
import { inclusionRoot, openCheckpoint } from "./log.mjs";
import { px1OfTiles } from "./px1.mjs";
import { ATTRIBUTES, ITEMS, encoded, isIssuedBy, isSignedBy, itemLeaf, readCertificate, recordId, token, validity, word } from "./records.mjs";
import { parseBundle, parseTrust } from "./strict.mjs";
import { header, storage } from "./trie.mjs";

const BEST_FIRST = ["AUTHENTIC", "PENDING", "MISMATCH", "ALTERED", "REVOKED", "NOT_CHECKED"];
const EXIT = { AUTHENTIC: 0, PENDING: 4, MISMATCH: 1, ALTERED: 1, REVOKED: 1, STRIPPED: 1, UNREGISTERED: 3, NOT_CHECKED: 7 };
const ROLE_ACQUIRE = 1n;

/** A block that nobody vouches for, or that someone contradicts (exit code 6). */
class OutOfReach extends Error {}
const fail = (step, message) => { throw new Invalid(step, message); };
const verdict = (token, reason, more = {}) =>
  ({ verdict: token, exit_code: EXIT[token], reasons: [reason], differing: [], sealed_between: [null, null], ...more });

/** The custody verdict of one image. A trust file that is no trust file: verdict null, exit code 2. */
export function verify({ subject, trustToml, bundleJson, facts = {} }) {
  let trust, bundles;
  try { trust = parseTrust(trustToml); } catch (error) { return { ...verdict(null, error.message), exit_code: 2 }; }
  try { bundles = [bundleJson ?? []].flat().map(parseBundle); } catch (error) { return invalid(error); }
  const view = { subject, trust, facts, bundles };
  const verdicts = bundles.flatMap((bundle) => candidates(bundle, subject).map((seal) => judge(view, bundle, seal)));
  verdicts.sort((a, b) => rank(a) - rank(b));
  return verdicts[0] ?? withoutRecord(view);
}

/** This instance's own record comes before another's with the same pixels; one that is not on chain after all that are. */
function rank({ verdict: token, differing, sealed_between: [, upper] }) {
  if (token === "MISMATCH" && differing.includes("SOPInstanceUID")) return BEST_FIRST.indexOf("REVOKED") + 0.25;
  return token === "PENDING" && upper === null ? BEST_FIRST.indexOf("REVOKED") + 0.5 : BEST_FIRST.indexOf(token);
}

function invalid(error) {
  if (error instanceof OutOfReach) return verdict("NOT_CHECKED", error.message, { exit_code: 6 });
  if (error instanceof Invalid) return verdict("NOT_CHECKED", error.message);
  throw error;
}

// ---- steps 2 and 3: the image and what was sealed ----

function opens(seal, item, value) {
  const position = 32 * ITEMS.indexOf(item);
  return same(seal.leaves.subarray(position, position + 32), itemLeaf(seal.image_key, item, value));
}

const profileOf = (seal) => seal.record.profile.split("/")[0];
const instanceOf = (subject) => subject.attributes.SOPInstanceUID ?? null;

function hasPixels(seal, subject) {
  const digest = subject.digests[profileOf(seal)], decoded = subject.digests["px1-sha256"];
  return Boolean((digest && opens(seal, "PixelData", digest))
    || (decoded && seal.decoder !== undefined && opens(seal, "DecodedPixels", `${decoded} ${seal.decoder}`)));
}

/** 2: the seals of a bundle that may be this image's. */
function candidates(bundle, subject) {
  const instance = instanceOf(subject);
  const values = Object.values(subject.digests).map((digest) => ["PixelData", digest]);
  if (instance) values.push(["SOPInstanceUID", instance]);
  const tokens = bundle.studies.map((key) => new Set(values.map(([item, value]) => hex(token(key, item, value)))));
  const found = bundle.seals.filter((seal) => pieces(seal.find, 8).some((one) => tokens[seal.study].has(hex(one))));
  if (found.length || bundle.seals.length > 1024) return found;
  return bundle.seals.filter((seal) => seal.leaves.length === 32 * ITEMS.length
    && ((instance && opens(seal, "SOPInstanceUID", instance)) || hasPixels(seal, subject)));
}

/** 3: {pixels: the same?, differing: names of attributes}. */
function compare(seal, subject, findKey) {
  if (!/^(px1|cs1|raw1)-(sha256|blake3)\/attributes-1$/.test(seal.record.profile)) fail("content", "an unknown profile");
  if (seal.leaves.length !== 32 * ITEMS.length) fail("content", "another number of leaves");
  if (!same(treeRoot(pieces(seal.leaves, 32)), seal.record.content)) fail("content", "the leaves do not hash to content");
  const pixels = hasPixels(seal, subject);
  const differing = ATTRIBUTES.filter((name) => !opens(seal, name, subject.attributes[name] ?? null));
  const hints = { PixelData: subject.digests[profileOf(seal)], SOPInstanceUID: instanceOf(subject) };
  Object.entries(hints).forEach(([item, value], i) => {
    if (value && opens(seal, item, value) && !same(seal.find.subarray(8 * i, 8 * i + 8), token(findKey, item, value)))
      fail("content", `another look-up token of ${item}`);
  });
  if (seal.tiles) {
    const hash = /^px1-(sha256|blake3)$/.exec(profileOf(seal))?.[1] ?? fail("content", "tiles without px1");
    if (!opens(seal, "PixelData", px1OfTiles(seal.tiles, hash))) fail("content", "the tiles are not the sealed pixels'");
  }
  if (!pixels && differing.includes("SOPInstanceUID")) fail("content", "neither these pixels nor this instance");
  return { pixels, differing };
}

// ---- step 4: who signed ----

const idOf = (record, trust) => recordId(record, trust.chain_id, trust.anchor_log.address);

/** 4: the certificate of the record's key, whose signature holds. */
function signer(bundle, seal, trust) {
  const certificate = bundle.certificates.map(readCertificate).findLast(({ key }) => key && same(key, seal.record.key))
    ?? fail("certificate", "none for the record's key");
  if (!isSignedBy(certificate, idOf(seal.record, trust), seal.signature)) fail("signature", "it does not hold");
  if (!/URI:"?urn:scanseal:device\?Manufacturer=[^&]*&ManufacturerModelName=[^&]*&DeviceSerialNumber=[^&]*&AETitle=[^&]*&Site=[^&]*$/m
    .test((certificate.x509.subjectAltName ?? "").split(", ").join("\n"))) fail("certificate", "it names no device");
  return certificate;
}

// ---- steps 5 to 9: log, chain, time ----

const mapping = (key, slot) => keccak(cat(key, slot));

/** 5 and 6: {time, beacons, state header, registry words} of the anchor that includes the seal. */
function anchored(bundle, seal, log, trust) {
  const anchor = bundle.anchors[seal.included.anchor], state = bundle.states[anchor.state], block = header(state.header);
  const { size, root } = openCheckpoint(anchor.checkpoint, log.origin, log.key);
  const leaf = leafHash(cat(encoded(seal.record), seal.signature));
  if (!same(inclusionRoot(leaf, seal.included.index, size, pieces(seal.included.path, 32)), root)) fail("inclusion", "another root");
  const beacons = keccak(cat(...anchor.beacons.map(({ number, hash }) => cat(big(number, 8), hash))));
  const commitment = keccak(cat(root, word(anchor.old_size), word(anchor.block_number), word(anchor.block_time), beacons));
  const read = storage(state, trust.anchor_log);
  if (!same(read(mapping(word(size), mapping(log.log_id, word(1)))), commitment)) fail("state proof", `another anchor of size ${size}`);
  return { time: anchor.block_time, beacons: anchor.beacons, block, state };
}

/** 7: whether the policy takes the block as settled. */
function isSettled({ number, hash }, { trust, facts }) {
  const listed = trust.blocks.get(number), asked = facts.blocks?.[number];
  for (const known of [listed, asked && unhex(asked.slice(2))])
    if (known && !same(known, hash)) throw new OutOfReach(`another block ${number} than the evidence's`);
  if (!listed && !asked) throw new OutOfReach(`nobody vouches for block ${number}`);
  return Boolean(listed) || number <= BigInt(facts.settled ?? -1);
}

/** 8: what is known of a key: the registry's newest words, with the trust file's dates. `proven` is null without an anchor. */
function keyState(key, proven, { trust, facts }) {
  const fresh = facts.keys?.[`0x${hex(key)}`]?.map((one) => unhex(one.slice(2)));
  if (fresh && proven && integer(proven[0]) && !same(fresh[0], proven[0])) throw new OutOfReach("the chain names another certificate now");
  const [certificate, packed] = fresh ?? proven ?? [new Uint8Array(32), new Uint8Array(32)];
  const field = (from, bits) => (integer(packed) >> BigInt(from)) & ((1n << BigInt(bits)) - 1n);
  const news = trust.keys.filter((notice) => same(notice.key, key));
  const earliest = (...times) => times.filter((time) => time).reduce((a, b) => (a && a < b ? a : b), 0n);
  return {
    certificate, enrolled: field(0, 48), roles: field(144, 8),
    retired: earliest(field(48, 48), ...news.map((notice) => notice.retired_at)),
    compromised: earliest(field(96, 48), ...news.map((notice) => notice.compromised_since)),
  };
}

/** 8: why the key was not to be believed, or null. */
function refusal(seal, certificate, known, time, { trust, bundles, facts }) {
  const isEnrolled = integer(known.certificate) !== 0n;
  if (isEnrolled && !same(known.certificate, sha256(certificate.der))) fail("certificate", "another one is enrolled");
  const issuedAt = time ?? seal.record.claimed_time, isValid = ({ from, to }) => from <= issuedAt && issuedAt <= to;
  if (!trust.issuers.some((issuer) => isIssuedBy(certificate.x509, issuer) && isValid(validity(issuer)))) return "no trusted authority issued it";
  const id = idOf(seal.record, trust);
  for (const { record, signature } of bundles.flatMap((bundle) => bundle.seals))
    if (same(record.key, seal.record.key) && record.counter === seal.record.counter && !same(idOf(record, trust), id)
      && isSignedBy(certificate, idOf(record, trust), signature)) return "two records in one slot";
  if (time === null) {
    if (known.compromised) return "the key is compromised";
    if (!facts.keys?.[`0x${hex(seal.record.key)}`]) return null;
    return !isEnrolled || known.retired || !(known.roles & ROLE_ACQUIRE) ? "the key may not seal any more" : null;
  }
  if (!isEnrolled) return "the key was never enrolled";
  if (known.compromised && time >= known.compromised) return "the key was compromised";
  if (time < known.enrolled || (known.retired && time > known.retired)) return "the key was not enrolled then";
  if (!(known.roles & ROLE_ACQUIRE)) return "the key may not acquire";
  return isValid(certificate) ? null : "the certificate was not valid then";
}

/** 9: the time of the record's beacon, if its block is known to be the chain's, else null. */
function beaconTime(seal, bundle, anchor, { trust, facts }) {
  const { beacon_number: number, beacon_hash: hash } = seal.record;
  const headers = bundle.headers.map(header);
  for (const one of headers)
    if (!bundle.seals.some(({ record }) => same(record.beacon_hash, one.hash))) fail("beacon", "a header of no record's beacon");
  const known = [...anchor.beacons.filter((beacon) => beacon.number === number).map((beacon) => beacon.hash), trust.blocks.get(number),
    facts.blocks?.[number] && unhex(facts.blocks[number].slice(2))];
  if (integer(hash) === 0n || !known.some((one) => one && same(one, hash))) return null;
  return headers.find((one) => same(one.hash, hash))?.time ?? null;
}

/** 3 to 9 for one seal. */
function judge(view, bundle, seal) {
  try {
    const { subject, trust } = view, { ledger } = bundle;
    const { pixels, differing } = compare(seal, subject, bundle.studies[seal.study]);
    if (ledger.chain_id !== trust.chain_id || !same(ledger.anchor_log, trust.anchor_log.address)
      || !same(ledger.device_registry, trust.device_registry.address)) fail("ledger", "not the trust file's");
    const log = trust.logs.find((one) => one.origin === ledger.origin && same(one.log_id, ledger.log_id) && same(one.key, ledger.log_key))
      ?? fail("ledger", "the log is not in the trust file");
    const certificate = signer(bundle, seal, trust);

    let anchor = null, settled = false, words = null;
    if (seal.included) {
      anchor = anchored(bundle, seal, log, trust);
      settled = isSettled(anchor.block, view);
      const registry = storage(anchor.state, trust.device_registry);
      const slot = mapping(seal.record.key, word(1));
      words = [registry(slot), registry(word((integer(slot) + 1n) % (1n << 256n)))];
    }
    const refused = refusal(seal, certificate, keyState(seal.record.key, words, view), anchor && anchor.time, view);
    const lower = anchor && beaconTime(seal, bundle, anchor, view), upper = anchor && anchor.time;
    const claimed = seal.record.claimed_time;
    const more = { differing, sealed_between: [lower, upper].map((time) => (time === null ? null : Number(time))) };
    if (refused) return verdict("REVOKED", refused, more);
    if (!pixels) return verdict("ALTERED", "the pixels differ", more);
    if (differing.length) return verdict("MISMATCH", `${differing.join(", ")} differ`, more);
    if ((lower !== null && claimed < lower - trust.tolerance) || (upper !== null && claimed > upper + trust.tolerance))
      return verdict("MISMATCH", "claimedTime is outside the bracket", more);
    return settled ? verdict("AUTHENTIC", "sealed", more) : verdict("PENDING", "not settled yet", more);
  } catch (error) {
    return invalid(error);
  }
}

/** 10: no record. */
function withoutRecord({ subject, trust, facts }) {
  const { attributes } = subject, names = ["Manufacturer", "ManufacturerModelName", "DeviceSerialNumber"].map((name) => attributes[name]);
  const none = verdict("UNREGISTERED", "no record");
  if (!names.every(Boolean)) return none;
  const device = sha256(text(names.join("\0")));
  const since = [facts.devices?.[`0x${hex(device)}`], ...trust.devices.filter((one) => same(one.device, device)).map((one) => one.seals_everything_since)]
    .map(Number).filter((time) => time > 0);
  if (!since.length) return none;
  const made = ["AcquisitionDateTime", "AcquisitionDate", "StudyDate"].map((name) => /^[0-9]{8}/.exec(attributes[name] ?? "")?.[0]).find(Boolean);
  const day = new Date(Math.min(...since, 253402300799) * 1000).toISOString().slice(0, 10).replaceAll("-", "");
  return made && made <= day ? none : verdict("STRIPPED", "its device seals everything");
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: Object.fromEntries(["bundle", "trust", "subject", "facts"].map((name) => [name, { type: "string" }])) });
  const read = (path) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(readFileSync(path));
  const found = verify({ subject: JSON.parse(read(values.subject)), trustToml: read(values.trust), bundleJson: values.bundle && read(values.bundle),
    facts: values.facts && JSON.parse(read(values.facts)) });
  console.log(JSON.stringify(found, null, 1));
  process.exitCode = found.exit_code;
}
