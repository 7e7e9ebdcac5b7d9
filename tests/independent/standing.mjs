// What is proven of one signed record of a bundle: steps 4 to 9 of FORMAT.md §9.
import { Invalid, big, cat, hex, integer, keccak, leafHash, pieces, same, sha256, treeRoot, unhex } from "./bytes.mjs";
import { rolesOf } from "./custody.mjs";
import { inclusionRoot, openCheckpoint } from "./log.mjs";
import { ITEMS, algorithmOf, encoded, holder, isIssuedBy, isSignedBy, readCertificate, recordId, typeOf, validity, word } from "./records.mjs";
import { led } from "./renewal.mjs";
import { header, storage } from "./trie.mjs";

/** A block that nobody vouches for, or that someone contradicts (exit code 6). */
export class OutOfReach extends Error {}
const fail = (step, message) => { throw new Invalid(step, message); };

/** What `make` gives, made once for each object. */
function once(make) {
  const made = new WeakMap();
  return (object, ...more) => made.get(object) ?? made.set(object, make(object, ...more)).get(object);
}

/** The leaves of an image, which hash to its content. */
export function leavesOf({ record, leaves }) {
  const found = pieces(leaves ?? [], 32);
  if (found.length !== ITEMS.length || !same(treeRoot(found), record.content)) fail("content", "the leaves are not the content's");
  return found;
}

/** A record's id in the trust file's domain. */
export const idOf = once((record, trust) => recordId(record, trust.chain_id, trust.anchor_log.address));

// ---- step 4: who signed ----

const certificatesOf = once((bundle) => bundle.certificates.map(readCertificate));

/** 4: the trust file's log that the bundle names. */
function logOf({ ledger }, trust) {
  if (ledger.chain_id !== trust.chain_id || !same(ledger.anchor_log, trust.anchor_log.address)
    || !same(ledger.device_registry, trust.device_registry.address)) fail("ledger", "not the trust file's");
  return trust.logs.find((one) => one.origin === ledger.origin && same(one.log_id, ledger.log_id) && same(one.key, ledger.log_key))
    ?? fail("ledger", "the log is not in the trust file");
}

/** 4: the certificate of the record's key, whose signature holds. */
function signer(bundle, { record, signature }, id) {
  const certificate = certificatesOf(bundle).findLast(({ key }) => key && same(key, record.key)) ?? fail("certificate", "none for the record's key");
  if (!isSignedBy(certificate, id, signature)) fail("signature", "it does not hold");
  const { person } = holder(certificate), type = typeOf(record);
  if (type === "Approval" ? person !== record.name : person !== null && ["AcquisitionRecord", "SyntheticRecord", "GatewayRecord"].includes(type))
    fail("certificate", "it names another than the record needs");
  return certificate;
}

// ---- steps 5 to 9: log, chain, time ----

const mapping = (key, slot) => keccak(cat(key, slot));
const anchorReader = once((state, trust) => storage(state, trust.anchor_log));
const registryReader = once((state, trust) => storage(state, trust.device_registry));

/** 6: whether the AnchorLog has this root under a size of a log, with what else an anchor or a renewal says of it. */
function isAnchored(state, log, size, root, { old_size, block_number, block_time, beacons }, trust) {
  const packed = keccak(cat(...beacons.map(({ number, hash }) => cat(big(number, 8), hash))));
  const commitment = keccak(cat(root, word(old_size), word(block_number), word(block_time), packed));
  return same(anchorReader(state, trust)(mapping(word(size), mapping(log, word(1)))), commitment);
}

/** 5 and 6, of one anchor: {size, root, time, beacons, block: state header, state}. */
const proven = once((anchor, bundle, log, trust) => {
  const state = bundle.states[anchor.state], block = header(state.header);
  const { size, root } = openCheckpoint(anchor.checkpoint, log.origin, log.key);
  if (!isAnchored(state, log.log_id, size, root, anchor, trust)) fail("state proof", `another anchor of size ${size}`);
  return { size, root, time: anchor.block_time, beacons: anchor.beacons, block, state };
});

/** 5 and 6: the anchor that includes the entry. */
function anchored(bundle, { record, signature, included }, log, trust) {
  const anchor = proven(bundle.anchors[included.anchor], bundle, log, trust), leaf = leafHash(cat(encoded(record), signature));
  if (!same(inclusionRoot(leaf, included.index, anchor.size, pieces(included.path, 32)), anchor.root)) fail("inclusion", "another root");
  return anchor;
}

/** 7: whether the policy takes a state's block as settled; null where nobody vouches for it. */
function isSettled({ number, hash }, { trust, facts }) {
  const listed = trust.blocks.get(number), asked = facts.blocks?.[number];
  for (const known of [listed, asked && unhex(asked.slice(2))])
    if (known && !same(known, hash)) throw new OutOfReach(`another block ${number} than the evidence's`);
  if (!listed && !asked) return null;
  return Boolean(listed) || number <= BigInt(facts.settled ?? -1);
}

/** 8: what is known of a key: the registry's newest words, with the trust file's dates. `words` is null without an anchor. */
function keyState(key, words, { trust, facts }) {
  const fresh = facts.keys?.[`0x${hex(key)}`]?.map((one) => unhex(one.slice(2)));
  if (fresh && words && integer(words[0]) && !same(fresh[0], words[0])) throw new OutOfReach("the chain names another certificate now");
  const [certificate, packed] = fresh ?? words ?? [new Uint8Array(32), new Uint8Array(32)];
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
function refusal({ record }, id, certificate, known, time, { trust, bundles, facts }) {
  const isEnrolled = integer(known.certificate) !== 0n;
  if (isEnrolled && !same(known.certificate, sha256(certificate.der))) fail("certificate", "another one is enrolled");
  const issuedAt = time ?? record.claimed_time, isValid = ({ from, to }) => from <= issuedAt && issuedAt <= to;
  if (!trust.issuers.some((issuer) => isIssuedBy(certificate.x509, issuer) && isValid(validity(issuer)))) return "no trusted authority issued it";
  for (const { record: other, signature } of bundles.flatMap((bundle) => bundle.entries))
    if (same(other.key, record.key) && other.counter === record.counter && !same(idOf(other, trust), id)
      && isSignedBy(certificate, idOf(other, trust), signature)) return "two records in one slot";
  const hasRole = () => (known.roles & rolesOf(record)) !== 0n;
  if (time === null) {
    if (known.compromised) return "the key is compromised";
    if (!facts.keys?.[`0x${hex(record.key)}`]) return null;
    return !isEnrolled || known.retired || !hasRole() ? "the key may not sign this any more" : null;
  }
  if (!isEnrolled) return "the key was never enrolled";
  if (known.compromised && time >= known.compromised) return "the key was compromised";
  if (time < known.enrolled || (known.retired && time > known.retired)) return "the key was not enrolled then";
  if (!hasRole()) return "the key has no role for it";
  return isValid(certificate) ? null : "the certificate was not valid then";
}

/** 8a: throws where a signature could be forged when it came on chain. */
function refuseFallen(certificate, anchor, known, { fell, issuers }) {
  const hasFallen = (algorithm, time) => fell[algorithm] !== undefined && (time === null || time >= fell[algorithm]);
  if (hasFallen(algorithmOf(certificate.x509), anchor && anchor.time)) fail("signature", "it could be forged when it came on chain");
  const own = issuers.filter((issuer) => isIssuedBy(certificate.x509, issuer));
  if (own.length && own.every((issuer) => hasFallen(algorithmOf(issuer), known.enrolled || null))) fail("certificate", "it could be forged when it was enrolled");
}

/** 8a: what the renewals that count say of the image; null while SHA-256 stands. */
function renewed(view, bundle, entry, { der: certificate }) {
  const { trust } = view, note = entry.included && bundle.anchors[entry.included.anchor].checkpoint;
  const found = led(bundle, entry, { certificate, note }).map(({ batch, root, image }) => {
    const state = bundle.states[batch.state], block = header(state.header);
    if (!isAnchored(state, batch.log_id, batch.new_size, root, { ...batch, beacons: [] }, trust)) fail("renewal", "not of this evidence");
    if (block.time < batch.block_time) fail("renewal", "the state is older than it");
    return { time: batch.block_time, block, image };
  }).map((one) => ({ ...one, settled: isSettled(one.block, view) }));
  if (trust.fell.sha256 === undefined) return null;
  if (typeOf(entry.record) === "ManifestRecord") fail("renewal", "a manifest's list falls with SHA-256");
  const early = found.filter(({ time }) => time < trust.fell.sha256), counting = early.filter(({ settled }) => settled);
  if (!early.length) fail("renewal", "it was not renewed before SHA-256 fell");
  if (!counting.length) throw new OutOfReach("the renewal's block is not settled");
  return counting.map(({ image }) => image);
}

const beaconHeaders = once((bundle) => {
  const headers = bundle.headers.map(header);
  for (const one of headers)
    if (!bundle.entries.some(({ record }) => same(record.beacon_hash, one.hash))) fail("beacon", "a header of no record's beacon");
  return headers;
});

/** 9: the time of the record's beacon, if its block is known to be the chain's, else null. */
function beaconTime({ beacon_number: number, beacon_hash: hash }, bundle, anchor, { trust, facts }) {
  const headers = beaconHeaders(bundle);
  const known = [...anchor.beacons.filter((beacon) => beacon.number === number).map((beacon) => beacon.hash), trust.blocks.get(number),
    facts.blocks?.[number] && unhex(facts.blocks[number].slice(2))];
  if (integer(hash) === 0n || !known.some((one) => one && same(one, hash))) return null;
  return headers.find((one) => same(one.hash, hash))?.time ?? null;
}

/** 4 to 9 of one entry: {id, isAnchored, settled, refused: why, or null, clock: contradicted?, bracket: [after, before],
 * images: what renewals say of it, or null while SHA-256 stands}. */
export function stand(view, bundle, entry) {
  const { trust } = view, { record } = entry, log = logOf(bundle, trust), id = idOf(record, trust);
  const certificate = signer(bundle, entry, id);
  if (!entry.image_key && entry.leaves) leavesOf(entry);
  let anchor = null, settled = false, words = null;
  if (entry.included) {
    anchor = anchored(bundle, entry, log, trust);
    settled = isSettled(anchor.block, view);
    if (settled === null) throw new OutOfReach(`nobody vouches for block ${anchor.block.number}`);
    if (anchor.block.time < anchor.time) fail("state proof", "the state is older than its anchor");
    const slot = mapping(record.key, word(1)), read = registryReader(anchor.state, trust);
    words = [read(slot), read(word((integer(slot) + 1n) % (1n << 256n)))];
  }
  const known = keyState(record.key, words, view), refused = refusal(entry, id, certificate, known, anchor && anchor.time, view);
  refuseFallen(certificate, anchor, known, trust);
  const images = renewed(view, bundle, entry, certificate);
  const bracket = anchor ? [beaconTime(record, bundle, anchor, view), anchor.time] : [null, null];
  const [lower, upper] = bracket, claimed = record.claimed_time;
  const clock = (lower !== null && claimed < lower - trust.tolerance) || (upper !== null && claimed > upper + trust.tolerance);
  return { id, isAnchored: anchor !== null, settled, refused, clock, bracket, images };
}
