// What a custody record states, and what each action may change (FORMAT.md §3.1).
import { Invalid, cat, pieces, same, sha256, text } from "./bytes.mjs";
import { ATTRIBUTES, ITEMS, saltOf, typeOf } from "./records.mjs";
import { strictJson } from "./strict.mjs";

const HOLD = 4n, READ = 8n, TRANSFORM = 2n;
const ACTIONS = { received: HOLD, stored: HOLD, exported: HOLD, transferred: HOLD, read: READ, transcoded: TRANSFORM,
  "de-identified": TRANSFORM, derived: TRANSFORM };
const ROLES = { AcquisitionRecord: 1n, SyntheticRecord: 32n, GatewayRecord: HOLD, Approval: 16n, ManifestRecord: 1n | TRANSFORM | HOLD };
const fail = (message) => { throw new Invalid("custody", message); };

/** The roles of which a record's key needs one (§3). */
export const rolesOf = (record) => ROLES[typeOf(record)] ?? (Object.hasOwn(ACTIONS, record.action) ? ACTIONS[record.action] : fail("an unknown action"));
export const keepsContent = (action) => Object.hasOwn(ACTIONS, action) && action !== "de-identified" && action !== "derived";

// ---- what may be changed ----

const between = (first, last) => ATTRIBUTES.slice(ATTRIBUTES.indexOf(first), ATTRIBUTES.indexOf(last) + 1);
const PIXELS = ["PixelData", "DecodedPixels"];
const NEW = [...PIXELS, "SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber", "ImageType"];
const NO_PATIENT = [...PIXELS, ...ATTRIBUTES.slice(5)];
const OPERATIONS = {
  "lossy-compression": NEW,
  "crop": [...NEW, "ImagePositionPatient", "SequenceOfUltrasoundRegions", "FunctionalGroups"],
  "burn-in": NEW,
  "window": [...NEW, ...between("RescaleSlope", "PresentationLUTShape")],
  "correction": ATTRIBUTES,
  "ai-result": NO_PATIENT,
  "secondary-capture": NO_PATIENT,
};
const FULL = "retain-longitudinal-full-dates", MODIFIED = "retain-longitudinal-modified-dates";
const OPTIONS = ["clean-descriptors", "clean-graphics", "retain-device-identity", "retain-institution-identity", FULL, MODIFIED,
  "retain-patient-characteristics", "retain-safe-private", "retain-uids"];
/** §3.1.1: [items, the options that keep them]. */
const DEIDENTIFIED = [
  ["PatientName PatientID IssuerOfPatientID PatientBirthDate AccessionNumber", []],
  ["PatientSex", ["retain-patient-characteristics"]],
  ["StudyInstanceUID SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID", ["retain-uids"]],
  ["StudyDate AcquisitionDateTime AcquisitionDate", [FULL]],
  ["StudyTime AcquisitionTime", [FULL, MODIFIED]],
  ["DeviceSerialNumber StationName", ["retain-device-identity"]],
];

function allowed(action, members) {
  if (action === "derived") return OPERATIONS[members.operation];
  if (action !== "de-identified") return [];
  return DEIDENTIFIED.flatMap(([items, keep]) => (keep.some((option) => members.options.includes(option)) ? [] : items.split(" ")));
}

// ---- the members of a statement ----

const isText = (v) => typeof v === "string" && /^(?: |[^\p{C}\p{Z}]){1,1024}$/u.test(v);
const isNumber = (v) => typeof v === "bigint" && v >= 0n && v < 1n << 64n;
/** A list of some of `all`, each once, in their order. */
const isPart = (all) => (v) => Array.isArray(v) && v.every((one, i) => all.includes(one) && (!i || all.indexOf(v[i - 1]) < all.indexOf(one)));
const isKey = (v) => typeof v === "string" && Buffer.from(v, "base64url").length === 32 && Buffer.from(v, "base64url").toString("base64url") === v;
const MEMBERS = {
  tool: isText, reason: isText, to: isKey, salts: isKey, maximum_error: isNumber, x: isNumber, y: isNumber,
  transfer_syntax: (v) => typeof v === "string" && v.length <= 64 && /^[0-9]+(\.[0-9]+)*$/.test(v),
  profile: (v) => v === "ps3.15-basic",
  options: (v) => isPart(OPTIONS)(v) && !(v.includes(FULL) && v.includes(MODIFIED)),
  changed: isPart(ITEMS),
  operation: (v) => typeof v === "string" && Object.hasOwn(OPERATIONS, v),
  mean_error: (v) => typeof v === "string" && /^(0|[1-9][0-9]{0,17})\.[0-9]{6}$/.test(v),
};
const REQUIRED = { transferred: ["to"], transcoded: ["transfer_syntax"], "de-identified": ["profile", "options", "changed", "salts"] };
const OF_OPERATION = { "lossy-compression": ["maximum_error", "mean_error"], crop: ["x", "y"], correction: ["reason"] };

/** {changed, allowed: lists of items, to, salts} of a CustodyRecord. Throws where its statement is not one of §3.1. */
export function statementOf({ action, parents, statement }) {
  if (!Object.hasOwn(ACTIONS, action)) fail("an unknown action");
  if (text(statement).length > 65536) fail("the statement is too long");
  const members = strictJson(statement, "custody");
  if (members === null || typeof members !== "object" || Array.isArray(members)) fail("the statement is no object");
  const { operation } = members;
  if (action === "derived" && !MEMBERS.operation(operation)) fail("an unknown operation");
  const required = action === "derived" ? ["operation", "changed", "salts", ...(OF_OPERATION[operation] ?? [])] : REQUIRED[action] ?? [];
  for (const name of required) if (!(name in members)) fail(`no ${name}`);
  for (const [name, v] of Object.entries(members))
    if (!(required.includes(name) || name === "tool" || name === "salts") || !MEMBERS[name](v)) fail(`${name} is not what belongs there`);
  const several = action === "derived" && ["ai-result", "secondary-capture"].includes(operation);
  const most = several ? 64 : 1;
  if (!parents.length || parents.length > most) fail(`${parents.length} parents`);
  if (new Set(parents.map(String)).size < parents.length) fail("a parent twice");
  return { changed: members.changed ?? [], allowed: allowed(action, members), to: members.to, salts: members.salts };
}

/** The salts of a seal (§7): item -> 16 bytes. Throws where they are not those that the record's statement is bound to. */
export function saltsOf({ record, image_key: key, kept }) {
  const { changed, salts: bound } = typeOf(record) === "CustodyRecord" ? statementOf(record) : { changed: [] };
  const names = ITEMS.filter((item) => !changed.includes(item));
  if (!kept !== !bound) throw new Invalid("content", "kept salts, or a statement of them, without the other");
  if (kept && kept.length !== 16 * names.length) throw new Invalid("content", `${kept.length} bytes of kept salts`);
  if (kept && !same(sha256(cat(key, kept)), Buffer.from(bound, "base64url"))) throw new Invalid("content", "other salts than the signed ones");
  const salts = new Map(kept ? pieces(kept, 16).map((salt, i) => [names[i], salt]) : []);
  return (item) => salts.get(item) ?? saltOf(key, item);
}
