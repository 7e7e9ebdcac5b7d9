"""Runs that are interrupted, that see other files than the last one, and that are long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger.audit.completeness import conclude, findings, rows
from ledger.audit.reconciling import BATCH, WEIGHT, Answer, Reconciling
from ledger.core.errors import EvidenceInvalid, FixInput, Stop, TryLater
from ledger.core.verdict import Token, Verdict
from ledger.store.audit import Workbook
from tests.audit import runner
from tests.audit.making import IDENTITY, Simulator, audited, entry, header, scan, scope, source

IMAGES = 400


def run(path: Path, images: int, *what: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(one for one in sys.path if one)}
    command = [sys.executable, runner.__file__, str(path), str(images), *what]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    finished = run(tmp_path_factory.mktemp("whole") / "book.sqlite", IMAGES)
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout))


@pytest.mark.parametrize("statement", [0, 5, 12, 20, 30, 60, 500, 900, 1195, 1215])
def test_a_run_that_was_killed_goes_on_and_comes_to_the_same(
    tmp_path: Path, uninterrupted: dict[str, Any], statement: int
) -> None:
    path = tmp_path / "book.sqlite"
    assert run(path, IMAGES, "die-at-statement", str(statement)).returncode == -9
    finished = run(path, IMAGES)
    assert finished.returncode == 0, finished.stderr
    again = json.loads(finished.stdout)
    examined = again.pop("examined"), uninterrupted["examined"]
    assert again == {name: value for name, value in uninterrupted.items() if name != "examined"}
    assert examined[0] in (0, examined[1]) or examined[0] % BATCH == examined[1] % BATCH
    assert (examined[0] < examined[1]) == (statement >= 500)


def test_a_second_run_examines_nothing_again(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    scans = [scan(f"{number}.dcm", number) for number in range(3)]
    audited(path, [source(header(), [entry(number) for number in range(3)])], scans).close()
    examiner, progress = Simulator(), []
    book = audited(path, [], scans, examiner, progress)
    assert (examiner.examined, progress, conclude(book, scope(), 0, 0).token) == ([], [3], "COMPLETE")
    book.close()


def test_a_file_that_was_changed_or_removed_since_is_not_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    entries = [entry("a"), entry("b")]
    audited(path, [source(header(), entries)], [scan("1.dcm", "a"), scan("2.dcm", "b"), scan("3.dcm", "b")]).close()
    examiner = Simulator()
    book = audited(path, [], [scan("1.dcm", "a", Token.ALTERED, stamp="2"), scan("2.dcm", "b")], examiner)
    result = conclude(book, scope(), 0, 0)
    assert examiner.examined == ["1.dcm"]
    assert [(one.kind, one.path) for one in result.findings] == [("image_not_in_order", "1.dcm")]
    assert (result.present, result.images) == (2, {"ALTERED": 1, "AUTHENTIC": 1})
    book.close()


def test_a_file_that_comes_twice_is_examined_once(tmp_path: Path) -> None:
    examiner = Simulator()
    book = audited(tmp_path / "book.sqlite", [source(header(), [entry("a")])], [scan("1.dcm", "a")] * (BATCH + 2), examiner)
    assert examiner.examined == ["1.dcm"]
    assert conclude(book, scope(), 0, 0).findings == ()
    book.close()


def test_a_name_that_is_no_text_is_a_row_that_any_report_takes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.dcm")
    book = audited(tmp_path / "book.sqlite", [source(header(), [entry("a")])], [scan(name, "b", reason=f"{name} is odd")])
    (row, _) = rows(book)
    assert (row.path, row.reasons) == ("caf\\xe9.dcm", ("caf\\xe9.dcm is odd",))
    for finding in findings(book, scope()):
        json.dumps(vars(finding), ensure_ascii=False).encode()
    book.close()


def test_thousands_of_blank_images_find_theirs(tmp_path: Path) -> None:
    """All have the same pixels: each is found by its instance, and what is unlisted among them stays so."""
    number_of = 2000
    entries = [entry(number, digest="blank") for number in range(number_of)]
    scans = [scan(f"{number:05d}.dcm", number, digest="blank") for number in range(number_of)]
    book = audited(tmp_path / "book.sqlite", [source(header(), entries)], [*scans, scan("zz.dcm", "no", digest="blank")])
    result = conclude(book, scope(), 0, 0)
    assert [(one.kind, one.path) for one in result.findings] == [("unexpected_image", "zz.dcm")]
    book.close()


def test_an_examiner_may_not_leave_out_what_proves_an_image() -> None:
    with pytest.raises(Stop, match="first one's slot"):
        Answer(Verdict(Token.AUTHENTIC, record_id=bytes(32)))


def test_an_examiner_that_fails_ends_the_run_and_loses_one_batch(tmp_path: Path) -> None:
    class Failing(Simulator):
        def examine(self, images: Any, find: Any) -> list[Answer]:
            if len(self.examined) >= BATCH:
                raise TryLater("the ledger is out of reach")
            return super().examine(images, find)

    path = tmp_path / "book.sqlite"
    scans = [scan(f"{number:03d}.dcm", number) for number in range(3 * BATCH)]
    entries = [entry(number) for number in range(3 * BATCH)]
    with pytest.raises(TryLater):
        audited(path, [source(header(), entries)], scans, Failing())
    with pytest.raises(TryLater, match="locked"):
        Workbook(path)


def test_heavy_images_are_examined_fewer_at_a_time(tmp_path: Path) -> None:
    """What one weighs decides how many are lost with an interrupted run: light ones are examined by the thousand."""
    batches: list[int] = []

    class Counting(Simulator):
        def examine(self, images: Any, find: Any) -> list[Answer]:
            batches.append(len(images))
            return super().examine(images, find)

    book = Workbook(tmp_path / "book.sqlite")
    book.begin(IDENTITY, 1000)
    book.load([source(header(), [entry(number) for number in range(200)])])
    scans = [(f"{number:03d}.dcm", "1", scan(f"{number:03d}.dcm", number)) for number in range(200)]
    weights = [WEIGHT // 100] * 150 + [WEIGHT, 3 * WEIGHT, 0] + [WEIGHT // 2] * 47
    Reconciling(book, Counting(), lambda one: weights[int(one.path[:3])]).examine(iter(scans), lambda done: None)
    assert batches == [101, 50, 1, 3, *[2] * 22, 1]
    assert conclude(book, scope(), 0, 0).images == {"AUTHENTIC": 200}
    book.close()


# ---- long ones --------------------------------------------------------------------------------------------------------


def peak_of(path: Path, images: int) -> int:
    """The memory of a process that audited so many images, kB at its largest."""
    finished = run(path, images, "measure")
    assert finished.returncode == 0, finished.stderr
    measured = json.loads(finished.stdout)
    assert (measured["token"], measured["present"], measured["rows"]) == ("COMPLETE", images, images)
    return int(measured["peak_kb"])


def test_ten_times_the_images_take_no_more_memory(tmp_path: Path) -> None:
    few, more = peak_of(tmp_path / "few.sqlite", 2000), peak_of(tmp_path / "more.sqlite", 20_000)
    assert more < few + 20_000, (few, more)
    assert more < 1_000_000


def test_a_workbook_of_another_audit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "book.sqlite"
    audited(path, [source(header(), [entry("a")])], []).close()
    book = Workbook(path)
    with pytest.raises(FixInput, match="another audit"):
        book.begin(IDENTITY + "'s neighbour", 1000)
    assert book.begin(IDENTITY, 5000) == (True, 1000)
    book.close()


def test_a_manifest_that_changed_after_it_was_verified_is_refused(tmp_path: Path) -> None:
    one, other = source(header(), [entry("a")]), source(header(), [entry("b")])
    book = Workbook(tmp_path / "book.sqlite")
    book.begin(IDENTITY, 0)
    with pytest.raises(EvidenceInvalid, match="changed while it was read"):
        book.load([type(one)(one.name, one.reader, other.digest)])
    assert book.begin(IDENTITY, 0)[0] is False
    book.close()
