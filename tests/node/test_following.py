"""A site hands in to a node and proves what it has from there; a node that lies is found out, and nothing of it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger.core import contracts, merkle
from ledger.core.checkpoint import Checkpoint, sign
from ledger.core.errors import EvidenceInvalid, FixInput, LedgerDisagrees, NeedPermission, ScanSealError, Stop, TryLater
from ledger.core.proof import ProvenState
from ledger.log import Log, check
from ledger.log.following import AGAIN_S, HELD, HELD_AGAIN_S
from ledger.node.client import NodeClient
from ledger.store import LogStore, open_store
from tests.node.ends import Lie, Node, Site, running
from tests.web.nodes import LOG_KEY, ORIGIN, PUBLIC_KEY, Agent, wait_until


def settled(site: Site, count: int) -> None:
    """Everything handed in, in the log, anchored and taken over."""
    site.turn()
    wait_until(lambda: site.node.desk.log.head().size == count)
    known = site.anchors.final_size()
    if known < count:
        site.node.anchor(count, known)
    site.turn()
    assert site.states() == {"queued": 0, "logged": site.journal.counts()[0], "final": count}


def test_what_is_handed_in_is_followed_into_the_log_and_onto_the_chain(site: Site, node: Node) -> None:
    site.seal(3)
    site.turn()
    assert site.states() == {"queued": 3, "logged": 0, "final": 0}
    wait_until(lambda: node.desk.log.head().size == 3)
    site.turn()
    assert site.states() == {"queued": 0, "logged": 3, "final": 0}
    settled(site, 3)
    site.seal(600)
    settled(site, 603)
    assert check(LogStore(site.store), ORIGIN, PUBLIC_KEY) == node.desk.log.head()
    proof = site.log.inclusion_proof(400, 603)
    merkle.verify_inclusion(merkle.leaf_hash(node.desk.log.entry(400)), 400, 603, proof, node.desk.log.root(603))
    assert site.denounced == []


def test_a_site_that_dies_at_any_step_hands_in_again_and_nothing_is_there_twice(site: Site, node: Node) -> None:
    for _ in range(3):
        site.seal(2)
        site.following.hand_in()
        site.following = site.started()  # it knows nothing of what it handed in
        site.following.hand_in()
        site.following.follow()
        site.following = site.started()
    settled(site, 6)
    assert len(set(node.desk.entries())) == 6


def test_records_of_others_are_in_the_copy_and_have_no_place_in_the_journal(site: Site, node: Node) -> None:
    other = Agent()
    node.desk.node.submit("Site C", other.sign(5), [other.certificate])
    wait_until(lambda: node.desk.log.head().size == 5)
    site.seal(2)
    settled(site, 7)
    assert site.journal.next_index() == 7
    assert site.states()["logged"] == 2


def test_a_key_that_the_node_refuses_keeps_no_other_from_being_handed_in(site: Site, node: Node) -> None:
    unknown = Agent()
    site.seal(2, unknown)
    site.seal(2)
    with pytest.raises(FixInput, match="no certificate of key"):
        site.following.hand_in()
    wait_until(lambda: node.desk.log.head().size == 2)
    site.certificates[unknown.signer.key] = unknown.certificate
    settled(site, 4)


def test_without_a_token_that_the_node_knows_nothing_is_handed_in(site: Site, node: Node) -> None:
    site.seal(1)
    node.desk.submitted.remove_client("Site B")
    with pytest.raises(NeedPermission, match="does not know this site's token"):
        site.turn()
    assert node.desk.submitted.every_key() == []


def test_of_two_agents_with_one_key_both_sign_no_more_until_the_operator_has_found_the_device(
    site: Site, node: Node, tmp_path: Path
) -> None:
    (tmp_path / "twin").mkdir()
    twin = Site(tmp_path / "twin", node, site.agent, "Site C")
    key = site.agent.signer.key
    site.seal(2)
    settled(site, 2)
    twin.seal(2)
    twin.turn()
    assert not twin.journal.barred(), "a copy of the site: the very same records contradict nothing"
    twin.seal(1, of="an image of the twin's")
    site.seal(1)
    site.turn()
    twin.turn()
    assert not site.journal.barred(), "it has handed in nothing since"
    site.seal(1)
    site.turn()
    barred = [one.journal.barred().get(key, "") for one in (site, twin)]
    assert all(why.startswith(HELD) and "two histories" in why for why in barred), barred
    for one in (site, twin):
        with pytest.raises(NeedPermission, match="signs nothing more from here"):
            one.seal(1)
        assert one.following.held.keys() == {key}
    node.desk.submitted.release(key)
    twin.store.close()
    site.following.hand_in()
    assert site.journal.barred(), "not before its time"
    site.now += HELD_AGAIN_S
    site.following.hand_in()
    assert site.journal.barred() == {}
    assert site.following.held == {}
    site.seal(1)
    wait_until(lambda: site.turn() or site.states()["queued"] == 0)


def test_a_key_that_was_barred_for_another_reason_stays_so(site: Site) -> None:
    site.seal(1)
    site.journal.bar([site.agent.signer.key], "this site was moved to another machine")
    site.turn()
    assert site.journal.barred() == {site.agent.signer.key: "this site was moved to another machine"}


def test_what_a_node_forgot_is_handed_in_again(site: Site, node: Node) -> None:
    site.seal(4)
    settled(site, 4)
    with node.desk.store.writing() as connection:  # put back from a copy, its log made whole from a mirror
        connection.exec_driver_sql("DELETE FROM submitted WHERE counter > 1")
    site.seal(2)
    site.following.hand_in()
    wait_until(lambda: node.desk.queue.depth() == 0)
    site.following.follow()
    assert site.states()["queued"] == 0
    with site.store.reading() as connection:
        places = connection.exec_driver_sql("SELECT log_index FROM record ORDER BY counter").scalars().all()
    assert places[:4] == [0, 1, 2, 3]
    assert [node.desk.log.entry(place) for place in places] == site.journal.entries_of(site.agent.signer.key, 0, 5)


def test_what_was_handed_in_and_does_not_come_is_handed_in_again(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with running(tmp_path / "node", carries=False) as node:
        site = Site(tmp_path, node, Agent())
        site.seal(1)
        site.turn()
        posts = node.asked.count("POST records")
        site.turn()
        assert node.asked.count("POST records") == posts
        assert not site.following.has_new()
        site.now += AGAIN_S
        assert site.following.has_new()
        site.turn()
        assert node.asked.count("POST records") == posts + 1
        assert site.states()["queued"] == 1
        site.store.close()


# ---- a node that lies -----------------------------------------------------------------------------------------------


def forked(node: Node, tmp_path: Path, size: int) -> Log:
    """Another history of the log, signed by its own key."""
    store = open_store(tmp_path / "fork.sqlite")
    log = Log(LogStore(store), ORIGIN, PUBLIC_KEY, LOG_KEY.sign)
    log.append(Agent().sign(size))
    return log


def older(node: Node, tmp_path: Path) -> dict[str, Lie]:
    note = node.checkpoint(2)
    return {"checkpoint": lambda body: note.encode()}


def other_key(node: Node, tmp_path: Path) -> dict[str, Lie]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    note = sign(Checkpoint(ORIGIN, 9, bytes(32)), key.public_key().public_bytes_raw(), key.sign)
    return {"checkpoint": lambda body: note.encode()}


def other_origin(node: Node, tmp_path: Path) -> dict[str, Lie]:
    note = sign(Checkpoint("example.org/other", 9, bytes(32)), PUBLIC_KEY, LOG_KEY.sign)
    return {"checkpoint": lambda body: note.encode()}


def same_size_other_root(node: Node, tmp_path: Path) -> dict[str, Lie]:
    note = forked(node, tmp_path, 3).checkpoint()
    return {"checkpoint": lambda body: note.encode()}


def another_history(node: Node, tmp_path: Path) -> dict[str, Lie]:
    log = forked(node, tmp_path, 8)
    bundle = merkle.pack_entries(log.entries(0, 8))
    return {"checkpoint": lambda body: log.checkpoint().encode(), "tile/entries": lambda body: bundle}


def replaced_entry(node: Node, tmp_path: Path) -> dict[str, Lie]:
    def lie(body: bytes) -> bytes:
        entries = merkle.unpack_entries(body)
        return merkle.pack_entries([*entries[:-1], entries[-1][:-1] + bytes([entries[-1][-1] ^ 1])])

    return {"tile/entries": lie}


@pytest.mark.parametrize(
    ("lies", "named", "is_proof"),
    [
        (older, "set back to an old copy, or hides", True),
        (other_key, "another log than that of the trust file", False),
        (other_origin, "another log than that of the trust file", False),
        (same_size_other_root, "two histories", True),
        (another_history, "two histories", True),
        (replaced_entry, "two histories", True),
    ],
)
def test_a_log_that_lies_is_named_and_nothing_is_handed_in_to_it(
    site: Site, node: Node, tmp_path: Path, lies: Any, named: str, is_proof: bool
) -> None:
    site.seal(3)
    settled(site, 3)
    other = Agent()
    node.desk.node.submit("Site C", other.sign(1), [other.certificate])
    wait_until(lambda: node.desk.log.head().size == 4)
    before = site.log.checkpoint()
    site.seal(1)
    node.asked.clear()
    node.lies |= lies(node, tmp_path)
    for _ in range(2):
        with pytest.raises(Stop, match=named):
            site.turn()
    assert "POST records" not in node.asked
    assert site.log.checkpoint() == before
    assert bool(site.denounced) == is_proof
    assert all(seen == before for seen, _ in site.denounced)
    node.lies.clear()
    settled(site, 5)


ANSWERS = [
    (200, b"<html>a portal's login</html>"),
    (200, b"[]"),
    (200, b'{"anchors": 7, "more": false}'),
    (200, b'{"anchors": [{}], "more": false}'),
    (302, b""),
    (404, b""),
    (500, b"\xff"),
    (503, b"{}"),
    (200, b""),
]


@pytest.mark.parametrize("path", ["anchors", "checkpoint", "tile", "records"])
def test_an_answer_that_is_none_is_for_later_and_changes_nothing(site: Site, node: Node, path: str) -> None:
    site.seal(1)
    settled(site, 1)
    other = Agent()
    node.desk.node.submit("Site C", other.sign(1), [other.certificate])
    wait_until(lambda: node.desk.log.head().size == 2)
    site.seal(1)
    node.deaf.add(path)
    for answer in ANSWERS:
        node.lies[path] = lambda body, answer=answer: answer
        # A checkpoint that is none is another log's; a mistake in what is handed in is for its sender.
        with pytest.raises({"checkpoint": (TryLater, Stop), "records": (TryLater, FixInput)}.get(path, TryLater)):
            site.turn()
        assert site.states() == {"queued": 1, "logged": 1, "final": 1}, answer
    node.lies.clear()
    site.now += AGAIN_S
    settled(site, 3)


def test_where_a_record_is_the_log_says_and_not_the_answer(site: Site, node: Node) -> None:
    def lie(body: bytes) -> bytes:
        told = json.loads(body)
        for one in told["records"]:
            one |= {"state": "final", "index": 99}
        return json.dumps(told).encode()

    node.lies["records"] = lie
    site.seal(2)
    site.turn()
    assert site.states() == {"queued": 2, "logged": 0, "final": 0}
    settled(site, 2)
    assert site.journal.next_index() == 2


def shown(change: Callable[[dict[str, Any]], object]) -> Lie:
    """The anchors, the first of them changed."""

    def lie(body: bytes) -> bytes:
        told = json.loads(body)
        if told["anchors"]:
            change(told["anchors"][0])
        return json.dumps(told).encode()

    return lie


def _without_key_nodes(anchor: dict[str, Any]) -> None:
    anchor["proof"]["nodes"] = anchor["proof"]["nodes"][:2]


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another old size": (lambda one: one.update(old_size=2), "storage shows another anchor"),
    "another block": (lambda one: one.update(block_number=one["block_number"] - 1), "storage shows another anchor"),
    "another time": (lambda one: one.update(block_time=one["block_time"] - 5), "storage shows another anchor"),
    "no beacons": (lambda one: one.update(beacons=[]), "storage shows another anchor"),
    "another size": (lambda one: one.update(new_size=2), "the checkpoint of another size"),
    "a size that was not asked for": (lambda one: one.update(new_size=0), "not asked for"),
    "an end before its beginning": (lambda one: one.update(old_size=3), "begins after its end"),
    "nodes left out": (_without_key_nodes, "not proven"),
    "no nodes": (lambda one: one["proof"].update(nodes=[]), "not proven"),
    "a header cut off": (lambda one: one["proof"].update(header=one["proof"]["header"][:40]), "not proven"),
}


def test_an_anchor_that_is_not_the_chain_s_is_named_and_not_kept(site: Site, node: Node) -> None:
    site.seal(3)
    site.turn()
    wait_until(lambda: node.desk.log.head().size == 3)
    node.anchor(3)
    for what, (change, named) in CHANGES.items():
        node.lies["anchors"] = shown(change)
        with pytest.raises(LedgerDisagrees, match=named):
            site.following.settle()
        assert site.anchors.rows() == [], what
    node.lies.clear()
    settled(site, 3)


def test_an_anchor_whose_proof_tells_nothing_of_a_key_that_signed_is_not_kept(site: Site, node: Node) -> None:
    site.seal(1)
    site.turn()
    wait_until(lambda: node.desk.log.head().size == 1)
    row = node.anchored(1)
    assert row.proof is not None
    lacking = 0
    for number in range(len(row.proof.nodes)):
        nodes = row.proof.nodes[:number] + row.proof.nodes[number + 1 :]
        proof = row.proof.model_copy(update={"nodes": nodes})
        try:
            ProvenState(proof.header, nodes).word(node.ledger().anchor_log, contracts.anchor_slot(bytes(32), 1))
            ProvenState(proof.header, nodes).word(node.ledger().device_registry, contracts.key_slots(site.agent.signer.key)[0])
        except EvidenceInvalid:
            lacking += 1
            node.desk.anchors.put(replace(row, proof=proof))
            with pytest.raises(LedgerDisagrees, match="not proven"):
                site.following.settle()
            assert site.anchors.rows() == []
    assert lacking >= 3, "nodes of both accounts and of both tries"


def test_an_anchor_of_another_history_is_named(site: Site, node: Node, tmp_path: Path) -> None:
    site.seal(3)
    site.turn()
    wait_until(lambda: node.desk.log.head().size == 3)
    site.following.follow()
    node.anchor(3)
    note = forked(node, tmp_path, 3).checkpoint()
    node.lies["anchors"] = shown(lambda one: one.update(checkpoint=note))
    with pytest.raises(Stop, match="two histories"):
        site.following.settle()
    assert site.anchors.rows() == []
    assert site.denounced == [(site.log.checkpoint(), note)]


def test_an_anchor_on_a_chain_of_the_node_s_own_is_named(site: Site, node: Node) -> None:
    site.seal(1)
    site.turn()
    wait_until(lambda: node.desk.log.head().size == 1)
    real = node.chain
    node.chain = type(real)()  # another chain, with the anchor in its storage
    node.anchor(1)
    node.chain = real
    with pytest.raises(LedgerDisagrees, match="a block that the chain does not have"):
        site.following.settle()
    assert site.anchors.rows() == []


def test_an_anchor_proven_by_a_block_before_it_is_named(site: Site, node: Node) -> None:
    site.seal(1)
    site.turn()
    wait_until(lambda: node.desk.log.head().size == 1)
    row = node.anchored(1)
    assert row.block_number is not None
    early = node.chain.state(row.block_number - 1)  # a state that no chain has: it holds what comes later
    node.desk.anchors.put(replace(row, proof=early))
    with pytest.raises(LedgerDisagrees, match="older than it"):
        site.following.settle()


# ---- the client -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["node.example", "ftp://node.example", "http://node.example", "https://a@node.example", "https://node.example?x=1"]
)
def test_a_url_that_is_none_or_would_show_the_token_is_refused(url: str) -> None:
    with pytest.raises(FixInput):
        NodeClient(url, "token")


def test_a_node_s_words_are_short_and_printable(node: Node) -> None:
    told = {"type": "urn:scanseal:problem:input", "title": "x", "status": 422, "detail": "\x1b[31m" + "a\nb" * 500}
    node.lies["checkpoint"] = lambda body: (422, json.dumps(told).encode())
    client = NodeClient(node.url)
    with pytest.raises(ScanSealError) as caught:
        client.checkpoint()
    client.close()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_node_that_is_not_there_is_for_later(tmp_path: Path) -> None:
    waited: list[float] = []
    client = NodeClient("http://127.0.0.1:9", "token", sleep=waited.append)
    with pytest.raises(TryLater, match="out of reach"):
        client.checkpoint()
    client.close()
    assert len(waited) == 3
    assert waited == sorted(waited)


def test_a_node_that_is_busy_is_asked_again_when_it_says(node: Node) -> None:
    waited: list[float] = []
    answers = iter([(429, b"{}"), (503, b"{}")])
    node.lies["checkpoint"] = lambda body: next(answers, body)
    client = NodeClient(node.url, sleep=waited.append)
    assert client.checkpoint() == node.desk.log.checkpoint()
    client.close()
    assert len(waited) == 2
