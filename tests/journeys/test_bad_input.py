"""Whatever is wrong outside: one line that says what to do, the right exit code, no traceback, nothing lost."""

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.journeys.conftest import SCANSEAL, Site, copy_test_file, free_port


def one_line(done: subprocess.CompletedProcess) -> str:
    lines = [line for line in done.stderr.split("\n") if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("scanseal: ")
    return lines[0]


def two_gigabytes_declared(path: Path) -> bytes:
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OW\0\0")
    return data[: at + 8] + struct.pack("<I", 2**31 - 2) + data[at + 12 :]


@pytest.fixture
def hostile(site: Site, tmp_path: Path) -> Path:
    """Files that are no images, or bad ones."""
    whole = (site.folder / "made/CT_small.dcm").read_bytes()
    encapsulated = (site.folder / "made/examples_jpeg2k.dcm").read_bytes()
    start = encapsulated.index(b"\xff\x4f\xff\x51")
    files = {
        "empty.dcm": b"",
        "truncated.dcm": whole[: len(whole) // 2],
        "cut-in-header.dcm": whole[:600],
        "not-dicom.dcm": b"hello world" * 100,
        "magic-only.dcm": bytes(128) + b"DICM",
        "garbage-codestream.dcm": encapsulated[: start + 4] + bytes(2000) + encapsulated[start + 2004 :],
        "two-gigabytes.dcm": two_gigabytes_declared(site.folder / "made/CT_small.dcm"),
        "trailing.dcm": whole + b"and more",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_bad_images_are_not_checked_and_never_anything_else(site: Site, hostile: Path):
    for path in sorted(hostile.iterdir()):
        done = site.run("verify", path, "--json", expect=None)
        assert '"verdict": "AUTHENTIC"' not in done.stdout, path.name
        assert done.returncode in (1, 7), (path.name, done.returncode, done.stdout)
        # A damaged codestream is a changed picture; everything else cannot be read.
        assert done.returncode == 7 or path.name == "garbage-codestream.dcm"


def test_images_without_pixels_are_not_checked(site: Site, tmp_path: Path):
    copy_test_file("test-SR.dcm", tmp_path)
    copy_test_file("rtplan.dcm", tmp_path)
    assert set(site.verdicts(*tmp_path.iterdir(), expect=7).values()) == {"NOT_CHECKED"}


def test_sealing_goes_on_past_what_cannot_be_read(own_site: Site, tmp_path: Path):
    copy_test_file("CT_small.dcm", tmp_path)
    (tmp_path / "bad.dcm").write_bytes(bytes(128) + b"DICM" + b"\1" * 50)
    answer = own_site.json("seal", tmp_path / "CT_small.dcm", tmp_path / "bad.dcm", "--device", "ct1", expect=7)
    assert (answer["sealed"], answer["failed"]) == (1, 1)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", 7),
        (b"{}", 7),
        (b"[" * 100_000, 7),
        (b'{"format": 1, "format": 1}', 7),
        (b"\xff\xfe", 7),
        (b'{"format": "scanseal-bundle-1"}x', 7),
    ],
    ids=["empty", "no members", "deep", "repeated", "not utf-8", "trailing"],
)
def test_a_hostile_bundle_is_one_line_and_exit_code_7(site: Site, tmp_path: Path, text: bytes, code: int):
    (tmp_path / "hostile.seal.json").write_bytes(text)
    done = site.run("verify", "made/CT_small.dcm", "--bundle", tmp_path / "hostile.seal.json", "--offline", expect=code)
    assert "hostile.seal.json" in one_line(done)


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["verify", "no-such-file.dcm", "--nonsense"],
        ["verify", "made", "--bundle", "no-such-bundle.json"],
        ["verify", "made", "--trust", "no-such-trust.toml"],
        ["seal", "made"],
        ["seal", "made", "--device", "nobody"],
        ["seal", "made", "--device", "../ct1"],
        ["seal", "made", "--device", "ct1", "--hash", "md5"],
        ["device", "revoke", "ct1", "--compromised-since", "yesterday"],
        ["device", "revoke", "nobody", "--compromised-since", "now"],
        ["device", "revoke", "ct1", "--compromised-since", "2999-01-01"],
        ["device", "approve", "nobody"],
        ["device", "approve", "ct1", "--roles", "king"],
        ["bundle", "export", "no-such-file.dcm"],
        ["trust", "init", "trust.toml"],
        ["init", "."],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_or_7_and_changes_nothing(site: Site, arguments: list[str]):
    done = site.run(*arguments, expect=None)
    assert done.returncode in (2, 7), (done.returncode, done.stderr)
    assert done.stderr.strip()


def test_a_missing_file_is_not_checked(site: Site):
    done = site.run("verify", "no-such-file.dcm", "--json", expect=7)
    assert "NOT_CHECKED" in done.stdout


def test_an_empty_folder_is_a_usage_error(site: Site, tmp_path: Path):
    assert "no images" in one_line(site.run("verify", tmp_path, expect=2))


def test_without_a_site_every_command_says_what_to_do(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if name != "SCANSEAL_SITE"}
    for arguments in (["seal", ".", "--device", "x"], ["anchor"], ["verify", "."], ["device", "list"], ["devnet", "status"]):
        done = subprocess.run(
            [*SCANSEAL, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment
        )
        assert done.returncode == 2
        assert "scanseal init" in done.stderr or "--trust" in done.stderr


def test_a_chain_out_of_reach_is_exit_code_6_and_no_verdict(site: Site, tmp_path: Path):
    trust = tmp_path / "trust.toml"
    trust.write_text((site.folder / "trust.toml").read_text().replace(f":{site.port}", f":{free_port()}"))
    done = site.run("verify", "made", "--trust", trust, "--json", expect=6)
    assert '"AUTHENTIC"' not in done.stdout
    assert site.run("verify", "made", "--trust", trust, "--offline").returncode == 0


def test_sealing_does_not_wait_for_the_chain_and_anchoring_says_when(own_site: Site, tmp_path: Path):
    first, second = copy_test_file("CT_small.dcm", tmp_path / "a"), copy_test_file("MR_small.dcm", tmp_path / "b")
    own_site.run("seal", first, "--device", "ct1")
    own_site.run("devnet", "down")
    done = own_site.run("seal", second, "--device", "ct1")
    assert "last one seen" in done.stderr
    one_line(own_site.run("anchor", expect=6))
    own_site.run("devnet", "up")
    own_site.run("anchor")
    assert set(own_site.verdicts(tmp_path / "a", tmp_path / "b").values()) == {"AUTHENTIC"}


def test_a_wrong_chain_and_an_address_without_contract_are_errors_that_say_so(site: Site, own_site: Site):
    swapped = own_site.folder / "trust.toml"
    swapped.write_text(swapped.read_text().replace(f":{own_site.port}", f":{site.port}"))
    done = own_site.run("verify", site.folder / "made", "--json", expect=6)
    assert "another chain" in done.stdout
    text = swapped.read_text().replace(f":{site.port}", f":{own_site.port}")
    address = next(line for line in text.split("\n") if line.startswith("address"))
    swapped.write_text(text.replace(address, 'address = "0x' + "12" * 20 + '"', 1))
    assert "no contract" in one_line(own_site.run("anchor", expect=6))


def test_a_locked_database_is_try_later_and_nothing_is_lost(own_site: Site, tmp_path: Path):
    image = copy_test_file("CT_small.dcm", tmp_path)
    with sqlite3.connect(own_site.folder / "store.sqlite", isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert "locked" in one_line(own_site.run("seal", image, "--device", "ct1", expect=6))
        holder.execute("ROLLBACK")
    assert own_site.json("seal", image, "--device", "ct1")["sealed"] == 1


def test_a_full_disk_is_try_later_and_the_same_command_goes_on(own_site: Site, tmp_path: Path):
    images = [copy_test_file(name, tmp_path) for name in ("CT_small.dcm", "MR_small.dcm")]
    limit = 8192

    def full_disk() -> None:
        # A write past this size fails like a full disk; the default signal would end the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [*SCANSEAL, "seal", *map(str, images), "--device", "ct1"],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=full_disk,
        env=os.environ | {"SCANSEAL_SITE": str(own_site.folder)},
    )
    assert done.returncode == 6, (done.returncode, done.stderr)
    one_line(done)
    again = own_site.json("seal", *images, "--device", "ct1")
    assert again["sealed"] + again["already_sealed"] == 2
    own_site.run("anchor")
    assert set(own_site.verdicts(tmp_path).values()) == {"AUTHENTIC"}


def test_a_read_only_folder_is_an_error_that_says_so(own_site: Site, tmp_path: Path):
    image = copy_test_file("CT_small.dcm", tmp_path)
    for path in (*own_site.folder.glob("store.sqlite*"), own_site.folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [*SCANSEAL, "seal", str(image), "--device", "ct1"]
    if os.geteuid() == 0:
        # Root may write everywhere: give its power over files away.
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {"SCANSEAL_SITE": str(own_site.folder)}
    )
    for path in (own_site.folder, *own_site.folder.glob("store.sqlite*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "cannot be written" in one_line(done) or "read-only" in one_line(done)


def has_open(pid: int, name: str) -> bool:
    """Whether a process has a file of this name open."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(link.readlink()))
    return any(link.endswith(name) for link in links)


def test_an_interrupt_loses_nothing_and_is_no_verdict(own_site: Site, tmp_path: Path):
    for number in range(300):
        copy_test_file("CT_small.dcm", tmp_path / f"{number:03}")
    process = subprocess.Popen(
        [*SCANSEAL, "seal", str(tmp_path), "--device", "ct1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SCANSEAL_SITE": str(own_site.folder)},
    )
    while not has_open(process.pid, "store.sqlite") and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    # Interrupted while the interpreter shuts down, after the work, the process ends by the signal itself: 130 in a shell, too.
    assert process.returncode in (0, 130, -signal.SIGINT)
    assert "Traceback" not in said or process.returncode == -signal.SIGINT
    again = own_site.json("seal", tmp_path, "--device", "ct1")
    assert again["failed"] == 0
    own_site.run("anchor")
    assert own_site.json("log", "check")["size"] == 1


def test_a_reader_that_goes_away_is_no_verdict(site: Site):
    done = subprocess.run(
        f"{sys.executable} -m ledger.cli verify {site.folder / 'made'} | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        executable="/bin/bash",
        env=os.environ | {"SCANSEAL_SITE": str(site.folder)},
    )
    assert "Traceback" not in done.stderr


def test_a_wrong_passphrase_is_an_error_that_says_so(site: Site):
    done = site.run("seal", "made", "--device", "ct1", expect=2, env={"SCANSEAL_PASSPHRASE": "wrong"})
    assert "passphrase" in one_line(done)


def test_two_anchor_runs_at_once_do_not_sequence_twice(own_site: Site, tmp_path: Path):
    for number, name in enumerate(("CT_small.dcm", "MR_small.dcm", "JPEG-lossy.dcm")):
        own_site.run("seal", copy_test_file(name, tmp_path / str(number)), "--device", "ct1")
    environment = os.environ | {"SCANSEAL_SITE": str(own_site.folder)}
    runs = [
        subprocess.Popen([*SCANSEAL, "anchor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    codes = sorted(run.wait(timeout=120) for run in runs)
    assert codes in ([0, 0], [0, 6])
    assert own_site.json("log", "check")["size"] == 3


def test_square_brackets_in_names_are_text(site):
    folder = site.folder / "[bold]"
    folder.mkdir()
    shutil.copy(site.folder / "made" / "CT_small.dcm", folder / "[red] x.dcm")
    assert "[bold]/[red] x.dcm" in site.run("verify", "[bold]").stdout
    assert "[/red]" in site.run("verify", "[/red]", expect=7).stdout
