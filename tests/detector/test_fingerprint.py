"""The device fingerprint, on images of *simulated* sensors: no real panel has been looked at."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from detector.augment import recoded, scaled
from detector.fingerprint import FEWEST, FOUND, Fingerprint, compare
from detector.pattern import Exposure, Traces, Unfit, flattened, residual
from tests.simulators.sensor import Sensor, chest, presented

SHAPE = (208, 240)
PANEL = Sensor.made(SHAPE, 1)
OTHER = Sensor.made(SHAPE, 2)


def images(panel: Sensor, first: int, count: int) -> list[np.ndarray]:
    return [panel.image(chest(SHAPE, seed), seed) for seed in range(first, first + count)]


def eight(stored: np.ndarray) -> np.ndarray:
    return (stored >> 4).astype(np.uint8)


@pytest.fixture(scope="module")
def enrolled() -> Fingerprint:
    return Fingerprint.of(images(PANEL, 0, 20), images(OTHER, 50, 8), sealed=True)


def test_an_image_of_the_device_has_its_pattern_and_one_of_another_has_not(enrolled: Fingerprint) -> None:
    assert enrolled.distinctive
    assert enrolled.unlike == ()
    for own in images(PANEL, 100, 6):
        match = compare(enrolled, own)
        assert match.word == "match"
        assert match.shift == (0, 0)
        assert match.pce is not None
        assert match.pce > 60
    for seed in range(6):
        foreign = Sensor.made(SHAPE, 10 + seed).image(chest(SHAPE, 200 + seed), seed)
        match = compare(enrolled, foreign)
        assert match.word == "no match"
        assert match.p_value == pytest.approx(1 / 21)
        assert match.text.startswith("this does not look like that device")


def test_the_same_patients_on_another_device_do_not_have_the_pattern(enrolled: Fingerprint) -> None:
    """What the pattern is estimated from is anatomy above all: none of it may stay."""
    assert "match" not in [compare(enrolled, foreign).word for foreign in images(OTHER, 0, 12)]


def test_a_grid_and_a_letter_that_all_images_have_are_no_fingerprint() -> None:
    def lettered(panel: Sensor, first: int, count: int) -> list[np.ndarray]:
        made = images(replace(panel, grid=0.05), first, count)
        for image in made:
            image[20:50, 20:26] = image[44:50, 20:40] = 4000
            image[20:50, 60:66] = image[44:50, 60:80] = 4095
        return made

    made = Fingerprint.of(lettered(PANEL, 0, 16))
    assert [compare(made, own).word for own in lettered(PANEL, 100, 3)] == ["match"] * 3
    assert "match" not in [compare(made, foreign).word for foreign in lettered(OTHER, 200, 5)]


def test_a_cropped_image_is_found_where_it_was_cut(enrolled: Fingerprint) -> None:
    own = images(PANEL, 110, 1)[0][31:191, 44:204]
    match = compare(enrolled, own)
    assert match.word == "match"
    assert match.shift == (31, 44)
    moved = np.roll(images(PANEL, 111, 1)[0], (-5, 7), (0, 1))
    assert compare(enrolled, moved).shift == (5, -7)


def test_a_turned_or_mirrored_image_is_found(enrolled: Fingerprint) -> None:
    own = images(PANEL, 120, 1)[0]
    for turned in (own[:, ::-1], own[::-1], np.rot90(own), np.rot90(own, 2), own.T):
        assert compare(enrolled, turned).word == "match"


def test_values_stored_the_other_way_round_make_no_difference(enrolled: Fingerprint) -> None:
    own, foreign = images(PANEL, 130, 1)[0], images(OTHER, 130, 1)[0]
    for image, word in ((own, "match"), (foreign, "no match")):
        plain = compare(enrolled, image)
        turned = compare(enrolled, Exposure(4095 - image, inverted=True))
        assert plain.word == turned.word == word
        assert plain.pce is not None
        assert turned.pce is not None
        assert turned.pce > 0.5 * plain.pce or word == "no match"


def test_an_image_that_was_reduced_whole_is_found(enrolled: Fingerprint) -> None:
    for factor in (0.7, 0.63):
        own, foreign = (scaled(eight(panel.image(chest(SHAPE, 135), 135)), factor) for panel in (PANEL, OTHER))
        assert compare(enrolled, own).word == compare(enrolled, own.T).word == "match"
        assert compare(enrolled, foreign).word == "no claim"


def test_an_image_that_was_changed_is_never_denied(enrolled: Fingerprint) -> None:
    """Its pattern may be lost, and then there is no claim; another device's changed image is none of this device either."""
    changes = {
        "half": lambda image: scaled(eight(image), 0.5),
        "there and back": lambda image: np.asarray(
            Image.fromarray(scaled(eight(image), 0.4)).resize(SHAPE[::-1], Image.Resampling.BICUBIC)
        ),
        "JPEG 30": lambda image: recoded(eight(image), "JPEG", 30),
        "JPEG 75": lambda image: recoded(eight(image), "JPEG", 75),
        "smooth": lambda image: ndimage.gaussian_filter(image.astype(np.float32), 1.5),
        "cut": lambda image: image[:150, :150],
    }
    for name, change in changes.items():
        for seed in (140, 141, 142):
            assert compare(enrolled, change(PANEL.image(chest(SHAPE, seed), seed))).word != "no match", name
            assert compare(enrolled, change(OTHER.image(chest(SHAPE, seed), seed))).word == "no claim", name


def test_blocks_of_a_codec_are_seen_where_the_grain_is_still_there() -> None:
    made = Fingerprint.of([presented(image) for image in images(PANEL, 0, 16)])
    for foreign in images(OTHER, 140, 3):
        match = compare(made, recoded(presented(foreign), "JPEG", 95))
        assert match.word == "no claim"
        assert "blocks" in match.text


def test_loss_that_the_file_tells_of_is_a_reason_to_say_nothing(enrolled: Fingerprint) -> None:
    foreign = images(OTHER, 150, 1)[0]
    assert compare(enrolled, foreign).word == "no match"
    match = compare(enrolled, Exposure(foreign, lossy=True))
    assert match.word == "no claim"
    assert "loss" in match.text
    assert compare(replace(enrolled, lossy=True), Exposure(foreign, lossy=True)).word == "no match"


def test_another_size_gives_no_claim(enrolled: Fingerprint) -> None:
    larger = Sensor.made((260, 260), 5).image(chest((260, 260), 1), 1)
    assert compare(enrolled, larger).word == "no claim"
    assert "260 x 260" in compare(enrolled, larger).text


def test_images_presented_by_a_device_have_its_pattern_too() -> None:
    made = Fingerprint.of([presented(image) for image in images(PANEL, 0, 16)])
    assert [compare(made, presented(own)).word for own in images(PANEL, 100, 3)] == ["match"] * 3
    assert [compare(made, presented(foreign)).word for foreign in images(OTHER, 100, 3)] == ["no match"] * 3


def test_a_pattern_too_weak_is_said_so_at_enrolment_and_claims_nothing() -> None:
    weak = Fingerprint.of(images(Sensor.made(SHAPE, 1, strength=0.0002), 0, 16))
    assert not weak.distinctive
    assert "too weak" in (weak.refusal or "")
    for image in (*images(OTHER, 100, 2), *images(PANEL, 100, 2)):
        match = compare(weak, image)
        assert (match.word, match.p_value) == ("no claim", None)
        assert "distinctive" in match.text


def test_genuine_images_are_denied_no_more_often_than_their_p_value_says() -> None:
    """At the edge of what can be found, where the conformal promise has work to do."""
    panel = Sensor.made(SHAPE, 3, strength=0.0012)
    made = Fingerprint.of(images(panel, 0, 16))
    barely = replace(made, strengths=tuple(max(strength, FOUND) for strength in made.strengths))
    assert np.median(made.strengths) < 30
    words = [compare(barely, own).word for own in images(panel, 300, 40)]
    assert words.count("no match") <= 2
    assert words.count("match") >= 20


def test_an_image_of_another_device_among_the_enrolled_is_named() -> None:
    mixed = images(PANEL, 0, 20)
    mixed[7] = images(OTHER, 60, 1)[0]
    made = Fingerprint.of(mixed)
    assert made.unlike == (7,)
    mixed[8:10] = images(OTHER, 70, 2)
    made = Fingerprint.of(mixed)
    assert made.unlike == (7, 8, 9)
    assert "another device" in (made.refusal or "")


def test_one_exposure_counts_once_even_if_it_was_stored_twice() -> None:
    """Left out, it would still be there: the rest would have its noise, and every genuine image would look weak beside it."""
    twice = images(PANEL, 0, 16)
    twice[9] = (twice[4] * 0.9 + 30).astype(np.uint16)
    with pytest.raises(Unfit, match="image 10 is image 5 again"):
        Fingerprint.of(twice)


def test_a_pattern_that_other_devices_share_claims_nothing() -> None:
    sibling = PANEL.recalibrated(0.3, 9)
    made = Fingerprint.of(images(PANEL, 0, 16), images(sibling, 50, 3))
    assert "images of other devices" in (made.refusal or "")
    assert compare(made, images(PANEL, 100, 1)[0]).word == "no claim"


def test_the_rate_of_false_matches_is_a_bound_and_none_without_other_devices(enrolled: Fingerprint) -> None:
    assert enrolled.false_match_rate == pytest.approx(1 - 0.05 ** (1 / 8))
    assert replace(enrolled, others=()).false_match_rate is None


def test_a_panel_that_was_calibrated_anew_is_taken_for_another(enrolled: Fingerprint) -> None:
    """A limit that users are told of, not a wish."""
    assert compare(enrolled, images(PANEL.recalibrated(0.5, 4), 160, 1)[0]).word == "match"
    assert compare(enrolled, images(PANEL.recalibrated(1.0, 4), 160, 1)[0]).word == "no match"


def test_what_no_fingerprint_can_be_made_of_is_refused() -> None:
    good = images(PANEL, 0, FEWEST)
    with pytest.raises(Unfit, match="15 images"):
        Fingerprint.of(good[1:])
    with pytest.raises(Unfit, match=r"image 4 is 200 x 200, those before it are 240 x 208"):
        Fingerprint.of([*good[:3], good[3][:200, :200], *good[4:]])
    for odd in (
        np.zeros(SHAPE, np.uint16),
        np.full(SHAPE, np.nan, np.float32),
        np.zeros((3, *SHAPE), np.uint16),
        np.zeros((60, 400), np.uint16),
        np.zeros(SHAPE, np.complex64),
    ):
        with pytest.raises(Unfit):
            Fingerprint.of([*good[1:], odd])


def test_a_fingerprint_comes_back_from_its_file_as_it_was(enrolled: Fingerprint, tmp_path: Path) -> None:
    file = tmp_path / "one.npz"
    enrolled.save(file)
    again = Fingerprint.load(file)
    assert np.array_equal(again.pattern, enrolled.pattern)
    assert replace(again, pattern=enrolled.pattern).__dict__ == enrolled.__dict__
    own = images(PANEL, 170, 1)[0]
    assert compare(again, own) == compare(enrolled, own)


def test_a_file_that_holds_no_fingerprint_is_refused(enrolled: Fingerprint, tmp_path: Path) -> None:
    file = tmp_path / "one.npz"
    enrolled.save(file)
    content = file.read_bytes()
    short = replace(enrolled, strengths=enrolled.strengths[:3])
    odd = replace(enrolled, traces=(Traces(float("nan"), 0.0),) * 20)
    for number, made in enumerate((short, odd, replace(enrolled, pattern=enrolled.pattern.astype(np.int16)))):
        made.save(tmp_path / f"odd{number}.npz")
    held = io.BytesIO()
    np.savez(held, format=np.array({"a": 1}, dtype=object))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("pattern.npy", bytes(80_000_000))
    for number, wrong in enumerate((b"", b"nothing", content[:-200], pickle.dumps({}), held.getvalue(), bomb.getvalue())):
        (tmp_path / f"wrong{number}.npz").write_bytes(wrong)
    for wrong_file in sorted(tmp_path.glob("[ow]*[0-9].npz")):
        with pytest.raises(Unfit):
            Fingerprint.load(wrong_file)
    with pytest.raises(OSError):
        Fingerprint.load(tmp_path / "gone.npz")


def test_lines_and_lattices_are_taken_out_of_a_pattern() -> None:
    rows, columns = np.indices(SHAPE)
    grain = np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)
    lattice = np.cos(2 * np.pi * (columns / 8 + rows / 16)).astype(np.float32)
    lines = np.random.default_rng(2).normal(0, 1, SHAPE[1]).astype(np.float32)
    flat = flattened(grain + lattice + lines)
    assert np.abs(flat.mean(0)).max() < 0.02
    assert np.corrcoef(flat.ravel(), grain.ravel())[0, 1] > 0.8
    assert np.corrcoef(grain.ravel() + lattice.ravel(), lattice.ravel())[0, 1] > 0.5
    assert abs(np.corrcoef(flat.ravel(), lattice.ravel())[0, 1]) < 0.03


def test_places_that_were_overexposed_in_some_images_are_estimated_from_the_others() -> None:
    exposed = images(PANEL, 0, 16)
    for image in exposed[:12]:
        image[:, :100] = 4095
    pattern = Fingerprint.of(exposed).pattern.astype(np.float32)
    assert pattern[:, 20:80].std() > 0.9 * pattern[:, 120:].std()


def test_a_residual_is_noise_and_not_structure() -> None:
    """The same patient twice, with other noise: what both residuals have in common is the patient."""
    scene = chest(SHAPE, 1)
    signals = [panel.image(scene, 1) / np.float32(800) for panel in (PANEL, OTHER)]
    common = np.corrcoef(*(residual(signal.astype(np.float32)).ravel() for signal in signals))[0, 1]
    assert common < 0.25
    assert np.corrcoef(*(signal.ravel() for signal in signals))[0, 1] > 0.99
