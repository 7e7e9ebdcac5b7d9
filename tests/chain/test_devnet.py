"""The local chain outlives its starter, keeps its state, and every command on it can be repeated."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.chain import Endpoint, deploy
from ledger.chain.devnet import Devnet, Kind, _free_port, _places, account, find_binary, make_block
from ledger.core.errors import FixInput, LedgerUnavailable
from tests.chain.conftest import Chain, fresh


@pytest.fixture(params=["anvil", "ganache"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if find_binary(request.param, _places()) is None:
        if os.environ.get("CI"):
            pytest.fail(f"no {request.param} here")
        pytest.skip(f"no {request.param} here")
    return request.param


@pytest.fixture
def devnet(tmp_path: Path) -> Iterator[Devnet]:
    made = Devnet(tmp_path / "devnet")
    yield made
    made.down()


def chain(devnet: Devnet, url: str) -> Chain:
    return Chain("devnet", devnet, url, deploy([Endpoint(url)], account()))


def test_up_and_down_can_be_repeated(devnet: Devnet, kind: Kind) -> None:
    assert devnet.status() is None
    assert devnet.down() is None
    first = devnet.up(kind=kind)
    assert first.running
    assert first.kind == kind
    assert devnet.up() == first == devnet.status()
    down = devnet.down()
    assert down is not None
    assert not down.running
    assert devnet.down() == down == devnet.status()


def test_state_and_identity_survive_restarts(devnet: Devnet, kind: Kind) -> None:
    """Also the genesis hash, which every trust file names: anvil by itself makes a new one at each start."""
    made = chain(devnet, devnet.up(kind=kind).url)
    ledger = made.ledger()
    log = ledger.open_log(fresh())
    anchored = ledger.anchor(log, 0, 3, b"\3" * 32, [])
    for _ in range(3):
        devnet.down()
        again = devnet.up()
        assert again.url == made.url
        ledger = made.ledger()
        seen = ledger.sighting(log, 3)
        assert seen is not None
        assert seen.block_hash == anchored.block_hash
        make_block(Endpoint(again.url))
        assert abs(ledger.beacon().header.timestamp - time.time()) < 5
    assert ledger.facts_at(anchored.block_number, sizes=[(log, 3)]).anchors[log, 3] != bytes(32)


def test_a_killed_chain_comes_up_again_with_what_it_had_written(devnet: Devnet, kind: Kind) -> None:
    made = chain(devnet, devnet.up(kind=kind).url)
    time.sleep(2)  # anvil writes once a second
    status = devnet.status()
    assert status is not None
    os.killpg(status.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while devnet.status().running:  # type: ignore[union-attr]
        assert time.monotonic() < deadline
    assert devnet.up().block == status.block
    made.ledger()


def test_it_outlives_the_program_that_started_it(devnet: Devnet, tmp_path: Path) -> None:
    program = (
        f"from pathlib import Path; from ledger.chain.devnet import Devnet; Devnet(Path({str(tmp_path / 'devnet')!r})).up()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    status = devnet.status()
    assert status is not None
    assert status.running
    stopped = devnet.down()
    assert stopped is not None
    assert not stopped.running


def test_another_process_with_the_old_number_is_left_alone(devnet: Devnet, tmp_path: Path) -> None:
    status = devnet.up()
    devnet.down()
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    path = tmp_path / "devnet" / "devnet.json"
    path.write_text(path.read_text().replace(f'"pid": {status.pid}', f'"pid": {stranger.pid}'))
    known = devnet.status()
    assert known is not None
    assert not known.running
    devnet.down()
    assert stranger.poll() is None
    assert devnet.up().running
    stranger.kill()
    stranger.wait()


def test_two_starts_at_once_give_one_chain(devnet: Devnet, tmp_path: Path) -> None:
    folder = str(tmp_path / "devnet")
    program = f"from pathlib import Path; from ledger.chain.devnet import Devnet; print(Devnet(Path({folder!r})).up().pid)"
    starts = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(2)]
    pids = {start.communicate(timeout=60)[0] for start in starts}
    assert len(pids) == 1


def test_it_listens_on_loopback_only(devnet: Devnet) -> None:
    port = int(devnet.up().url.rpartition(":")[2])
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))  # would be taken if it listened on all interfaces


def test_a_taken_port_and_a_missing_program_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FixInput, match=f"port {port} .* is taken"):
            Devnet(tmp_path / "a").up(port)
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("SCANSEAL_ANVIL", "SCANSEAL_GANACHE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(FixInput, match="npm install @foundry-rs/anvil"):
        Devnet(tmp_path / "b", search=[tmp_path]).up()
    monkeypatch.setenv("SCANSEAL_ANVIL", str(tmp_path / "nothing"))
    with pytest.raises(FixInput, match="SCANSEAL_ANVIL names"):
        Devnet(tmp_path / "b").up()


def test_programs_are_found_by_variable_path_and_node_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {}
    for place in ("named", "on_path", "project/node_modules/.bin"):
        made[place] = tmp_path / place / "anvil"
        made[place].parent.mkdir(parents=True)
        made[place].write_text("#!/bin/sh\n")
        made[place].chmod(0o755)
    monkeypatch.setenv("SCANSEAL_ANVIL", str(made["named"]))
    monkeypatch.setenv("PATH", str(tmp_path / "on_path"))
    search = [tmp_path / "project"]
    assert find_binary("anvil", search) == made["named"]
    monkeypatch.delenv("SCANSEAL_ANVIL")
    assert find_binary("anvil", search) == made["on_path"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary("anvil", search) == made["project/node_modules/.bin"]
    assert find_binary("ganache", search) is None


def test_a_chain_that_does_not_come_up_leaves_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "anvil"
    broken.write_text("#!/bin/sh\necho 'cannot open the state file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("SCANSEAL_ANVIL", str(broken))
    with pytest.raises(LedgerUnavailable, match="cannot open the state file"):
        Devnet(tmp_path / "devnet").up()


def test_a_broken_status_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "devnet.json").write_text("{")
    with pytest.raises(FixInput, match=r"devnet\.json is not readable"):
        Devnet(tmp_path).status()


def test_a_wrong_port_is_not_taken_for_ours(devnet: Devnet, tmp_path: Path) -> None:
    """Something else that answers on the port of a chain that died is not our chain."""
    status = devnet.up()
    other = Devnet(tmp_path / "other")
    copied = tmp_path / "other"
    copied.mkdir()
    shutil.copy(tmp_path / "devnet" / "devnet.json", copied)
    path = copied / "devnet.json"
    path.write_text(path.read_text().replace(f'"pid": {status.pid}', f'"pid": {os.getppid() + 4_000_000}'))
    known = other.status()
    assert known is not None
    assert not known.running
    assert _free_port() > 0
