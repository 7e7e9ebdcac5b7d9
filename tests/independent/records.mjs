// What is sealed and who seals it: content (FORMAT.md §2), records (§3), certificates (§6).
import { X509Certificate, createHmac } from "node:crypto";
import { p256 } from "@noble/curves/p256";
import { secp256k1 } from "@noble/curves/secp256k1";
import { Invalid, big, cat, keccak, leafHash, same, sha256, text, treeRoot, unhex } from "./bytes.mjs";

export const ATTRIBUTES = `PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex
  StudyInstanceUID StudyDate StudyTime AccessionNumber SeriesInstanceUID Modality SOPClassUID SOPInstanceUID InstanceNumber ImageType
  AcquisitionDateTime AcquisitionDate AcquisitionTime BodyPartExamined AnatomicRegionSequence Laterality ImageLaterality ViewPosition
  PatientOrientation PatientPosition PixelSpacing ImagerPixelSpacing PixelAspectRatio SliceThickness SpacingBetweenSlices
  ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID SequenceOfUltrasoundRegions FunctionalGroups RescaleSlope
  RescaleIntercept RescaleType ModalityLUTSequence Units PresentationLUTShape Manufacturer ManufacturerModelName DeviceSerialNumber
  StationName`.split(/\s+/);
export const ITEMS = ["PixelData", "DecodedPixels", ...ATTRIBUTES];

const hmac = (key, message) => new Uint8Array(createHmac("sha256", key).update(message).digest());

export const imageKey = (secret, digest, instance) => hmac(secret, text(`scanseal/image\0${digest}\0${instance}`)).subarray(0, 16);
/** Of an image that was made from others: `values` item -> value. */
export const derivedKey = (secret, parent, values) =>
  hmac(secret, cat(text("scanseal/derived\0"), parent, treeRoot(ITEMS.map((item) => itemLeaf(new Uint8Array(16), item, values[item] ?? null))))).subarray(0, 16);
export const findKey = (secret) => hmac(secret, text("scanseal/find"));
export const token = (key, item, value) => hmac(key, text(`${item}\0${value}`)).subarray(0, 8);

export const saltOf = (key, item) => hmac(key, text(item)).subarray(0, 16);

/** `value` is null for an absent attribute. */
export function itemLeaf(salt, item, value) {
  return leafHash(cat(salt, [item.length], text(item), value === null ? [0] : cat([1], text(value))));
}

export const word = (value) => big(value, 32);

/** The members of the head: [EIP-712 type, its name there, its name in a bundle]. */
export const HEAD = [["bytes32", "content", "content"], ["string", "profile", "profile"], ["bytes32", "key", "key"],
  ["uint64", "counter", "counter"], ["bytes32", "previous", "previous"], ["uint64", "claimedTime", "claimed_time"],
  ["uint64", "beaconNumber", "beacon_number"], ["bytes32", "beaconHash", "beacon_hash"]];
/** The members that only one type has: [EIP-712 type, name]. */
export const TYPES = {
  AcquisitionRecord: [],
  SyntheticRecord: [["string", "generator"]],
  GatewayRecord: [],
  CustodyRecord: [["bytes32[]", "parents"], ["string", "action"], ["string", "statement"]],
  ManifestRecord: [["string", "kind"], ["uint64", "count"]],
  Approval: [["string", "name"], ["string", "meaning"]],
};
const IMAGES = ["AcquisitionRecord", "SyntheticRecord", "GatewayRecord", "CustodyRecord"];
const WORDS = { "bytes32": (v) => v, "bytes32[]": (v) => keccak(cat(...v)), "string": (v) => keccak(text(v)), "uint64": (v) => word(v) };

export const typeOf = (record) => record.type ?? "AcquisitionRecord";
export const isImage = (record) => IMAGES.includes(typeOf(record));

export function encoded(record) {
  const members = [...HEAD, ...TYPES[typeOf(record)]], list = members.map(([type, name]) => `${type} ${name}`).join(",");
  return cat(keccak(text(`${typeOf(record)}(${list})`)), ...members.map(([type, name, member]) => WORDS[type](record[member ?? name])));
}

export function recordId(record, chainId, contract) {
  const domain = keccak(cat(keccak(text("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")),
    keccak(text("ScanSeal")), keccak(text("1")), word(chainId), new Uint8Array(12), contract));
  return keccak(cat([0x19, 0x01], domain, keccak(encoded(record))));
}

const fail = (message) => { throw new Invalid("certificate", message); };

const CURVES = {
  "secp256k1": [secp256k1, "secp256k1", unhex("3056301006072a8648ce3d020106052b8104000a034200")],
  "P-256": [p256, "p256", unhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")],
};

/** When a certificate is valid: seconds since 1970, both ends included. */
export function validity(x509) {
  const [from, to] = [x509.validFrom, x509.validTo].map((date) => Date.parse(date) / 1000);
  return Number.isNaN(from + to) ? fail("without dates") : { from, to };
}

export const isIssuedBy = (x509, authority) =>
  authority.ca && x509.issuer === authority.subject && x509.verify(authority.publicKey);

const NAMED = ["device\\?Manufacturer=[^&]*&ManufacturerModelName=[^&]*&DeviceSerialNumber=[^&]*&AETitle=[^&]*&Site=[^&]*", "person\\?Name=([^&]*)&Site=[^&]*"];
const HOLDER = new RegExp(`^URI:"?urn:scanseal:(?:${NAMED.join("|")})$`, "m");

/** Whom a certificate names: {person: printed name, or null for a device}. */
export function holder({ x509 }) {
  const found = HOLDER.exec((x509.subjectAltName ?? "").split(", ").join("\n")) ?? fail("it names no device and no person");
  return { person: found[1] === undefined ? null : decodeURIComponent(found[1]) };
}

/** {x509, der, from, to, curve, point, key} of a certificate; `key` is null for a key of another kind than §6 allows. */
export function readCertificate(der) {
  let x509, jwk = {};
  try { x509 = new X509Certificate(der); } catch { fail("cannot be read"); }
  if (!same(x509.raw, der)) fail("bytes behind it");
  const { from, to } = validity(x509);
  try { jwk = x509.publicKey.export({ format: "jwk" }); } catch { /* a key that JWK has no name for */ }
  const [curve, , prefix] = CURVES[jwk.crv] ?? [];
  if (!curve) return { key: null };
  const point = cat([4], Buffer.from(jwk.x, "base64url"), Buffer.from(jwk.y, "base64url"));
  return { x509, der, from, to, curve, point, key: sha256(cat(prefix, point)) };
}

/** What a certificate's key signs with, as trust files (§8) call it; undefined for anything else. */
export function algorithmOf(x509) {
  try { return CURVES[x509.publicKey.export({ format: "jwk" }).crv]?.[1]; } catch { return undefined; }
}

export const isSignedBy = ({ curve, point }, digest, signature) => curve.verify(signature, digest, point, { prehash: false, lowS: true });
