"""Chest radiographs are in scope however they were cut, windowed or inverted; everything else that can be had here is not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.data import get_testdata_file

from detector import scope_fitting
from detector.counterexamples import KINDS, part
from detector.scope import LENGTH, Scope, described, negative, obvious
from detector.splits import DataMissing, data_folder, radiographs

CHESTS = ("RG1_UNCR.dcm", "RG1_J2KI.dcm")
"""Chest radiographs that are neither in the data nor of its hospitals (MONOCHROME1)."""
OTHERS = (
    *("CT_small.dcm", "693_UNCR.dcm", "eCT_Supplemental.dcm", "explicit_VR-UN.dcm", "J2K_pixelrep_mismatch.dcm"),
    *("MR2_UNCR.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm", "examples_overlay.dcm"),
    *("JPGLosslessP14SV1_1s_1f_8b.dcm", "US1_UNCR.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm", "color-px.dcm"),
    *("RG3_UNCR.dcm", "JPEG2000_UNC.dcm", "mlut_18.dcm", "vlut_04.dcm", "image_dfl.dcm", "liver_1frame.dcm", "SC_rgb.dcm"),
)
"""CT, MR, ultrasound, a limb, a bone scan, test charts, a mask."""


@pytest.fixture(scope="module")
def scope() -> Scope:
    return Scope.load()


@pytest.fixture(scope="module")
def data() -> Path:
    try:
        return data_folder()
    except DataMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


def stored(name: str) -> NDArray[np.generic]:
    """The first frame's stored values."""
    pixels = pydicom.dcmread(str(get_testdata_file(name, download=False))).pixel_array
    while pixels.ndim > 3 or (pixels.ndim == 3 and pixels.shape[-1] != 3):
        pixels = pixels[0]
    return pixels


def is_in(scope: Scope, pixels: NDArray[np.generic]) -> bool:
    return scope.refusal(pixels) is None


@pytest.mark.parametrize("name", CHESTS)
def test_a_chest_of_another_hospital_is_in_scope_and_its_negative(scope: Scope, name: str) -> None:
    pixels = stored(name)
    assert is_in(scope, pixels)
    assert is_in(scope, pixels.max() - pixels)
    assert is_in(scope, np.repeat((pixels >> 7).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("name", OTHERS)
def test_other_modalities_and_body_parts_are_out_of_scope(scope: Scope, name: str) -> None:
    reason = scope.refusal(stored(name))
    assert reason is not None
    assert reason.part == "scope"
    assert reason.text


@pytest.mark.parametrize("name", [name for makers in KINDS.values() for name in makers])
def test_simulated_body_parts_drawings_and_textures_are_out_of_scope(scope: Scope, name: str) -> None:
    make = next(makers[name] for makers in KINDS.values() if name in makers)
    rng = np.random.default_rng(20260)
    let_in = sum(is_in(scope, make(rng)) for _ in range(25))
    assert let_in == 0


def test_nothing_that_is_tiny_long_blank_or_coloured_is_looked_at() -> None:
    rng = np.random.default_rng(2)
    grain = rng.integers(0, 256, (300, 300), np.uint8)
    assert obvious(grain) is None
    for pixels, said in (
        (grain[:95], "too few"),
        (np.tile(grain, (1, 3)), "so long"),
        (np.zeros((200, 200), np.uint16), "blank"),
        (np.where(grain > 250, grain, 0).astype(np.uint8)[:200], "grey levels"),
        (np.where(rng.random((300, 300)) > 0.99, grain, 7), "blank"),
        ((grain > 128).astype(np.uint8) * 255, "2 grey levels"),
        (rng.integers(0, 256, (200, 200, 3), np.uint8), "coloured"),
        (np.zeros((0, 5), np.uint8), "shape"),
        (np.zeros((200, 200, 4), np.uint8), "shape"),
    ):
        reason = obvious(pixels)
        assert reason is not None
        assert said in reason


def test_a_viewer_on_a_screen_is_out_of_scope(scope: Scope) -> None:
    chest = stored(CHESTS[0])
    picture = np.asarray(Image.fromarray((chest >> 7).astype(np.uint8)).resize((420, 420)))
    screen = Image.new("RGB", (1280, 800), (40, 40, 46))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 1280, 40), fill=(60, 90, 160))
    for row in range(60, 780, 24):
        draw.text((12, row), "Study of a patient, 2 images", fill=(220, 220, 220))
    screen.paste(Image.fromarray(picture), (300, 120))
    assert not is_in(scope, np.asarray(screen))


def test_a_description_knows_neither_window_nor_depth_and_inversion_turns_only_its_ranks() -> None:
    rng = np.random.default_rng(3)
    plane = np.asarray(Image.fromarray(rng.random((12, 9)).astype(np.float32)).resize((200, 260), Image.Resampling.BICUBIC))
    first = described(plane)
    assert first.shape == (LENGTH,)
    assert np.abs(described(plane**3 if plane.min() >= 0 else np.exp(plane)) - first).max() < 0.2
    assert np.allclose(described(plane * 4000 + 70), first, atol=0.02)
    assert np.abs(negative(first) - described(-plane)).max() < 0.02


def test_a_saved_scope_is_the_same_and_its_file_has_one_hash(scope: Scope, tmp_path: Path) -> None:
    first, second = scope.save(tmp_path / "a.npz"), Scope.load(tmp_path / "a.npz").save(tmp_path / "b.npz")
    assert first == second
    assert np.array_equal(Scope.load(tmp_path / "b.npz").weights, scope.weights)
    (tmp_path / "c.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"."):
        Scope.load(tmp_path / "c.npz")


def test_the_p_value_of_a_refusal_is_the_share_of_chests_that_score_lower(scope: Scope) -> None:
    reason = scope.refusal(np.random.default_rng(5).integers(0, 256, (256, 256), np.uint8))
    assert reason is not None
    assert reason.p_value is not None
    assert 0 < reason.p_value < 0.02


def test_real_radiographs_that_were_never_fitted_are_in_scope_however_they_are_changed(scope: Scope, data: Path) -> None:
    rng = np.random.default_rng(7)
    chests = [image.pixels(data) for image in radiographs(["test"], kind="512")][::3]
    changes = {
        "as it is": lambda pixels: pixels,
        "inverted": lambda pixels: 255 - pixels,
        "cut to 80 %": lambda pixels: pixels[: int(0.9 * pixels.shape[0]), int(0.11 * pixels.shape[1]) :],
        "16 bits": lambda pixels: pixels.astype(np.uint16) * 201 + 9,
        "gamma": lambda pixels: np.rint(255 * (pixels / 255) ** 2).astype(np.uint8),
        "seen by somebody": lambda pixels: scope_fitting.viewed(pixels, rng),
        "112 pixels": lambda pixels: np.asarray(Image.fromarray(pixels).reduce(min(pixels.shape) // 112)),
    }
    for name, change in changes.items():
        share = np.mean([is_in(scope, change(pixels)) for pixels in chests])
        assert share >= 0.94, name


def test_most_fakes_of_strangers_are_in_scope(scope: Scope, data: Path) -> None:
    files = sorted((data / "fake_validation" / "acgan_112").glob("*.png"))
    assert files
    assert np.mean([is_in(scope, np.asarray(Image.open(file))) for file in files[::2]]) >= 0.9


def test_parts_of_chests_are_out_of_scope(scope: Scope, data: Path) -> None:
    rng = np.random.default_rng(8)
    chests = [image.pixels(data) for image in radiographs(["test"], kind="512")][::3]
    assert np.mean([is_in(scope, part(pixels, rng)) for pixels in chests]) <= 0.08


def test_a_fit_is_repeatable_and_tells_the_two_sides_apart(data: Path) -> None:
    chests = [image.pixels(data) for image in radiographs(["train"], kind="512")][::7]
    fitted = [scope_fitting.fit(chests[:20], chests[20:], views=2, made=4, seed=3) for _ in range(2)]
    assert np.array_equal(fitted[0].weights, fitted[1].weights)
    assert fitted[0].threshold == fitted[1].threshold
    rng = np.random.default_rng(9)
    hands = [fitted[0].score(KINDS["limbs"]["hand"](rng)) for _ in range(6)]
    assert max(hands) < np.median(fitted[0].held_out)


def test_a_fit_needs_both_kinds_of_radiographs() -> None:
    with pytest.raises(ValueError, match="hold out"):
        scope_fitting.fit([np.zeros((256, 256), np.uint8)], [])
