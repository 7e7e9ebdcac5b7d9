"""Many images and the evidence that a list names for them: read once, whatever the order, judged each by its own."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import trial
from benchmarks.trial import Trial
from ledger.core.evidence import Bundle
from ledger.core.manifest import Reader
from ledger.core.search import Subject
from ledger.core.verdict import Token
from ledger.wiring import verification
from ledger.wiring.assembly import images
from ledger.wiring.bundles import SUFFIX, read_bundle
from ledger.wiring.images import Found
from ledger.wiring.site import read_trust
from ledger.wiring.verification import Verifier

BUNDLES, IN_A_BUNDLE = 6, 4


class Named:
    """A `Finder` by the number in a file's name; it counts what it reads."""

    def __init__(self, made: Trial) -> None:
        self._folder, self.read = made.folder / "transmittal" / "evidence", Counter[str]()

    def named(self, path: str, subject: Subject) -> tuple[str, ...]:
        return (f"{int(Path(path).stem) // IN_A_BUNDLE:04}{SUFFIX}",)

    def load(self, name: str) -> Bundle:
        self.read[name] += 1
        return read_bundle(self._folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "EVIDENCE_SIZE", IN_A_BUNDLE)
        folder = tmp_path_factory.mktemp("trial") / "made"
        return trial.make(folder, BUNDLES * IN_A_BUNDLE, 16, 5, flat=False)[0]


@pytest.fixture
def shuffled(made: Trial) -> list[Found]:
    found = list(images([str(made.folder / "images")]))
    random.Random(1).shuffle(found)
    return found


def verifier(made: Trial, finder: Named) -> Verifier:
    return Verifier(read_trust(made.folder / "trust.toml"), finder=finder)


def in_order(made: Trial) -> dict[str, Token]:
    return {str(image.path): Token.DERIVED if trial.is_derived(image.visit) else Token.AUTHENTIC for image in made.images}


def test_named_evidence_is_read_once_for_all_images_and_results_keep_their_order(made: Trial, shuffled: list[Found]):
    finder = Named(made)
    results = list(verifier(made, finder).verify(shuffled, together=len(shuffled)))
    assert [result.path for result in results] == [found.path for found in shuffled]
    assert {result.path: result.verdict.token for result in results} == in_order(made)
    assert set(finder.read.values()) == {1}
    assert len(finder.read) == BUNDLES


def test_an_image_of_many_tiles_ends_what_is_kept_in_memory(made: Trial, shuffled: list[Found], monkeypatch):
    finder = Named(made)
    monkeypatch.setattr(verification, "TILES_KEPT", 1)
    results = verifier(made, finder).verify(shuffled, together=len(shuffled))
    first = [next(results), next(results)]
    assert sum(finder.read.values()) == len({finder.named(result.path, result.subject) for result in first if result.subject})
    assert {result.path: result.verdict.token for result in (*first, *results)} == in_order(made)


def test_an_unreadable_image_and_damaged_evidence_concern_no_other_image(made: Trial, shuffled: list[Found], tmp_path: Path):
    broken = tmp_path / "00000099.dcm"
    broken.write_bytes(made.images[0].path.read_bytes()[:1500])

    class Damaged(Named):
        def load(self, name: str) -> Bundle:
            return read_bundle(broken) if name.startswith("0002") else super().load(name)

    finder = Damaged(made)
    found = [*shuffled[:7], *images([str(broken)]), *shuffled[7:]]
    results = list(verifier(made, finder).verify(found, together=len(found)))
    assert [result.path for result in results] == [one.path for one in found]
    by_damaged = {str(image.path) for image in made.images if image.number // IN_A_BUNDLE == 2}
    for result in results:
        if result.path in by_damaged:
            assert result.verdict.token is Token.NOT_CHECKED
            assert "proves nothing" in result.verdict.reasons[0]
        elif result.path == str(broken):
            assert (result.verdict.token, result.subject) == (Token.NOT_CHECKED, None)
        else:
            assert result.verdict.token is in_order(made)[result.path]


def test_the_manifest_that_the_benchmark_makes_lists_what_is_there(made: Trial):
    with (made.folder / "transmittal" / "manifest.jsonl").open("rb") as file:
        listed = list(Reader(file))
    assert len(listed) == len(made.images)
    assert Counter((entry.subject, entry.visit) for entry in listed) == Counter(
        (trial.subject_of(image.visit), trial.visit_of(image.visit)) for image in made.images
    )
