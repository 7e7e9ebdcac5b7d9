// State proofs (EIP-1186): RLP, Merkle Patricia tries, block headers (FORMAT.md §5, §7, §9 step 6).
import { Invalid, big, cat, hex, integer, keccak, same, unhex } from "./bytes.mjs";

const fail = (message) => { throw new Invalid("state proof", message); };
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
  return [Object.assign(items, { size: end - at }), end];
}

/** Trie nodes by their hash; `used` collects the hashes of those that a proof needed. */
export const index = (nodes) => Object.assign(new Map(nodes.map((node) => [hex(keccak(node)), node])), { used: new Set() });

/** The value under `key` (already hashed, 32 bytes as all keys), or null where the proof shows that there is none. */
function walk(nodes, root, key) {
  let path = hex(key), node = root;
  if (same(root, EMPTY_ROOT)) {
    if (nodes.has(hex(root))) nodes.used.add(hex(root));
    return null;
  }
  for (;;) {
    if (!Array.isArray(node)) {
      nodes.used.add(hex(node));
      node = rlp(nodes.get(hex(node)) ?? fail("a trie node is missing"));
      if (!Array.isArray(node)) fail("a trie node is not a list");
    }
    if (node.length === 17) {
      if (path === "" || node[16].length) fail("a branch at a key's end");
      node.slice(0, 16).forEach((child) => child.length && checkReference(child));
      node = node[parseInt(path[0], 16)];
      path = path.slice(1);
      if (node.length === 0) return null;
    } else if (node.length === 2 && !Array.isArray(node[0])) {
      const prefix = hex(node[0]), flag = parseInt(prefix[0] ?? "f", 16);
      if (flag > 3 || (!(flag & 1) && prefix[1] !== "0")) fail("a path is not hex-prefix encoded");
      const part = prefix.slice(flag & 1 ? 1 : 2);
      if (flag & 2) {
        if (part.length !== path.length || Array.isArray(node[1]) || !node[1].length) fail("a leaf is not at a key's end, or empty");
        return part === path ? node[1] : null;
      }
      if (part === "" || part.length >= path.length) fail("an extension's path");
      checkReference(node[1]);
      if (!path.startsWith(part)) return null;
      path = path.slice(part.length);
      node = node[1];
    } else fail("a node is neither branch, extension nor leaf");
  }
}

/** A child is the hash of a node, or the node itself where that has fewer than 32 bytes. */
function checkReference(child) {
  if (Array.isArray(child) ? child.size >= 32 : child.length !== 32) fail("a child is neither a hash nor a short node");
}

const SIZES = [32, 32, 20, 32, 32, 32, 256, , , , , , , 32, 8]; // of the first 15 fields; none: of any size

/** {hash, number, time, stateRoot} of a block header. */
export function header(bytes) {
  const fields = rlp(bytes);
  if (bytes.length > 65536 || !Array.isArray(fields) || fields.length < 15) fail("not a block header");
  for (let i = 0; i < 15; i++)
    if (Array.isArray(fields[i]) || (SIZES[i] && fields[i].length !== SIZES[i])) fail(`field ${i} of a block header`);
  for (const number of [fields[8], fields[11]]) if (number.length > 8 || number[0] === 0) fail("a header's number");
  return { hash: keccak(bytes), number: integer(fields[8]), time: integer(fields[11]), stateRoot: fields[3] };
}

/** {nonce, balance, storageRoot, codeHash} of the account at `address`, or null for none. `nodes` is an `index`. */
export function account(nodes, stateRoot, address) {
  const found = walk(nodes, stateRoot, keccak(address));
  if (!found) return null;
  const fields = rlp(found);
  if (!Array.isArray(fields) || fields.length !== 4 || fields.some(Array.isArray)) fail("not an account");
  const [nonce, balance, storageRoot, codeHash] = fields;
  if (nonce[0] === 0 || nonce.length > 8 || balance[0] === 0 || balance.length > 32) fail("not an account");
  if (storageRoot.length !== 32 || codeHash.length !== 32) fail("not an account");
  return { nonce: integer(nonce), balance: integer(balance), storageRoot, codeHash };
}

/** The 32 bytes in a storage slot, zero where there is none. */
export function storageWord(nodes, storageRoot, slot) {
  const found = walk(nodes, storageRoot, keccak(slot));
  if (!found) return new Uint8Array(32);
  const word = rlp(found);
  if (Array.isArray(word) || word.length > 32 || word[0] === 0 || !word.length) fail("not a storage word");
  return cat(unhex("00".repeat(32 - word.length)), word);
}

/** Reads proven storage words of a trust file's contract in a bundle's state: slot (32 bytes) -> 32 bytes. */
export function storage(state, { address, code_hash: code }) {
  const nodes = index(state.nodes), found = account(nodes, header(state.header).stateRoot, address);
  if (!found || !same(found.codeHash, code)) fail("another code than the trusted contract's");
  return (slot) => storageWord(nodes, found.storageRoot, slot);
}

const FIELDS = ["parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty", "number",
  "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas", "withdrawalsRoot", "blobGasUsed", "excessBlobGas",
  "parentBeaconBlockRoot", "requestsHash"];
const NUMBERS = ["difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"];

/** A header's RLP from the answer of eth_getBlockByNumber, whose `hash` it must have. */
export function headerRlp(block) {
  const prefix = (base, length) => {
    const digits = big(length, 8).slice(8 - Math.ceil(length.toString(16).length / 2));
    return length <= 55 ? [base + length] : cat([base + 55 + digits.length], digits);
  };
  const fields = FIELDS.slice(0, 15).concat(FIELDS.slice(15).filter((name) => block[name] !== undefined)).map((name) => {
    const digits = (block[name] ?? fail(`no ${name}`)).slice(2), odd = digits.length % 2 ? "0" : "";
    const bytes = unhex(NUMBERS.includes(name) ? (odd + digits).replace(/^(00)+/, "") : digits);
    return bytes.length === 1 && bytes[0] < 0x80 ? bytes : cat(prefix(0x80, bytes.length), bytes);
  });
  const body = cat(...fields), whole = cat(prefix(0xc0, body.length), body);
  return same(keccak(whole), unhex((block.hash ?? fail("no hash")).slice(2))) ? whole : fail("the fields do not hash to the hash");
}
