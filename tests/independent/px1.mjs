// Pixel digests (FORMAT.md §1): native pixel data with the numbers of its Image Pixel module, and whole codestreams.
import { HASHES, Invalid, cat, hex, leafHash, little, pieces, text, treeRoot, unhex } from "./bytes.mjs";
import { inclusionRoot } from "./log.mjs";

const PHOTOMETRIC = { MONOCHROME1: 1, MONOCHROME2: 2, "PALETTE COLOR": 3, RGB: 4, YBR_FULL: 5, YBR_FULL_422: 5 };
const refuse = (reason) => { throw new Invalid("refused", reason); };

/** The values of all frames in canonical bytes, one Uint8Array a frame (§1.2). `bytes` are native and little endian. */
function frameValues(m, bytes) {
  const { bits_allocated: allocated, bits_stored: stored } = m;
  const subsampled = m.photometric_interpretation === "YBR_FULL_422";
  if (m.high_bit !== stored - 1) refuse("HighBit is not BitsStored-1");
  if (stored > allocated) refuse("BitsStored over BitsAllocated");
  if (![1, 8, 16, 32].includes(allocated)) refuse(`BitsAllocated ${allocated}`);
  if (m.rows < 1 || m.columns < 1 || m.number_of_frames < 1) refuse("no pixels");
  if (subsampled && (m.planar_configuration !== 0 || m.columns % 2 || stored !== 8)) refuse("YBR_FULL_422");
  const count = m.rows * m.columns * m.samples_per_pixel; // values of a frame
  const written = subsampled ? m.rows * m.columns * 2 : count;
  const length = Math.ceil((written * m.number_of_frames * allocated) / 8);
  if (bytes.length < length) refuse("missing pixel bytes");
  if (bytes.length > length + (length % 2)) refuse("trailing pixel bytes");

  const value = (i) => { // the stored bits of sample i, as an unsigned number
    if (allocated === 1) return (bytes[i >> 3] >> (i & 7)) & 1;
    let found = 0;
    for (let b = allocated / 8 - 1; b >= 0; b--) found = found * 256 + bytes[i * (allocated / 8) + b];
    return found % 2 ** stored;
  };
  const plane = m.rows * m.columns;
  const place = (i) => { // where value i of a frame stands in what is written
    const pixel = Math.floor(i / m.samples_per_pixel), sample = i % m.samples_per_pixel;
    if (subsampled) return (pixel >> 1) * 4 + (sample === 0 ? pixel & 1 : sample + 1); // Y0 Y1 Cb Cr
    return m.planar_configuration === 1 ? sample * plane + pixel : i;
  };
  const width = widthOf(m);
  return Array.from({ length: m.number_of_frames }, (_, frame) => {
    const out = new Uint8Array(count * width);
    for (let i = 0; i < count; i++) {
      let v = value(frame * written + place(i));
      if (m.pixel_representation === 1 && v >= 2 ** (stored - 1)) v += 2 ** (8 * width) - 2 ** stored;
      for (let b = 0; b < width; b++, v = Math.floor(v / 256)) out[i * width + b] = v % 256;
    }
    return out;
  });
}

const widthOf = (m) => (m.bits_stored <= 8 ? 1 : m.bits_stored <= 16 ? 2 : 4);
const tileEdge = (m) => (m.rows * m.columns <= 1048576 ? 64 : 128);

/** A frame's root over its tiles. */
function frameRoot(m, values, H) {
  const T = tileEdge(m), size = widthOf(m) * m.samples_per_pixel, tiles = [];
  for (let y = 0; y < m.rows; y += T)
    for (let x = 0; x < m.columns; x += T) {
      const rows = [];
      for (let row = y; row < Math.min(y + T, m.rows); row++)
        rows.push(values.subarray((row * m.columns + x) * size, (row * m.columns + Math.min(x + T, m.columns)) * size));
      tiles.push(leafHash(cat(...rows), H));
    }
  return treeRoot(tiles, H);
}

function paletteHash(m, H) {
  if (m.photometric_interpretation !== "PALETTE COLOR") return new Uint8Array(32);
  if (!m.palette) refuse("PALETTE COLOR without palette");
  const channels = m.palette.map(([first, bits, entries]) =>
    cat(little(entries.length, 4), little(BigInt.asUintN(32, BigInt(first)), 4), [bits], ...entries.map((e) => little(e, 2))));
  return H(cat(text("scanseal/palette\0"), ...channels));
}

/** Step 3 of §1.2 over `H(frames)`: the digest's 32 bytes as hex. `header` is what §7's `tiles` calls its members. */
export function px1OfFrames(header, frames, H) {
  const tile = header.rows * header.columns <= 1048576 ? 6 : 7;
  return hex(H(cat(text("scanseal/px1\0"), little(header.kind, 1), little(header.photometric, 1),
    little(header.width, 1), little(header.samples_per_pixel, 1), little(header.rows, 4), little(header.columns, 4), little(header.frames, 4), [tile], header.palette, frames)));
}

function headerOf(m, H) {
  const photometric = PHOTOMETRIC[m.photometric_interpretation] ?? refuse(m.photometric_interpretation);
  return { kind: m.pixel_representation, photometric, width: widthOf(m), samples_per_pixel: m.samples_per_pixel,
    rows: m.rows, columns: m.columns, frames: m.number_of_frames, palette: paletteHash(m, H) };
}

/** px1 of native pixel data; throws `Invalid` at step `refused`. */
export function px1(m, bytes, hash = "sha256") {
  const H = HASHES[hash], header = headerOf(m, H);
  const roots = frameValues(m, bytes).map((values) => leafHash(frameRoot(m, values, H), H));
  return `px1-${hash}:${px1OfFrames(header, treeRoot(roots, H), H)}`;
}

/** px1 of sealed tile hashes (§7 `tiles`): what a holder of the hashes compares with the sealed digest. */
export function px1OfTiles(tiles, hash) {
  const H = HASHES[hash], T = tileEdge({ rows: Number(tiles.rows), columns: Number(tiles.columns) });
  const perFrame = Math.ceil(Number(tiles.rows) / T) * Math.ceil(Number(tiles.columns) / T), hashes = pieces(tiles.hashes, 32);
  if (tiles.frames < 1n || perFrame < 1 || BigInt(perFrame) * tiles.frames !== BigInt(hashes.length)) throw new Invalid("tiles", "another count");
  const roots = Array.from({ length: Number(tiles.frames) }, (_, i) => treeRoot(hashes.slice(i * perFrame, (i + 1) * perFrame), H));
  return `px1-${hash}:${px1OfFrames({ ...tiles, rows: Number(tiles.rows), columns: Number(tiles.columns) },
    treeRoot(roots.map((root) => leafHash(root, H)), H), H)}`;
}

/** Whether `path` leads from one frame's bytes (MONOCHROME2, one byte a pixel) to the px1-sha256 digest of all. */
export function holdsFrame(c, bytes, path) {
  const m = { ...c, photometric_interpretation: "MONOCHROME2", bits_stored: 8, samples_per_pixel: 1, pixel_representation: 0 };
  const leaf = leafHash(frameRoot(m, bytes, HASHES.sha256));
  const frames = inclusionRoot(leaf, BigInt(c.index), BigInt(c.number_of_frames), path);
  return c.digest === `px1-sha256:${px1OfFrames(headerOf(m, HASHES.sha256), frames, HASHES.sha256)}`;
}

const COLOURS = ["Red", "Green", "Blue"];
const MODULE = ["SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
  "BitsStored", "HighBit", "PixelRepresentation", ...COLOURS.map((c) => `${c}PaletteColorLookupTableDescriptor`),
  ...COLOURS.map((c) => `${c}PaletteColorLookupTableData`), ...COLOURS.map((c) => `Segmented${c}PaletteColorLookupTableData`),
  "ExtendedOffsetTable", "ExtendedOffsetTableLengths"];
const vrBytes = (vr) => (vr === "" ? [0, 0] : text(vr));

/** `module` of §1.3: `elements` has a VR (empty when implicit) and a value in hex for each keyword that is present. */
function moduleHash(elements, H) {
  const parts = MODULE.map((keyword) => {
    if (!(keyword in elements)) return [0];
    const [vr, value] = elements[keyword], bytes = unhex(value);
    return cat([1], vrBytes(vr), little(bytes.length, 4), bytes);
  });
  return H(cat(text("scanseal/module\0"), ...parts));
}

export function cs1({ family, codestreams, module }, hash = "sha256") {
  const H = HASHES[hash], streams = codestreams.map(unhex);
  const leaves = streams.map((stream) => leafHash(cat(little(stream.length, 8), stream), H));
  return `cs1-${hash}:${hex(H(cat(text(`scanseal/cs1\0${family}\0`), little(streams.length, 4), moduleHash(module, H), treeRoot(leaves, H))))}`;
}

export function raw1(c, hash = "sha256") {
  const H = HASHES[hash];
  return `raw1-${hash}:${hex(H(cat(text(`scanseal/raw1\0${c.transfer_syntax}\0`), little(parseInt(c.tag, 16), 4), vrBytes(c.vr), [c.undefined ? 1 : 0],
    moduleHash(c.module, H), unhex(c.value))))}`;
}
