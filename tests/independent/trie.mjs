// State proofs (EIP-1186): RLP, Merkle Patricia tries, block headers (FORMAT.md §5, §7, §9 step 6).
import { Invalid, cat, hex, integer, keccak, same, unhex } from "./bytes.mjs";

const fail = (message) => { throw new Invalid("state", message); };
const EMPTY_ROOT = keccak(Uint8Array.of(0x80));

/** One RLP item, canonical, with nothing behind: Uint8Array or nested arrays of them. */
export function rlp(bytes) {
  const [item, end] = item_at(bytes, 0, 0);
  if (end !== bytes.length) fail("bytes behind an RLP item");
  return item;
}

function item_at(bytes, at, depth) {
  if (depth > 16) fail("RLP is nested too deep");
  const first = bytes[at] ?? fail("RLP is cut off");
  if (first < 0x80) return [bytes.subarray(at, at + 1), at + 1];
  const isList = first >= 0xc0, short = first - (isList ? 0xc0 : 0x80);
  let start = at + 1, length = short;
  if (short > 55) {
    start += short - 55;
    const digits = bytes.subarray(at + 1, start);
    length = Number(integer(digits));
    if (digits.length !== short - 55 || digits[0] === 0 || length <= 55) fail("an RLP length is not canonical");
  }
  const end = start + length;
  if (end > bytes.length) fail("RLP is cut off");
  if (!isList) {
    if (length === 1 && bytes[start] < 0x80) fail("an RLP byte is not canonical");
    return [bytes.subarray(start, end), end];
  }
  const items = [];
  for (let next = start; next < end;) {
    const [item, after] = item_at(bytes.subarray(0, end), next, depth + 1);
    items.push(item);
    next = after;
  }
  return [items, end];
}

/** The value under `key` (already hashed), or null where the proof shows that there is none. */
function walk(nodes, root, key) {
  let path = hex(key), node = root;
  if (same(root, EMPTY_ROOT)) return null;
  for (;;) {
    if (!Array.isArray(node)) { // a hash; a node below 32 bytes stands in its parent
      if (node.length === 0) return null;
      if (node.length !== 32) fail("a reference is not a hash");
      node = rlp(nodes.get(hex(node)) ?? fail("a trie node is missing"));
      if (!Array.isArray(node)) fail("a trie node is not a list");
    }
    if (node.length === 17) {
      if (path === "") return node[16].length ? node[16] : null;
      node = node[parseInt(path[0], 16)];
      path = path.slice(1);
    } else if (node.length === 2 && !Array.isArray(node[0])) {
      const prefix = hex(node[0]), flag = parseInt(prefix[0] ?? "f", 16);
      if (flag > 3 || (!(flag & 1) && prefix[1] !== "0")) fail("a path is not hex-prefix encoded");
      const part = prefix.slice(flag & 1 ? 1 : 2);
      if (flag & 2) return part === path && !Array.isArray(node[1]) ? node[1] : null;
      if (part === "") fail("an extension without a path");
      if (!path.startsWith(part)) return null;
      path = path.slice(part.length);
      node = node[1];
    } else fail("a node is neither branch, extension nor leaf");
  }
}

/** {hash, number, time, stateRoot} of a block header, 15 fields at least. */
export function header(bytes) {
  const fields = rlp(bytes);
  if (!Array.isArray(fields) || fields.length < 15 || fields.some(Array.isArray)) fail("not a block header");
  if (fields[3].length !== 32 || fields[8].length > 8 || fields[11].length > 8) fail("not a block header");
  if (fields[8][0] === 0 || fields[11][0] === 0) fail("a header's integer is not canonical");
  return { hash: keccak(bytes), number: integer(fields[8]), time: integer(fields[11]), stateRoot: fields[3] };
}

/** Reads proven storage words of `address`, whose code must hash to `codeHash`: slot (32 bytes) -> 32 bytes, zero when absent. */
export function storage(state, address, codeHash) {
  const nodes = new Map(state.nodes.map((node) => [hex(keccak(node)), node]));
  const found = walk(nodes, header(state.header).stateRoot, keccak(address)) ?? fail("no such account");
  const account = rlp(found);
  if (!Array.isArray(account) || account.length !== 4 || account.some(Array.isArray)) fail("not an account");
  if (account[2].length !== 32 || !same(account[3], codeHash)) fail("the account has another code");
  return (slot) => {
    const value = walk(nodes, account[2], keccak(slot));
    if (value === null) return new Uint8Array(32);
    const word = rlp(value);
    if (Array.isArray(word) || word.length > 32 || word[0] === 0 || !word.length) fail("not a storage word");
    return cat(unhex("00".repeat(32 - word.length)), word);
  };
}
