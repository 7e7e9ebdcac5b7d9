// Manifests (FORMAT.md §3.2), read strictly from the bytes of their file.
import { Invalid, hex, leafHash, same, text, treeRoot } from "./bytes.mjs";
import { strictJson } from "./strict.mjs";

const LINE_LIMIT = 1 << 20;
const fail = (message) => { throw new Invalid("manifest", message); };

const string = (v) => {
  const length = typeof v === "string" ? [...v].length : 0;
  if (length < 1 || length > 256 || /[^\P{C}]|[^\P{Z} ]/u.test(v) || v !== v.trim()) fail("no text");
};
const fileName = (v) => {
  string(v);
  if (/^\.|[/\\:]/.test(v)) fail("no file's name");
};
const counter = (v) => { if (typeof v !== "bigint" || v >= 1n << 64n) fail("no counter"); };
const bytes = (size) => (v) => {
  if (typeof v !== "string") fail("no bytes");
  const found = Buffer.from(v, "base64url");
  if (found.length !== size || found.toString("base64url") !== v) fail(`not ${size} bytes`);
};
const just = (...words) => (v) => { if (!words.includes(v)) fail(`not ${words.join(" or ")}`); };
const list = (shape) => (v) => { if (Array.isArray(v)) v.forEach(shape); else fail("no list"); };
/** Members; a `?` at the end of a name says that it may be left out. */
const object = (shapes) => (v) => {
  if (v === null || typeof v !== "object" || Array.isArray(v)) fail("no object");
  const names = Object.keys(shapes).map((name) => name.replace("?", ""));
  for (const name of Object.keys(v)) if (!names.includes(name)) fail(`unknown member ${name}`);
  for (const [name, shape] of Object.entries(shapes))
    if (v[name.replace("?", "")] !== undefined) shape(v[name.replace("?", "")]);
    else if (!name.endsWith("?")) fail(`no ${name}`);
};

const account = (v) => {
  object({ key: bytes(32), first: counter, last: counter, "others?": list(counter), "subject?": string, "visit?": string })(v);
  const others = v.others ?? [];
  if (v.first > v.last || others.some((one, i) => one < v.first || one > v.last || (i && one <= others[i - 1]))) fail("counters out of order");
  if ((v.subject === undefined) !== (v.visit === undefined)) fail("half a visit");
};
const header = object({
  format: just("scanseal-manifest-1"), kind: just("visit", "transmittal", "heartbeat"), trial: string, site: string, "subject?": string,
  "visit?": string, nonce: bytes(16), find_key: bytes(32), "accounts?": list(account),
});
const image = object({
  record: bytes(32), find: bytes(16), subject: string, visit: string, status: just("sent", "withheld"),
  origin: object({ key: bytes(32), counter }), "evidence?": fileName, "reason?": string,
});
const none = object({ subject: string, visit: string, status: just("none"), "reason?": string });

/** {content, kind, count} of a manifest, as its ManifestRecord has them. Throws Invalid (manifest). */
export function manifestOf(file) {
  const lines = [];
  for (let at = 0; at < file.length;) {
    const end = file.indexOf(10, at);
    if (end < 0) fail("half a line");
    lines.push(file.subarray(at, end));
    at = end + 1;
  }
  const [head, ...entries] = lines.map((line) => {
    if (line.length > LINE_LIMIT || line.includes(13)) fail("a line too long, or a carriage return");
    const source = Buffer.from(line).toString("utf8");
    if (!same(text(source), line)) fail("not UTF-8");
    return strictJson(source, "manifest");
  });
  if (head === undefined) fail("nothing");
  header(head);
  const named = [head.subject, head.visit].filter((one) => one !== undefined).length;
  if (named !== (head.kind === "visit" ? 2 : 0)) fail("not a visit's header, or one");
  const seen = new Set(), visits = new Map();
  for (const entry of entries) {
    (entry?.status === "none" ? none : image)(entry);
    if (head.kind === "visit" && (entry.subject !== head.subject || entry.visit !== head.visit)) fail("another visit");
    const visit = JSON.stringify([entry.subject, entry.visit]), same = entry.record ?? visit;
    if (seen.has(same)) fail("listed twice");
    seen.add(same);
    if ((visits.get(visit) ?? entry.status === "none") !== (entry.status === "none")) fail("a visit with and without images");
    visits.set(visit, entry.status === "none");
  }
  if (!entries.length && head.kind !== "heartbeat") fail("a list of nothing");
  return { content: `0x${hex(treeRoot(lines.map((line) => leafHash(line))))}`, kind: head.kind, count: entries.length };
}
