"""The log for everybody: the paths and bytes of the static mirror, anchors, headers; and problems for all that is wrong."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import get_args

import httpx
import pytest

from ledger.core import checkpoint, merkle
from ledger.core.contracts import Beacon
from ledger.core.evidence import State
from ledger.log.anchoring import AnchorRow
from ledger.web import Limits
from ledger.wiring.standing import Word
from tests.web.nodes import ORIGIN, PUBLIC_KEY, Agent, Desk
from tests.web.test_records import problem

PROOF = State(header=b"\xc0header", nodes=(b"one", b"two"))


def fill(desk: Desk, count: int) -> None:
    desk.log.append(Agent().sign(count))


@pytest.mark.parametrize("size", [1, 300])
def test_the_paths_and_bytes_are_those_of_the_static_mirror(desk: Desk, web: httpx.Client, tmp_path: Path, size: int) -> None:
    fill(desk, size)
    mirror = tmp_path / "mirror"
    desk.log.export(mirror)
    files = sorted(str(path.relative_to(mirror)) for path in mirror.rglob("*") if path.is_file())
    assert len(files) >= 3
    for name in files:
        answer = web.get(f"/v1/{name}")
        assert (answer.status_code, answer.content) == (200, (mirror / name).read_bytes()), name
        if name != "checkpoint":
            assert answer.headers["content-type"] == "application/octet-stream"
    # Narrower ones, as a reader of an older checkpoint asks for them.
    assert web.get("/v1/tile/0/000.p/1").content == web.get(f"/v1/{merkle.tile_at(0, 0, size).path}").content[:32]
    assert merkle.unpack_entries(web.get("/v1/tile/entries/000.p/1").content) == [desk.log.entry(0)]
    assert checkpoint.parse_and_verify(web.get("/v1/checkpoint").text, ORIGIN, PUBLIC_KEY) == desk.log.head()


def test_an_empty_log_has_a_checkpoint_of_nothing(desk: Desk, web: httpx.Client) -> None:
    assert checkpoint.parse_and_verify(web.get("/v1/checkpoint").text, ORIGIN, PUBLIC_KEY).size == 0
    assert web.get("/v1/tile/0/000.p/1").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *(
            "0/000",
            "0/000.p/4",
            "0/001.p/1",
            "1/000.p/1",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/03",
            "0/0",
            "0/x000/000.p/1",
            "0/00a",
        ),
        *("entries/000", "entries/000.p/4", "entries/001", "entries/x000/000", "entries/", "7/x999/x999/x999/x999/999"),
        *("0/%2e%2e/000", "0/000.p/1/", "0/000.p/1/x"),
    ],
)
def test_a_tile_that_the_log_has_not_is_not_there(desk: Desk, web: httpx.Client, path: str) -> None:
    fill(desk, 3)
    answer = web.get(f"/v1/tile/{path}")
    assert (answer.status_code, problem(answer)) in ((404, "no-such-tile"), (404, "not-found"))


def row(new_size: int, old_size: int, state: str = "final", proof: State | None = PROOF) -> AnchorRow:
    beacons = (Beacon(7, b"\7" * 32),)
    return AnchorRow(new_size, old_size, f"note {new_size}", beacons, state, 9, b"\1" * 32, 1000, 50_000, proof, 5, 990)  # type: ignore[arg-type]


def test_anchors_are_those_that_are_final_and_proven_after_a_size(desk: Desk, web: httpx.Client) -> None:
    for one in (row(3, 0), row(5, 3), row(9, 5, "included", None), row(9 + 1, 5, "final", None)):
        desk.anchors.put(one)
    answer = web.get("/v1/anchors").json()
    assert [(one["old_size"], one["new_size"]) for one in answer["anchors"]] == [(0, 3), (3, 5)]
    assert answer["more"] is False
    assert State.model_validate(answer["anchors"][0]["proof"]) == PROOF
    assert answer["anchors"][0]["beacons"] == [{"number": 7, "hash": "0x" + "07" * 32}]
    assert [one["new_size"] for one in web.get("/v1/anchors?after=3").json()["anchors"]] == [5]
    for wrong in ("-1", "x", str(1 << 70)):
        assert problem(web.get(f"/v1/anchors?after={wrong}")) == "input"
    for size in range(20, 60):
        desk.anchors.put(row(size, size - 1))
    sizes, after, more = [], 5, True
    while more:
        page = web.get(f"/v1/anchors?after={after}").json()
        sizes += [one["new_size"] for one in page["anchors"]]
        after, more = sizes[-1], page["more"]
    assert sizes == list(range(20, 60))


def test_a_record_is_as_far_as_its_furthest_anchor(desk: Desk, web: httpx.Client) -> None:
    agent = Agent()
    desk.node.submit("Site B", agent.sign(2), [agent.certificate])
    entries = desk.submitted.held(agent.signer.key, 0, 1)
    desk.queue.note_indices({placed.entry: counter for counter, placed in entries.items()})

    def states() -> list[str]:
        return [web.get("/v1/records/0x" + entries[counter].record_id.hex()).json()["state"] for counter in (0, 1)]

    assert states() == ["sequenced", "sequenced"]
    desk.anchors.put(row(1, 0, "sequenced", None))
    assert states() == ["sequenced", "sequenced"]
    desk.anchors.put(row(1, 0, "included", None))
    assert states() == ["included", "sequenced"]
    desk.anchors.put(row(2, 1, "safe", None))
    assert states() == ["safe", "safe"]
    desk.anchors.put(row(1, 0))
    assert states() == ["final", "safe"]


def test_a_header_that_was_kept_is_found_and_the_newest_is_asked_for(desk: Desk, web: httpx.Client) -> None:
    assert problem(web.get("/v1/headers/0x" + "07" * 32)) == "no-such-header"
    desk.anchors.keep_header(7, b"\7" * 32, b"header")
    assert base64.b64decode(web.get("/v1/headers/0x" + "07" * 32).json()["header"]) == b"header"
    answer = web.get("/v1/headers/newest")
    assert (answer.status_code, problem(answer)) == (503, "later")
    assert int(answer.headers["retry-after"]) >= 1
    desk.newest = b"newest"
    assert base64.b64decode(web.get("/v1/headers/newest").json()["header"]) == b"newest"


def test_every_error_is_a_problem(desk: Desk, web: httpx.Client) -> None:
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/records/", 404),
        ("GET", "/docs", 404),
        ("DELETE", "/v1/checkpoint", 405),
        ("GET", "/v1/records", 405),
        ("GET", "/v1/records/0xAB", 422),
        ("GET", "/v1/headers/0xAB", 422),
        ("GET", "/v1/tile/9/000", 422),
        ("GET", "/v1/evidence/AB", 422),
        ("PUT", "/v1/evidence/" + "ab" * 32, 401),
    ):
        answer = web.request(method, path)
        problem(answer)
        assert answer.status_code == status, (method, path)
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_error_that_nobody_expected_tells_nothing(desk: Desk, web: httpx.Client, monkeypatch) -> None:
    def fail() -> str:
        raise RuntimeError("SECRET")

    monkeypatch.setattr(desk.node, "checkpoint", fail)
    answer = web.get("/v1/checkpoint")
    assert (answer.status_code, problem(answer)) == (500, "internal")
    assert "SECRET" not in answer.text


def test_a_peer_that_asks_too_much_is_told_when_to_come_again(tmp_path: Path) -> None:
    from tests.web.nodes import serving

    with Desk(tmp_path, Limits(requests_per_s=1, burst=3)) as desk, serving(desk.app) as web:
        answers = [web.get("/v1/checkpoint") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert problem(answers[-1]) == "too-many"
        assert int(answers[-1].headers["retry-after"]) >= 1
        # Monitors are not kept out by it.
        assert web.get("/healthz").status_code == 200


def test_the_interface_is_described_with_examples(web: httpx.Client) -> None:
    found = web.get("/v1/openapi.json").json()
    assert found["paths"]["/v1/records"]["post"]["requestBody"]["content"]["application/json"]["schema"]["examples"]
    assert found["paths"]["/v1/records"]["post"]["security"] == [{"HTTPBearer": []}]
    for path, operations in found["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if path.startswith("/v1") and status.startswith(("4", "5")):
                    assert "example" in answer["content"]["application/problem+json"], (path, status)
    for schema in ("Place", "Deposits", "HeaderShown"):
        assert found["components"]["schemas"][schema]["examples"]


def test_health_and_metrics_tell_counts_and_nothing_else(desk: Desk, web: httpx.Client) -> None:
    agent, site = Agent(), desk.site()
    from tests.web.nodes import body, wait_until

    assert web.post("/v1/records", json=body(agent.sign(2), agent.certificate), headers=site).is_success
    assert web.post("/v1/records", content=b"{}", headers=site).status_code == 422
    wait_until(lambda: web.get("/healthz").json()["log_size"] == 2)
    health = web.get("/healthz").json()
    assert (health["well"], health["store_writable"], health["log_publishing"], health["queued"]) == (True, True, True, 0)
    assert health["last_anchor_age_s"] is None
    found = web.get("/metrics").text
    for line in (
        "scanseal_node_accepted_total 2.0",
        'scanseal_node_refused_total{reason="input"} 1.0',
        "scanseal_node_sequence_latency_seconds_count 2.0",
        "scanseal_node_queued_records 0.0",
        "scanseal_node_well 1.0",
    ):
        assert line in found
    assert agent.signer.key.hex() not in found


def test_a_log_that_is_not_published_any_more_is_not_well(idle: Desk, tmp_path: Path) -> None:
    agent = Agent()
    idle.node.submit("Site B", agent.sign(), [agent.certificate])
    now = idle.now
    idle.loop.status = _Status  # a loop that runs, and gets nowhere
    assert idle.node.health().is_well
    idle.now = lambda: now() + 60
    health = idle.node.health()
    assert (health.is_well, health.log_publishing, round(health.oldest_queued_s or 0) >= 60) == (False, False, True)


class _Status:
    last_error, queued, log_size, anchored_size, last_anchor_at, alarms = None, 1, 0, 0, None, ()


def test_the_manual_names_every_limit_problem_and_alarm() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "node.md").read_text(encoding="utf-8")
    for name, value in vars(Limits()).items():
        assert f"`{name}`" in manual, name
        assert re.search(rf"\b{value:.0f}\b", manual), (name, value)
    for word in ("token", "out-of-order", "key-forked"):
        assert f"`{word}`" in manual
    kept_elsewhere = (Path(__file__).parents[2] / "docs" / "anchoring.md").read_text(encoding="utf-8")
    for word in get_args(Word):
        assert f"| `{word}` |" in manual + kept_elsewhere, word
