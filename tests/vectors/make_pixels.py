"""Makes the vectors of the pixel digests: `python tests/vectors/make_pixels.py` writes pixels/*.json beside it. Deterministic.

px1.json: the Image Pixel module as numbers, native little-endian pixel data as hex, and `expect`: a digest or `refused`, then
with a `reason` in plain words. cs1.json: family, codestreams as hex, the elements of the Image Pixel module as written
(keyword to VR, which is empty when implicit, and value as hex), expect. raw1.json: transfer syntax, the pixel element's tag,
VR, `undefined` length and value as hex, the module's elements, expect.
frames.json: one frame of many: digest, index, the frame's values as hex, path, expect `ok` or `frame`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ledger.core import pixels, stored_pixels
from ledger.core.pixels import PixelHeader
from ledger.core.stored_pixels import MODULE, Written, module_hash
from ledger.dicom.elements import EXPLICIT_LITTLE, Element
from ledger.dicom.native import native_frames
from ledger.dicom.pixel_module import PixelModule

Case = dict[str, Any]


def vectors() -> dict[str, list[Case]]:
    """The content of each file, by its name."""
    return {"px1.json": px1(), "cs1.json": cs1(), "raw1.json": raw1(), "frames.json": frames()}


def noise(length: int, name: str) -> bytes:
    """Bytes that anyone can make again: SHA-256 of the name and a counter."""
    blocks = (hashlib.sha256(f"{name} {number}".encode()).digest() for number in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def _module(rows: int, columns: int, stored: int = 8, **changes: Any) -> Case:
    allocated = 8 if stored <= 8 else 16 if stored <= 16 else 32
    fields = {
        "photometric_interpretation": "MONOCHROME2",
        "samples_per_pixel": 1,
        "rows": rows,
        "columns": columns,
        "number_of_frames": 1,
        "bits_allocated": allocated,
        "bits_stored": stored,
        "high_bit": stored - 1,
        "pixel_representation": 0,
        "planar_configuration": 0,
    }
    return {**fields, **changes}


def px1() -> list[Case]:
    """Digests and refusals of native pixel data."""
    cases: list[Case] = []

    def case(name: str, module: Case, value: bytes, hash_name: str = "sha256", palette: Any = None) -> None:
        described = PixelModule(
            module["photometric_interpretation"],
            module["samples_per_pixel"],
            module["rows"],
            module["columns"],
            module["number_of_frames"],
            module["bits_allocated"],
            module["bits_stored"],
            module["pixel_representation"] == 1,
            module["planar_configuration"] == 1,
            False,
        )
        hashed = bytes(32)
        if palette:
            hashed = pixels.palette_hash([(first, bits, np.array(entries)) for first, bits, entries in palette], hash_name)
        found = native_frames(value, Element(b"OW", 0, len(value)), EXPLICIT_LITTLE, described)
        digest = pixels.px1(described.header(hashed), found, hash_name, bits=module["bits_stored"])
        made = {"name": name, "expect": str(digest), **module, **({"palette": palette} if palette else {})}
        cases.append({**made, "pixel_data": value.hex()})

    def refused(name: str, reason: str, module: Case, value: bytes) -> None:
        cases.append({"name": name, "expect": "refused", "reason": reason, **module, "pixel_data": value.hex()})

    case("one pixel", _module(1, 1), b"\x07\x00")
    case("one pixel, blake3", _module(1, 1), b"\x07\x00", "blake3")
    case("MONOCHROME1", _module(2, 3, photometric_interpretation="MONOCHROME1"), noise(6, "a"))
    case("12 bits of 16, other bits set", _module(4, 4, 12), noise(32, "b"))
    case("12 bits of 16, signed", _module(4, 4, 12, pixel_representation=1), noise(32, "b"))
    case("8 bits of 16: one byte a value", _module(4, 4, 8, bits_allocated=16), noise(32, "b"))
    case("16 bits, signed", _module(3, 5, 16, pixel_representation=1), noise(30, "c"))
    case("32 bits", _module(2, 2, 32), noise(16, "d"))
    case("1 bit, two frames that share a byte", _module(3, 3, 1, bits_allocated=1, number_of_frames=2), noise(4, "e"))
    colour = {"samples_per_pixel": 3, "photometric_interpretation": "RGB"}
    case("RGB by pixel", _module(2, 2, **colour), bytes(range(12)))
    case(
        "RGB by plane: the same picture",
        _module(2, 2, **colour, planar_configuration=1),
        bytes([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]),
    )
    case("YBR_FULL", _module(2, 2, **{**colour, "photometric_interpretation": "YBR_FULL"}), bytes(range(12)))
    case("YBR_FULL_422", _module(2, 4, **{**colour, "photometric_interpretation": "YBR_FULL_422"}), noise(16, "f"))
    palette = [[0, 8, [0, 10, 20, 30]], [0, 8, [0, 1, 2, 3]], [0, 16, [0, 256, 512, 65535]]]
    lookup = _module(2, 2, photometric_interpretation="PALETTE COLOR")
    case("PALETTE COLOR", lookup, b"\0\1\2\3", palette=palette)
    case("one tile exactly", _module(64, 64), noise(4096, "g"))
    case("one row and one column over a tile", _module(65, 65), noise(65 * 65 + 1, "g"))
    case("three tiles, three frames", _module(3, 130, number_of_frames=3), noise(3 * 3 * 130, "h"))
    refused("left-justified", "HighBit is not BitsStored-1", _module(2, 2, 12, high_bit=15), noise(8, "i"))
    refused("too many bits", "BitsStored over BitsAllocated", _module(2, 2, 12, bits_allocated=8), noise(4, "i"))
    refused("missing pixels", "missing pixel bytes", _module(2, 2), b"\0\1")
    refused("trailing pixels", "trailing pixel bytes", _module(2, 2), bytes(6))
    refused(
        "retired photometric interpretation", "HSV", _module(1, 2, **{**colour, "photometric_interpretation": "HSV"}), bytes(6)
    )
    refused("no palette", "PALETTE COLOR without palette", lookup, bytes(4))
    refused("odd bits", "BitsAllocated 12", _module(2, 2, 12, bits_allocated=12), bytes(6))
    refused("no rows", "no rows", _module(0, 2), b"")
    return cases


GREY = {
    "SamplesPerPixel": ["US", "0100"],
    "PhotometricInterpretation": ["CS", b"MONOCHROME2".hex()],
    "Rows": ["US", "0200"],
    "Columns": ["US", "0300"],
    "BitsAllocated": ["US", "0800"],
    "BitsStored": ["US", "0800"],
    "HighBit": ["US", "0700"],
    "PixelRepresentation": ["US", "0000"],
}


def hash_of_module(elements: Case, hash_name: str) -> bytes:
    """The module hash of elements as a case has them."""
    written = [elements.get(name) for name in MODULE]
    return module_hash(
        [None if one is None else Written(one[0].encode() or bytes(2), bytes.fromhex(one[1])) for one in written], hash_name
    )


def cs1() -> list[Case]:
    """Digests of codestreams."""
    cases = []
    jpeg = [b"\xff\xd8" + noise(20, "j") + b"\xff\xd9"]
    inverted = {**GREY, "PhotometricInterpretation": ["CS", b"MONOCHROME1".hex()]}
    palette = {name: ["OW" if name.endswith("Data") else "US", noise(6, name).hex()] for name in MODULE[10:19]}
    for name, family, streams, module, hash_name in (
        ("one frame", "JPEG", jpeg, GREY, "sha256"),
        ("the same bytes in another family", "JPEGLS", jpeg, GREY, "sha256"),
        ("the same bytes, inverted", "JPEG", jpeg, inverted, "sha256"),
        (
            "the same bytes under other bits",
            "JPEG",
            jpeg,
            {**GREY, "BitsStored": ["US", "0700"], "HighBit": ["US", "0600"]},
            "sha256",
        ),
        ("the same bytes, another VR", "JPEG", jpeg, {**GREY, "HighBit": ["SS", "0700"]}, "sha256"),
        ("the same bytes under no module", "JPEG", jpeg, {}, "sha256"),
        ("a palette in every form", "JPEG", jpeg, {**GREY, **palette}, "sha256"),
        (
            "three frames",
            "JPEG2000",
            [noise(length, "k") for length in (1, 2, 3)],
            {**GREY, "NumberOfFrames": ["IS", "33"]},
            "sha256",
        ),
        ("blake3", "HTJ2K", [noise(9, "l")], GREY, "blake3"),
    ):
        digest = stored_pixels.cs1(family, streams, hash_of_module(module, hash_name), hash_name)
        made = {"family": family, "codestreams": [s.hex() for s in streams], "module": module}
        cases.append({"name": name, "expect": str(digest), **made})
    return cases


def raw1() -> list[Case]:
    """Digests of stored value bytes."""
    explicit, implicit = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
    written = {keyword: ["", value] for keyword, (_, value) in GREY.items()}
    offsets = {"ExtendedOffsetTable": ["OV", "00" * 8], "ExtendedOffsetTableLengths": ["OV", "0900000000000000"]}
    planar = {"PlanarConfiguration": ["US", "0100"]}
    cases = []
    for name, uid, tag, vr, undefined, module, hash_name in (
        (explicit, explicit, "7fe00010", "OW", False, GREY, "sha256"),
        (
            "the same value under other rows and columns",
            explicit,
            "7fe00010",
            "OW",
            False,
            {**GREY, "Rows": ["US", "0300"], "Columns": ["US", "0200"]},
            "sha256",
        ),
        (
            "the same value, signed",
            explicit,
            "7fe00010",
            "OW",
            False,
            {**GREY, "PixelRepresentation": ["US", "0100"]},
            "sha256",
        ),
        ("the same value by plane", explicit, "7fe00010", "OW", False, {**GREY, **planar}, "sha256"),
        ("the same value as bytes", explicit, "7fe00010", "OB", False, GREY, "sha256"),
        ("the same value as float pixel data", explicit, "7fe00008", "OF", False, GREY, "sha256"),
        ("the same value in fragments", explicit, "7fe00010", "OB", True, {**GREY, **offsets}, "sha256"),
        (implicit, implicit, "7fe00010", "", False, written, "sha256"),
        ("1.2.3.4", "1.2.3.4", "7fe00010", "OB", True, {}, "blake3"),
    ):
        value = noise(33, "raw")
        element = int(tag, 16), vr.encode() or bytes(2), undefined
        digest = stored_pixels.raw1(uid, element, hash_of_module(module, hash_name), value, hash_name)
        made = {"transfer_syntax": uid, "tag": tag, "vr": vr, "undefined": undefined, "module": module, "value": value.hex()}
        cases.append({"name": name, "expect": str(digest), **made})
    return cases


def frames() -> list[Case]:
    """Proofs of one frame of five, and proofs that must fail."""
    header = PixelHeader(0, 2, 1, 1, 2, 2, 5)
    values = [np.frombuffer(noise(4, f"frame {number}"), np.uint8).reshape(2, 2) for number in range(5)]
    digest = pixels.px1(header, values)
    cases = []
    for index in range(5):
        proof = pixels.frame_proof(digest, index)
        made = {
            "digest": str(digest),
            "rows": 2,
            "columns": 2,
            "number_of_frames": 5,
            "path": [node.hex() for node in proof.path],
        }
        cases.append(
            {"name": f"frame {index}", "expect": "ok", **made, "index": index, "values": values[index].tobytes().hex()}
        )
    first = cases[0]
    cases.append({**first, "name": "another frame's place", "expect": "frame", "index": 1})
    cases.append({**first, "name": "another frame's values", "expect": "frame", "values": cases[1]["values"]})
    cases.append({**first, "name": "a path that is too long", "expect": "frame", "path": [*first["path"], "00" * 32]})
    return cases


def main() -> None:
    """Write every file."""
    folder = Path(__file__).parent / "pixels"
    folder.mkdir(exist_ok=True)
    for name, cases in vectors().items():
        (folder / name).write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
