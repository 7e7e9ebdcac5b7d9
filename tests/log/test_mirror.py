"""The static mirror: complete, resumable, never ahead of its checkpoint; and the check that finds what is wrong in one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from appender import KEY, ORIGIN, PUBLIC_KEY, entry

from ledger.core import merkle
from ledger.core.checkpoint import Checkpoint, sign
from ledger.core.errors import EvidenceInvalid, FixInput, Stop
from ledger.log import Log, Mirror, check
from ledger.store import LogStore, Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def log(store: Store) -> Log:
    made = Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)
    made.append([entry(number) for number in range(70_000)])
    return made


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of 1,500 entries; tests copy it and damage the copy."""
    folder = tmp_path_factory.mktemp("pristine")
    store = open_store(folder / "store.db")
    log = Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)
    log.append([entry(number) for number in range(1500)])
    log.export(folder / "mirror")
    store.close()
    return folder / "mirror"


@pytest.fixture
def mirror(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "mirror"))


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_mirror_of_70000_has_the_files_of_the_specification(log: Log, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    assert log.export(folder) == log.head() == check(folder, ORIGIN, PUBLIC_KEY)
    found = files(folder)
    assert len(found) == 1 + 273 + 1 + 1 + 1 + 1 + 274
    for name in ("tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/273.p/112"):
        assert name in found
    assert (folder / "checkpoint").read_text() == log.checkpoint()
    assert (folder / "tile/0/000").stat().st_size == 8192
    # An entry bundle, read as the specification says it.
    bundle = (folder / "tile/entries/001").read_bytes()
    assert bundle[:2] == (352).to_bytes(2, "big")
    assert bundle[2:354] == entry(256)
    assert len(bundle) == 256 * 354


def test_exporting_again_writes_only_what_is_new(log: Log, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    log.export(folder)
    before = files(folder)
    log.export(folder)
    assert files(folder) == before
    log.append([entry(number) for number in range(70_000, 70_200)])
    log.export(folder)
    after = files(folder)
    assert check(folder, ORIGIN, PUBLIC_KEY).size == 70_200
    # The partial tiles became full ones and went away; all other files were left alone.
    assert set(before) - set(after) == {"tile/0/273.p/112", "tile/entries/273.p/112"}
    assert {name for name in after if before.get(name) != after[name]} == {
        "checkpoint",
        "tile/0/273",
        "tile/0/274.p/56",
        "tile/1/001.p/18",
        "tile/entries/273",
        "tile/entries/274.p/56",
    }


def test_a_lost_file_is_written_again(log: Log, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    log.export(folder)
    (folder / "tile/0/017").unlink()
    (folder / "tile/entries/200").unlink()
    log.export(folder)
    check(folder, ORIGIN, PUBLIC_KEY)


DYING_EXPORT = """
import os, signal, sys
from pathlib import Path
from appender import KEY, ORIGIN, PUBLIC_KEY
from ledger.log import Log
from ledger.store import LogStore, open_store
left = int(sys.argv[3])
def audit(event, arguments):
    global left
    if event == "os.rename":
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
log = Log(LogStore(open_store(sys.argv[1])), ORIGIN, PUBLIC_KEY, KEY.sign)
sys.addaudithook(audit)
log.export(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("renames", [0, 1, 100, 274, 275, 550])
def test_an_export_that_died_shows_no_checkpoint_and_is_resumed(log: Log, tmp_path: Path, renames: int) -> None:
    folder = tmp_path / "mirror"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", DYING_EXPORT, str(tmp_path / "store.db"), str(folder), str(renames)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    with pytest.raises(EvidenceInvalid, match="checkpoint is missing"):
        check(folder, ORIGIN, PUBLIC_KEY)
    done = {name: time for name, time in files(folder).items() if not name.rpartition("/")[2].startswith(".")}
    assert len(done) == renames
    log.export(folder)
    after = files(folder)
    assert {name: after[name] for name in done} == done
    assert len(after) == 552
    check(folder, ORIGIN, PUBLIC_KEY)


def test_a_mirror_that_is_ahead_shows_that_the_store_was_rolled_back(tmp_path: Path, mirror: Path) -> None:
    store = open_store(tmp_path / "old.db")
    old = Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)
    old.append([entry(number) for number in range(1400)])
    with pytest.raises(Stop, match=r"has 1500 leaves and the log only 1400: .* do not append"):
        old.export(mirror)
    old.append([b"another history"] * 200)
    with pytest.raises(Stop, match="disagree on the root of size 1500: the log has two histories"):
        old.export(mirror)
    check(mirror, ORIGIN, PUBLIC_KEY)
    store.close()


def test_another_logs_folder_is_left_alone(log: Log, tmp_path: Path, mirror: Path) -> None:
    (mirror / "checkpoint").write_text("a letter\n")
    before = files(mirror)
    with pytest.raises(FixInput, match="holds something else than a mirror"):
        log.export(mirror)
    assert files(mirror) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(FixInput, match="not a folder for a mirror"):
        log.export(tmp_path / "file")


def test_an_empty_log_has_a_mirror(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign).export(tmp_path / "mirror")
    assert check(tmp_path / "mirror", ORIGIN, PUBLIC_KEY).size == 0
    store.close()


# ---- check ----------------------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def found_by_check(mirror: Path) -> tuple[str, str]:
    with pytest.raises(EvidenceInvalid) as caught:
        check(mirror, ORIGIN, PUBLIC_KEY)
    return caught.value.step, str(caught.value)


def test_a_changed_entry_is_named(mirror: Path) -> None:
    flip(mirror / "tile/entries/003", 354 * 100 + 50)
    step, message = found_by_check(mirror)
    assert (step, message) == ("tiles", "leaf 868 in tile/0/003 is not the hash of its entry in tile/entries/003")


def test_a_changed_leaf_hash_is_named(mirror: Path) -> None:
    flip(mirror / "tile/0/005.p/220", 32 * 219 + 31)
    step, message = found_by_check(mirror)
    assert step == "tiles"
    assert message == "leaf 1499 in tile/0/005.p/220 is not the hash of its entry in tile/entries/005.p/220"


def test_a_changed_higher_tile_is_named(mirror: Path) -> None:
    flip(mirror / "tile/1/000.p/5", 32 * 3)
    assert found_by_check(mirror) == ("tiles", "tile/1/000.p/5: hash 3 is not the root of tile/0/003")


@pytest.mark.parametrize("name", ["tile/entries/002", "tile/entries/005.p/220", "tile/0/004", "tile/1/000.p/5"])
def test_a_missing_file_is_named(mirror: Path, name: str) -> None:
    (mirror / name).unlink()
    assert found_by_check(mirror) == ("tiles", f"{name} is missing")


@pytest.mark.parametrize("name", ["tile/entries/002", "tile/0/004", "tile/1/000.p/5"])
@pytest.mark.parametrize("change", ["cut", "longer", "empty", "folder"])
def test_a_file_of_the_wrong_length_is_named(mirror: Path, name: str, change: str) -> None:
    path = mirror / name
    content = path.read_bytes()
    if change == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"cut": content[:-1], "longer": content + b"\0\0", "empty": b""}[change])
    step, message = found_by_check(mirror)
    assert (step, message.startswith(name)) == ("tiles", True), message


def test_a_rewritten_history_does_not_have_the_signed_root(mirror: Path, tmp_path: Path) -> None:
    """Entries and tiles that agree with each other, under the old checkpoint."""
    store = open_store(tmp_path / "forged.db")
    forged = Log(LogStore(store), ORIGIN, PUBLIC_KEY, KEY.sign)
    forged.append([b"forged", *(entry(number) for number in range(1, 1500))])
    forged.export(tmp_path / "forged")
    (tmp_path / "forged/checkpoint").write_bytes((mirror / "checkpoint").read_bytes())
    step, message = found_by_check(tmp_path / "forged")
    assert (step, message) == ("root", "the root of the 1500 entries is not the one that the checkpoint signs")
    store.close()


def test_a_checkpoint_that_claims_more_or_fewer_entries_is_caught(mirror: Path) -> None:
    root = merkle.root_of([merkle.leaf_hash(entry(number)) for number in range(1500)])
    (mirror / "checkpoint").write_text(sign(Checkpoint(ORIGIN, 1501, root), PUBLIC_KEY, KEY.sign))
    assert found_by_check(mirror) == ("tiles", "tile/entries/005.p/221 is missing")
    (mirror / "checkpoint").write_text(sign(Checkpoint(ORIGIN, 1499, root), PUBLIC_KEY, KEY.sign))
    assert found_by_check(mirror)[0] == "root"


def test_a_checkpoint_of_another_key_or_no_text_is_caught(mirror: Path) -> None:
    with pytest.raises(EvidenceInvalid, match="no signature by key"):
        check(mirror, ORIGIN, bytes(32))
    (mirror / "checkpoint").write_bytes(b"\xff\xfe")
    assert found_by_check(mirror) == ("checkpoint", "not a checkpoint: it is not UTF-8")
    (mirror / "checkpoint").unlink()
    assert found_by_check(mirror) == ("checkpoint", "checkpoint is missing")


def test_proofs_come_from_a_mirror_as_well(mirror: Path) -> None:
    tiles = Mirror(mirror).tiles
    head = check(mirror, ORIGIN, PUBLIC_KEY)
    for index in (0, 700, 1499):
        proof = merkle.inclusion_from_tiles(index, head.size, tiles)
        merkle.verify_inclusion(merkle.leaf_hash(entry(index)), index, head.size, proof, head.root)
    # An older size than any partial tile that is still there.
    assert merkle.root_from_tiles(1300, tiles) == merkle.root_of([merkle.leaf_hash(entry(at)) for at in range(1300)])


def test_checking_takes_flat_memory(log: Log, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    log.export(folder)
    tracemalloc.start()
    check(folder, ORIGIN, PUBLIC_KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 70,000 entries are 24.6 MB.
    assert peak < 6_000_000
