// The log (FORMAT.md §4): RFC 9162 proofs and C2SP checkpoints.
import { createPublicKey, verify } from "node:crypto";
import { Invalid, cat, nodeHash, same, sha256, text } from "./bytes.mjs";

/** The root that an inclusion path leads to (RFC 9162 §2.1.3.2). `index` and `size` are BigInt, below 2^64. */
export function inclusionRoot(leaf, index, size, path, H = sha256) {
  if (index >= size) throw new Invalid("inclusion", `leaf ${index} is outside a tree of size ${size}`);
  let at = index, last = size - 1n, root = leaf;
  for (const node of path) {
    if (node.length !== 32) throw new Invalid("inclusion", "a node is not 32 bytes");
    if (last === 0n) throw new Invalid("inclusion", "the path is too long");
    if (at & 1n || at === last) {
      root = nodeHash(node, root, H);
      while (!(at & 1n) && at !== 0n) { at >>= 1n; last >>= 1n; }
    } else root = nodeHash(root, node, H);
    at >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw new Invalid("inclusion", "the path is too short");
  return root;
}

/** Throws unless the tree of `newSize` starts with the tree of `oldSize` (RFC 9162 §2.1.4.2). */
export function checkConsistency(oldSize, oldRoot, newSize, newRoot, path) {
  const fail = (message) => { throw new Invalid("consistency", message); };
  if (oldSize === 0n || oldSize > newSize) fail(`from ${oldSize} to ${newSize}`);
  if (path.some((node) => node.length !== 32)) fail("a node is not 32 bytes");
  if (oldSize === newSize) {
    if (path.length || !same(oldRoot, newRoot)) fail("two roots of one size");
    return;
  }
  const nodes = (oldSize & (oldSize - 1n)) === 0n ? [oldRoot, ...path] : [...path];
  if (!nodes.length) fail("the path is empty");
  let at = oldSize - 1n, last = newSize - 1n;
  while (at & 1n) { at >>= 1n; last >>= 1n; }
  let [older] = nodes, newer = older;
  for (const node of nodes.slice(1)) {
    if (last === 0n) fail("the path is too long");
    if (at & 1n || at === last) {
      older = nodeHash(node, older);
      newer = nodeHash(node, newer);
      while (!(at & 1n) && at !== 0n) { at >>= 1n; last >>= 1n; }
    } else newer = nodeHash(newer, node);
    at >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n || !same(older, oldRoot) || !same(newer, newRoot)) fail("the path leads elsewhere");
}

function base64(string) {
  const bytes = Buffer.from(string, "base64");
  if (bytes.toString("base64") !== string) throw new Invalid("checkpoint", "base64 is not canonical");
  return new Uint8Array(bytes);
}

/** {size, root} of a checkpoint that the log's key signed. `key` is 32 bytes, Ed25519. */
export function openCheckpoint(note, origin, key) {
  const fail = (message) => { throw new Invalid("checkpoint", message); };
  const split = note.lastIndexOf("\n\n");
  if (split < 0 || !note.endsWith("\n") || /[\x00-\x09\x0b-\x1f\x7f]|\p{Cs}/u.test(note)) fail("not a signed note");
  const body = note.slice(0, split + 1), lines = note.slice(split + 2, -1).split("\n");
  const keyHash = sha256(cat(text(`${origin}\n`), [1], key)).subarray(0, 4);
  const publicKey = createPublicKey({ format: "jwk", key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(key).toString("base64url") } });
  let signed = false;
  for (const line of lines) {
    const [, name, value] = /^— ([^\s+]+) ([^\s]+)$/u.exec(line) ?? fail("a malformed signature line");
    const bytes = base64(value);
    if (bytes.length < 5) fail("a signature is too short");
    if (name !== origin || !same(bytes.subarray(0, 4), keyHash)) continue; // a witness
    if (!verify(null, text(body), publicKey, bytes.subarray(4))) fail("the log's signature fails");
    signed = true;
  }
  if (!signed) fail("no signature by the log's key");
  const [first, size, root, ...rest] = body.slice(0, -1).split("\n");
  if (first !== origin) fail("another origin");
  if (root === undefined || !/^(0|[1-9][0-9]*)$/.test(size) || BigInt(size) >= 1n << 64n) fail("no size");
  if (base64(root).length !== 32) fail("the root is not 32 bytes");
  if (rest.some((line) => line === "")) fail("an empty line");
  return { size: BigInt(size), root: base64(root) };
}
