// Evidence under a newer hash, on chain before the old one fell: FORMAT.md §11, and step 8a of §9 where it needs one.
import { HASHES, Invalid, cat, leafHash, little, pieces, text } from "./bytes.mjs";
import { inclusionRoot } from "./log.mjs";
import { ATTRIBUTES, encoded } from "./records.mjs";

const { blake3 } = HASHES;
const NOTHING = new Uint8Array(32);
const fail = (message) => { throw new Invalid("renewal", message); };

const hashed = (what, parts) =>
  blake3(cat(text(`scanseal/renewal/${what}\0`), ...parts.flatMap((part) => [little(part.length, 4), part])));

const evidence = ({ record, signature, leaves, included }, { certificate, note }) =>
  hashed("evidence", [cat(encoded(record), signature), leaves ?? [], certificate, text(note), little(included.index, 8), included.path]);
const opening = ({ image_key, kept, decoder }) => hashed("opening", [image_key, kept ?? [], text(decoder ?? "")]);

/** What a renewal may say of an image that is the sealed one. */
export function imageHashes(seal, { attributes, digests }) {
  const values = ATTRIBUTES.map((name) => attributes[name] ?? null).map((value) => (value === null ? [0] : cat([1], text(value))));
  const found = [`${seal.record.profile.split("-")[0]}-blake3`, "px1-blake3"].map((profile) => digests[profile]).filter(Boolean);
  return found.map((digest) => hashed("image", [seal.image_key, text(digest), ...values]));
}

/** The leaf hash of an entry (a seal, or of `records`) in the tree that one of its renewals is in. `around`: {certificate: of its key,
 * DER, note: its anchor's}. */
const leafOf = (entry, one, around) =>
  leafHash(cat(evidence(entry, around), entry.image_key ? opening(entry) : one.opening ?? NOTHING, one.image ?? NOTHING), blake3);

/** §11, of one entry: {batch, root: that its renewal leads to, image} for each of its renewals. */
export function led(bundle, entry, around) {
  if (entry.renewed?.length && !entry.included) fail("a record that is not on chain");
  return (entry.renewed ?? []).map((one) => {
    const batch = bundle.renewals[one.renewal];
    return { batch, image: one.image, root: inclusionRoot(leafOf(entry, one, around), one.index, batch.new_size - batch.old_size, pieces(one.path, 32), blake3) };
  });
}
