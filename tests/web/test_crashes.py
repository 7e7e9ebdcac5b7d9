"""A node that is killed at every write, between stage and publish too: what it had answered is in the log, once, in the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from ledger.core.trust import Trust
from ledger.log import check
from ledger.log.submission import OutOfOrder
from ledger.store import LogStore
from tests.web.nodes import ORIGIN, PUBLIC_KEY, Agent, Desk, trust, wait_until

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.web.nodes"])


def take(folder: Path, deadly: int) -> None:
    """Hands in what `folder` has, notes what was answered, and waits until all is in the log. Dies at the point."""
    lock, passed, writing = threading.Lock(), 0, set()

    def point() -> None:
        nonlocal passed
        with lock:
            if passed == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            passed += 1

    def statement(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        if text.split(" ", 1)[0] in ("INSERT", "UPDATE", "DELETE"):
            writing.add(id(connection))
            point()

    def commit(connection: Any) -> None:
        if id(connection) in writing:
            writing.discard(id(connection))
            point()

    requests = [[bytes.fromhex(part) for part in one] for one in json.loads((folder / "requests.json").read_text())]
    certificates = [bytes.fromhex(one) for one in json.loads((folder / "certificates.json").read_text())]
    believed = Trust.model_validate_json((folder / "trust.json").read_text())
    with Desk(folder, believed=believed) as desk:
        event.listen(desk.store.engine, "before_cursor_execute", statement)
        event.listen(desk.store.engine, "commit", commit)
        for number, entries in enumerate(requests):
            desk.node.submit("Site B", entries, certificates)
            with (folder / "answered").open("a") as answered:
                answered.write(f"{number}\n")
        wait_until(lambda: desk.queue.depth() == 0 and desk.queue.oldest() is None)


def ended(folder: Path, deadly: int) -> int | None:
    process = FORKS.Process(target=take, args=(folder, deadly))
    process.start()
    process.join(60)
    return process.exitcode


def test_killed_at_any_write_nothing_that_was_answered_is_lost_and_nothing_is_there_twice(tmp_path: Path) -> None:
    crashes = 0
    while True:
        folder = tmp_path / str(crashes)
        folder.mkdir()
        one, other = Agent(), Agent("p256")
        requests = [one.sign(2), [*other.sign(2), *one.sign(1)], one.sign(1)]
        (folder / "requests.json").write_text(json.dumps([[entry.hex() for entry in entries] for entries in requests]))
        (folder / "certificates.json").write_text(json.dumps([one.certificate.hex(), other.certificate.hex()]))
        (folder / "trust.json").write_text(trust().model_dump_json())
        code = ended(folder, crashes)
        with Desk(folder) as desk:
            answered = (folder / "answered").read_text().split() if (folder / "answered").exists() else []
            for number in answered:
                for entry in requests[int(number)]:
                    counter = int.from_bytes(entry[128:160], "big")
                    assert desk.submitted.held(entry[96:128], counter, counter)[counter].entry == entry
            for entries in requests:  # the sites hand in again what was not answered, and what was
                desk.node.submit("Site B", entries, [one.certificate, other.certificate])
            wait_until(lambda: desk.queue.depth() == 0)
            found = desk.entries()
            assert sorted(found) == sorted(entry for entries in requests for entry in entries)
            assert check(LogStore(desk.store), ORIGIN, PUBLIC_KEY).size == 6
            for agent, count in ((one, 4), (other, 2)):
                held = desk.submitted.held(agent.signer.key, 0, count)
                assert [found[held[counter].log_index or 0] for counter in range(count)] == [
                    held[counter].entry for counter in range(count)
                ]
        if code == 0:
            break
        assert code == -9
        crashes += 1
    assert crashes >= 20


def test_a_request_is_taken_whole_or_not_at_all_when_the_write_dies(tmp_path: Path) -> None:
    agent = Agent()
    with Desk(tmp_path, carries=False) as desk:
        desk.node.submit("Site B", agent.sign(1), [agent.certificate])
        entries = agent.sign(3)

        def fail(connection: Any, cursor: Any, text: str, parameters: Any, *_: Any) -> None:
            if text.startswith("INSERT INTO submitted "):
                raise OSError("the disk is gone")

        event.listen(desk.store.engine, "after_cursor_execute", fail)
        with pytest.raises(OSError, match="gone"):
            desk.node.submit("Site B", entries, [])
        event.remove(desk.store.engine, "after_cursor_execute", fail)
        with pytest.raises(OutOfOrder, match="the next one has counter 1"):
            desk.node.submit("Site B", entries[1:], [])
        assert len(desk.node.submit("Site B", entries, [])) == 3
