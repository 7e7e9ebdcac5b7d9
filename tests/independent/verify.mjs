// The verification of FORMAT.md §9, with the step's number where it is done; steps 4 to 9 are standing.mjs', 10 is lineage.mjs'.
// node tests/independent/verify.mjs --bundle B --trust T --subject S.json [--facts F.json]
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";
import { Invalid, hex, pieces, same, sha256, text, treeRoot } from "./bytes.mjs";
import { saltsOf } from "./custody.mjs";
import { replay, trace } from "./lineage.mjs";
import { px1OfTiles } from "./px1.mjs";
import { ATTRIBUTES, ITEMS, itemLeaf, token, typeOf } from "./records.mjs";
import { imageHashes } from "./renewal.mjs";
import { OutOfReach, stand } from "./standing.mjs";
import { parseBundle, parseTrust } from "./strict.mjs";

const BEST_FIRST = ["DECLARED_SYNTHETIC", "AUTHENTIC", "DERIVED", "PENDING", "MISMATCH", "ALTERED", "REVOKED", "NOT_CHECKED"];
const EXIT = { AUTHENTIC: 0, DERIVED: 0, DECLARED_SYNTHETIC: 9, PENDING: 4, MISMATCH: 1, ALTERED: 1, REVOKED: 1, STRIPPED: 1, UNREGISTERED: 3,
  NOT_CHECKED: 7 };

const fail = (step, message) => { throw new Invalid(step, message); };
const verdict = (token, reason, more = {}) =>
  ({ verdict: token, exit_code: EXIT[token], reasons: [reason], differing: [], custody: [], sealed_between: [null, null], ...more });

/** What was read last: many images may ask for the same evidence. */
let last = {};

/** The custody verdict of one image. A trust file that is no trust file: verdict null, exit code 2. */
export function verify({ subject, trustToml, bundleJson, facts = {} }) {
  let trust, bundles;
  if (last.trustToml !== trustToml || last.bundleJson !== bundleJson) {
    try { trust = parseTrust(trustToml); } catch (error) { return { ...verdict(null, error.message), exit_code: 2 }; }
    try { bundles = [bundleJson ?? []].flat().map(parseBundle); } catch (error) { return invalid(error); }
    last = { trustToml, bundleJson, trust, bundles };
  }
  ({ trust, bundles } = last);
  const view = { subject, trust, facts, bundles };
  const verdicts = bundles.flatMap((bundle) => candidates(bundle, subject).map((seal) => judge(view, bundle, seal)));
  verdicts.sort((a, b) => rank(a) - rank(b));
  return verdicts[0] ?? withoutRecord(view);
}

/** Synthetic pixels make nobody's image; this instance's own record comes before another's with the same pixels; one that is not on
 * chain, or comes from one that is not, after all that are. */
function rank(one) {
  if (one.isAnother) return 3 * BEST_FIRST.length;
  if (one.verdict === "UNREGISTERED" || one.verdict === "STRIPPED") return BEST_FIRST.length;
  return rankOfOrigin(one) + (one.isHeld && !one.isSynthetic ? BEST_FIRST.length + 1 : 0);
}

function rankOfOrigin({ verdict: token, differing, isSynthetic, isAnchored, isSettled }) {
  if (token === "MISMATCH" && isSynthetic && isSettled) return BEST_FIRST.indexOf("DECLARED_SYNTHETIC") + 0.5;
  if (token === "MISMATCH" && differing.includes("SOPInstanceUID")) return BEST_FIRST.indexOf("REVOKED") + 0.25;
  return token === "PENDING" && !isAnchored ? BEST_FIRST.indexOf("REVOKED") + 0.5 : BEST_FIRST.indexOf(token);
}

function invalid(error) {
  if (error instanceof OutOfReach) return verdict("NOT_CHECKED", error.message, { exit_code: 6 });
  if (error instanceof Invalid) return verdict("NOT_CHECKED", error.message);
  throw error;
}

// ---- steps 2 and 3: the image and what was sealed ----

/** Throws where the salts are not those of the record's statement. */
function opens(seal, item, value) {
  const position = 32 * ITEMS.indexOf(item);
  seal.salts ??= saltsOf(seal);
  return same(seal.leaves.subarray(position, position + 32), itemLeaf(seal.salts(item), item, value));
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
  return bundle.seals.filter((seal) => seal.leaves.length === 32 * ITEMS.length && isOf(seal, subject));
}

function isOf(seal, subject) {
  const instance = instanceOf(subject);
  try {
    return (instance && opens(seal, "SOPInstanceUID", instance)) || hasPixels(seal, subject);
  } catch (error) {
    if (error instanceof Invalid) return false;
    throw error;
  }
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

// ---- steps 4 to 10, and the verdict ----

/** 8a, of an image that is what was sealed. */
function checkImage(seal, subject, { images }) {
  const ours = images && imageHashes(seal, subject);
  if (images && !images.some((image) => image && ours.some((one) => same(one, image)))) fail("renewal", "not of this image");
}

/** 3 to 10 for one seal. */
function judge(view, bundle, seal) {
  try {
    const { pixels, differing: own } = compare(seal, view.subject, bundle.studies[seal.study]);
    const standing = stand(view, bundle, seal);
    if (pixels && !own.length) checkImage(seal, view.subject, standing);
    const lineage = trace(view, bundle, seal, standing), custody = replay(view, bundle, seal, standing);
    const falsehoods = lineage.flatMap((link) => link.false), differing = [...new Set([...own, ...falsehoods.filter((item) => ATTRIBUTES.includes(item))])];
    const first = lineage.find(({ entry }) => typeOf(entry.record) !== "CustodyRecord").standing;
    const isSynthetic = lineage.some(({ entry }) => typeOf(entry.record) === "SyntheticRecord");
    const isHeld = lineage.some(({ entry }) => typeOf(entry.record) === "GatewayRecord");
    if (isHeld && !isSynthetic && own.includes("SOPInstanceUID")) return { ...withoutRecord(view), isAnother: true };
    const more = { isHeld, differing, custody, sealed_between: first.bracket.map((time) => (time === null ? null : Number(time))),
      isSynthetic, isAnchored: lineage.every((link) => link.standing.isAnchored), isSettled: lineage.every((link) => link.standing.settled) };
    const refused = lineage.map((link) => link.standing.refused).find(Boolean);
    if (refused) return verdict("REVOKED", refused, more);
    if (!pixels) return verdict("ALTERED", "the pixels differ", more);
    if (falsehoods.some((item) => !ATTRIBUTES.includes(item))) return verdict("ALTERED", "a receipt is false of the pixels", more);
    if (differing.length) return verdict("MISMATCH", `${differing.join(", ")} differ`, more);
    if (lineage.some((link) => link.standing.clock || link.isEarly)) return verdict("MISMATCH", "a claimedTime is contradicted", more);
    if (isHeld && !isSynthetic) return { ...withoutRecord(view), ...more };
    if (!more.isSettled) return verdict("PENDING", "not settled yet", more);
    if (isSynthetic) return verdict("DECLARED_SYNTHETIC", "generated", more);
    return lineage.some((link) => link.isNew) ? verdict("DERIVED", "derived from what was sealed", more) : verdict("AUTHENTIC", "sealed", more);
  } catch (error) {
    return invalid(error);
  }
}

/** 11: no record. */
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
