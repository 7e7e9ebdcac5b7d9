// Bytes, hashes and RFC 9162 trees, as FORMAT.md writes them.
import { blake3 } from "@noble/hashes/blake3";
import { sha256 } from "@noble/hashes/sha2";
import { keccak_256 as keccak } from "@noble/hashes/sha3";

export { keccak, sha256 };
export const HASHES = { sha256, blake3 };

/** Evidence or input that FORMAT.md does not let pass; `step` names the place. */
export class Invalid extends Error {
  constructor(step, message) {
    super(`${step}: ${message}`);
    this.step = step;
  }
}

export const cat = (...parts) => new Uint8Array(Buffer.concat(parts.map((part) => Uint8Array.from(part))));
export const hex = (bytes) => Buffer.from(bytes).toString("hex");
export const same = (a, b) => a.length === b.length && Buffer.compare(a, b) === 0;
export const text = (string) => new TextEncoder().encode(string);

/** Hex digits, even in number, to bytes. */
export function unhex(string) {
  if (!/^([0-9a-fA-F]{2})*$/.test(string)) throw new Invalid("hex", "not hex digits");
  return new Uint8Array(Buffer.from(string, "hex"));
}

/** An unsigned integer in `size` bytes, little endian. */
export function little(value, size) {
  return big(value, size).reverse();
}

/** An unsigned integer in `size` bytes, big endian. */
export function big(value, size) {
  const digits = BigInt(value).toString(16);
  if (BigInt(value) < 0n || digits.length > 2 * size) throw new Invalid("integer", `${value} is not in ${size} bytes`);
  return unhex(digits.padStart(2 * size, "0"));
}

/** Bytes, big endian, to a BigInt. */
export const integer = (bytes) => (bytes.length ? BigInt(`0x${hex(bytes)}`) : 0n);

/** A byte string cut into equal pieces of `size` bytes. */
export function pieces(bytes, size) {
  if (bytes.length % size) throw new Invalid("bytes", `${bytes.length} bytes are not whole pieces of ${size}`);
  return Array.from({ length: bytes.length / size }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
}

export const leafHash = (data, H = sha256) => H(cat([0], data));
export const nodeHash = (left, right, H = sha256) => H(cat([1], left, right));

/** MTH (RFC 9162 §2.1.1) of leaf hashes. */
export function treeRoot(leaves, H = sha256) {
  if (leaves.length === 0) return H(new Uint8Array());
  if (leaves.length === 1) return leaves[0];
  let half = 1;
  while (half * 2 < leaves.length) half *= 2;
  return nodeHash(treeRoot(leaves.slice(0, half), H), treeRoot(leaves.slice(half), H), H);
}
