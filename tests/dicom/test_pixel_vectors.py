"""The vectors in tests/vectors/pixels, replayed through whole DICOM objects and by the second implementation."""

from __future__ import annotations

import json
import runpy
import struct
from pathlib import Path
from typing import Any

import numpy as np
import plain_pixels
import pytest
from making import element, made

from ledger.core import pixels, stored_pixels
from ledger.core.errors import EvidenceInvalid, Refused
from ledger.core.pixels import FrameProof, PixelHeader
from ledger.dicom import read

VECTORS = Path(__file__).parents[1] / "vectors"
MAKER = runpy.run_path(str(VECTORS / "make_pixels.py"))
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((VECTORS / "pixels").glob("*.json"))}


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in FILES[name]]


def object_of(case: dict[str, Any]) -> bytes:
    fields = {
        "SamplesPerPixel": case["samples_per_pixel"],
        "PhotometricInterpretation": case["photometric_interpretation"],
        "PlanarConfiguration": case["planar_configuration"] if case["samples_per_pixel"] > 1 else None,
        "NumberOfFrames": str(case["number_of_frames"]),
        "Rows": case["rows"],
        "Columns": case["columns"],
        "BitsAllocated": case["bits_allocated"],
        "BitsStored": case["bits_stored"],
        "HighBit": case["high_bit"],
        "PixelRepresentation": case["pixel_representation"],
        "PixelData": bytes.fromhex(case["pixel_data"]),
    }
    extra = {}
    for channel, (first, bits, entries) in enumerate(case.get("palette", ())):
        extra[0x00281101 + channel] = element(0x00281101 + channel, "US", struct.pack("<HHH", len(entries), first, bits))
        extra[0x00281201 + channel] = element(0x00281201 + channel, "OW", struct.pack(f"<{len(entries)}H", *entries))
    return made(fields, extra=extra)


@pytest.mark.parametrize("case", cases("px1"))
def test_an_object_with_these_pixels_gets_the_digest_or_is_refused(case: dict[str, Any]) -> None:
    image = read(object_of(case))
    if case["expect"] == "refused":
        with pytest.raises(Refused):
            image.digest("px1-sha256")
        assert image.default_profile() == "raw1-sha256"
    else:
        assert str(image.digest(case["expect"].split(":")[0])) == case["expect"]


@pytest.mark.parametrize("case", [c for c in cases("px1") if c.values[0]["expect"].startswith("px1-sha256")])
def test_the_second_implementation_gives_the_same_digest(case: dict[str, Any]) -> None:
    palette = plain_pixels.palette(case["palette"]) if "palette" in case else bytes(32)
    values = plain_pixels.native_values(bytes.fromhex(case["pixel_data"]), case)
    assert plain_pixels.digest(case, values, palette) == case["expect"]


@pytest.mark.parametrize("case", cases("cs1"))
def test_codestreams_get_the_digest(case: dict[str, Any]) -> None:
    hash_name = case["expect"].split(":")[0].removeprefix("cs1-")
    module = MAKER["hash_of_module"](case["module"], hash_name)
    assert str(stored_pixels.cs1(case["family"], map(bytes.fromhex, case["codestreams"]), module, hash_name)) == case["expect"]


@pytest.mark.parametrize("case", cases("raw1"))
def test_stored_bytes_get_the_digest(case: dict[str, Any]) -> None:
    hash_name = case["expect"].split(":")[0].removeprefix("raw1-")
    module = MAKER["hash_of_module"](case["module"], hash_name)
    element = int(case["tag"], 16), case["vr"].encode() or bytes(2), case["undefined"]
    digest = stored_pixels.raw1(case["transfer_syntax"], element, module, bytes.fromhex(case["value"]), hash_name)
    assert str(digest) == case["expect"]


def test_no_two_stored_pictures_have_one_digest() -> None:
    for name in ("cs1", "raw1"):
        assert len({case["expect"] for case in FILES[name]}) == len(FILES[name])


@pytest.mark.parametrize("case", cases("frames"))
def test_a_proof_of_one_frame_is_judged_as_expected(case: dict[str, Any]) -> None:
    header = PixelHeader(0, 2, 1, 1, case["rows"], case["columns"], case["number_of_frames"])
    proof = FrameProof("px1-sha256", header, case["index"], tuple(map(bytes.fromhex, case["path"])))
    frame = np.frombuffer(bytes.fromhex(case["values"]), np.uint8).reshape(case["rows"], case["columns"])
    if case["expect"] == "ok":
        pixels.verify_frame(case["digest"], proof, frame)
    else:
        with pytest.raises(EvidenceInvalid) as caught:
            pixels.verify_frame(case["digest"], proof, frame)
        assert caught.value.step == case["expect"]


def test_the_files_are_what_their_generator_writes() -> None:
    made_now = MAKER["vectors"]()
    assert {name.removesuffix(".json"): content for name, content in made_now.items()} == FILES
