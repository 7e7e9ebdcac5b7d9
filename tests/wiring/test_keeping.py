"""What stays in memory of shared evidence, and what is found beside an image file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ledger.core import evidence
from ledger.wiring.keeping import Beside, Kept
from tests.core.conftest import make_subject
from tests.simulators.ledger import World


def kept_of(asked: list[str], limit: int, weights: dict[str, int]) -> list[str]:
    """What had to be made, asking in this order."""
    made: list[str] = []
    kept: Kept[str] = Kept(limit)
    for key in asked:
        assert kept.get(key, lambda key=key: made.append(key) or key, weights.__getitem__) == key  # type: ignore[misc]
    return made


def test_what_was_asked_for_last_is_kept_up_to_its_weight():
    weights = {"a": 2, "b": 2, "c": 2, "heavy": 9}
    assert kept_of(["a", "b", "a", "b"], 4, weights) == ["a", "b"]
    assert kept_of(["a", "b", "a", "c", "a", "b"], 4, weights) == ["a", "b", "c", "b"]
    assert kept_of(["heavy", "heavy"], 4, weights) == ["heavy"]
    assert kept_of(["a", "heavy", "a"], 4, weights) == ["a", "heavy", "a"]


def test_what_could_not_be_made_is_tried_again():
    kept: Kept[int] = Kept(4)
    with pytest.raises(ZeroDivisionError):
        kept.get("a", lambda: 1 // 0, lambda _: 1)
    assert kept.get("a", lambda: 1, lambda _: 1) == 1


@pytest.fixture
def bundle() -> bytes:
    world = World()
    return evidence.write(world.anchored([world.seal(make_subject(1))]))


def test_an_images_own_evidence_goes_before_that_of_its_folder(tmp_path: Path, bundle: bytes):
    (tmp_path / "all.seal.json").write_bytes(bundle)
    (tmp_path / "own.dcm.seal.json").write_bytes(bundle)
    beside = Beside()
    assert len(beside.of(str(tmp_path / "other.dcm"))[0]) == 2
    bundles, profiles, damage = beside.of(str(tmp_path / "own.dcm"))
    assert (len(bundles), profiles, damage) == (1, {"px1-sha256"}, None)
    assert beside.of(str(tmp_path / "own.dcm"))[0][0] is bundles[0]
    assert len(beside.of(f"{tmp_path}/own.dcm!/inside")[0]) == 1


def test_evidence_that_was_changed_is_read_again_and_damaged_one_is_named(tmp_path: Path, bundle: bytes):
    file = tmp_path / "all.seal.json"
    file.write_bytes(bundle)
    beside = Beside()
    assert len(beside.of(str(tmp_path / "a.dcm"))[0]) == 1
    file.write_bytes(bundle[:-9])
    os.utime(file, ns=(1, 1))
    bundles, _, damage = beside.of(str(tmp_path / "a.dcm"))
    assert (bundles, "all.seal.json" in str(damage)) == ((), True)
