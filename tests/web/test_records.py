"""What sites hand in: taken whole or not at all, once, and never of a key that two agents use."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from ledger.core.contracts import Beacon
from ledger.core.records import AcquisitionRecord, ManifestRecord, SignedRecord
from ledger.keys import authority
from ledger.log import check
from ledger.register import Claim, Sealer
from ledger.store import LogStore
from ledger.store.journal import JournalStore
from ledger.web import Limits
from tests.web.nodes import ORIGIN, PUBLIC_KEY, Agent, Desk, body, serving, trust, wait_until


def problem(answer) -> str:  # type: ignore[no-untyped-def]
    """The word of a problem, which must be RFC 9457."""
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert {"type", "title", "status", "detail"} <= found.keys()
    assert found["status"] == answer.status_code
    return found["type"].removeprefix("urn:scanseal:problem:")


@pytest.mark.parametrize("curve", ["secp256k1", "p256"])
def test_what_is_handed_in_is_in_the_log_and_handing_in_again_says_where(desk: Desk, web: httpx.Client, curve) -> None:
    site, agent = desk.site(), Agent(curve)
    entries = agent.sign(5)
    answer = web.post("/v1/records", json=body(entries, agent.certificate), headers=site)
    assert answer.status_code in (200, 202)
    wait_until(lambda: web.post("/v1/records", json=body(entries), headers=site).status_code == 200)
    places = web.post("/v1/records", json=body(entries), headers=site).json()["records"]
    assert [(one["state"], one["index"]) for one in places] == [("sequenced", index) for index in range(5)]
    assert desk.entries() == entries
    assert check(LogStore(desk.store), ORIGIN, PUBLIC_KEY).size == 5
    assert web.get(f"/v1/records/{places[3]['record_id']}").json() == places[3]
    assert problem(web.get("/v1/records/0x" + "00" * 32)) == "no-such-record"
    assert desk.meter.accepted._value.get() == 5


def test_many_sites_at_once_all_get_in_once(desk: Desk, web: httpx.Client) -> None:
    site, agents = desk.site(), [Agent("p256" if number % 2 else "secp256k1") for number in range(6)]

    def hand_in(agent: Agent) -> list[bytes]:
        entries = []
        for _ in range(8):
            part = agent.sign(3)
            assert web.post("/v1/records", json=body(part, agent.certificate), headers=site).status_code in (200, 202)
            entries += part
        return entries

    with ThreadPoolExecutor(6) as pool:
        entries = [entry for found in pool.map(hand_in, agents) for entry in found]
    wait_until(lambda: desk.log.head().size == len(entries))
    found = desk.entries()
    assert sorted(found) == sorted(entries)
    for agent in agents:
        counters = [int.from_bytes(entry[128:160], "big") for entry in found if entry[96:128] == agent.signer.key]
        assert counters == list(range(24))


def test_without_the_token_of_a_site_nothing_is_taken_and_the_body_is_not_read(desk: Desk, web: httpx.Client) -> None:
    entries = Agent().sign()
    for headers in ({}, {"Authorization": "Bearer " + "y" * 43}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer x"}):
        answer = web.post("/v1/records", content=b"not even JSON", headers=headers)
        assert (answer.status_code, problem(answer)) == (401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"
    site = desk.site()
    desk.submitted.remove_client("Site B")
    assert web.post("/v1/records", json=body(entries), headers=site).status_code == 401
    assert desk.submitted.every_key() == []


def with_word(entry: bytes, number: int, word: bytes) -> bytes:
    return entry[: 32 * number] + word + entry[32 * (number + 1) :]


def test_what_is_malformed_is_refused_and_nothing_of_its_request_is_taken(desk: Desk, web: httpx.Client) -> None:
    site, agent = desk.site(), Agent()
    entry, following = agent.sign(2)
    big = (1 << 64).to_bytes(32, "big")
    wrong = {
        "another type": with_word(following, 0, bytes(32)),
        "too short": following[:-1],
        "too long": following + b"\0",
        "another type's length": following[:-64] + bytes(64) + following[-64:],
        "a counter of 65 bits": with_word(following, 4, big),
        "a time of 65 bits": with_word(following, 6, big),
        "a beacon number of 65 bits": with_word(following, 7, big),
        "a counter that no database counts": with_word(following, 4, (1 << 63).to_bytes(32, "big")),
        "no previous record": with_word(following, 5, bytes(32)),
        "empty": b"",
    }
    for name, bad in wrong.items():
        answer = web.post("/v1/records", json=body([entry, bad], agent.certificate), headers=site)
        assert (answer.status_code, problem(answer)) == (422, "record"), name
    first = with_word(entry, 5, b"\1" * 32)
    assert problem(web.post("/v1/records", json=body([first], agent.certificate), headers=site)) == "record"
    count = SignedRecord(ManifestRecord(*vars(agent.record()).values(), "visit", 3), bytes(64)).entry()
    assert problem(web.post("/v1/records", json=body([with_word(count, 10, big)], agent.certificate), headers=site)) == "record"
    assert desk.submitted.every_key() == []
    assert desk.log.head().size == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b"[]",
        b'{"records": []}',
        b'{"records": ["!"]}',
        b'{"records": [7]}',
        b'{"records": ["AA=="], "more": 1}',
        b"\xff",
    ],
)
def test_a_body_that_is_no_submission_is_refused_without_a_word_of_it(desk: Desk, web: httpx.Client, sent: bytes) -> None:
    answer = web.post("/v1/records", content=sent, headers=desk.site())
    assert (answer.status_code, problem(answer)) == (422, "input")


def test_a_signature_by_another_key_or_of_another_ledger_is_refused(desk: Desk, web: httpx.Client) -> None:
    site, agent, other = desk.site(), Agent(), Agent()
    record = agent.record()
    forged = SignedRecord(record, other.signer.sign(record.id(agent.domain))).entry()
    assert problem(web.post("/v1/records", json=body([forged], agent.certificate), headers=site)) == "signature"
    elsewhere = Agent()
    elsewhere.domain = trust().model_copy(update={"chain_id": 1}).domain
    answer = web.post("/v1/records", json=body(elsewhere.sign(), elsewhere.certificate), headers=site)
    assert problem(answer) == "signature"
    assert desk.submitted.every_key() == []


def test_a_key_needs_a_certificate_of_an_authority_that_the_node_accepts_now(desk: Desk, web: httpx.Client) -> None:
    site, agent = desk.site(), Agent()
    entries = agent.sign(2)
    assert problem(web.post("/v1/records", json=body(entries[:1]), headers=site)) == "certificate"
    stranger = authority.new_authority("Site B", datetime.now(UTC))
    foreign = Agent(issuer=stranger, signer=agent.signer)
    answer = web.post("/v1/records", json=body(entries[:1], foreign.certificate), headers=site)
    assert (problem(answer), "no authority" in answer.json()["detail"]) == ("certificate", True)
    assert problem(web.post("/v1/records", json=body(entries[:1], b"no certificate"), headers=site)) == "certificate"
    assert web.post("/v1/records", json=body(entries[:1], agent.certificate), headers=site).status_code in (200, 202)
    # Sent once is enough, until the authority is no longer accepted, or the certificate has ended.
    desk.trust = trust(stranger)
    assert problem(web.post("/v1/records", json=body(entries[1:]), headers=site)) == "certificate"
    desk.trust = trust()
    years = timedelta(days=365 * 13).total_seconds()
    now = desk.now
    desk.now = lambda: now() + years
    answer = web.post("/v1/records", json=body(entries[1:]), headers=site)
    assert (problem(answer), "not valid now" in answer.json()["detail"]) == ("certificate", True)
    desk.now = now
    assert web.post("/v1/records", json=body(entries[1:]), headers=site).status_code in (200, 202)


def test_a_gap_is_refused_and_says_where_to_go_on(desk: Desk, web: httpx.Client) -> None:
    site, agent = desk.site(), Agent()
    entries = agent.sign(6)
    assert web.post("/v1/records", json=body(entries[:2], agent.certificate), headers=site).is_success
    answer = web.post("/v1/records", json=body(entries[4:]), headers=site)
    assert (answer.status_code, problem(answer)) == (409, "out-of-order")
    assert (answer.json()["key"], answer.json()["counter"], answer.json()["next_counter"]) == (
        "0x" + agent.signer.key.hex(),
        4,
        2,
    )
    assert problem(web.post("/v1/records", json=body([entries[2], entries[4]]), headers=site)) == "record"
    assert problem(web.post("/v1/records", json=body([entries[3], entries[2]]), headers=site)) == "record"
    assert web.post("/v1/records", json=body(entries[1:]), headers=site).is_success
    wait_until(lambda: desk.log.head().size == 6)
    assert desk.entries() == entries


def test_of_two_agents_with_one_key_both_are_told_until_the_operator_releases_it(desk: Desk, web: httpx.Client) -> None:
    one, other = desk.site("Site B"), desk.site("Site C")
    agent = Agent()
    twin = Agent(signer=agent.signer)
    entries, contradiction = agent.sign(3), twin.sign(1, b"\4" * 32)
    assert web.post("/v1/records", json=body(entries[:2], agent.certificate), headers=one).is_success
    answer = web.post("/v1/records", json=body(contradiction), headers=other)
    assert (answer.status_code, problem(answer)) == (409, "key-forked")
    told = answer.json()
    assert (told["key"], told["counter"]) == ("0x" + agent.signer.key.hex(), 0)
    for headers, sent in ((one, entries[2:]), (one, entries[:1]), (other, contradiction)):
        again = web.post("/v1/records", json=body(sent), headers=headers)
        assert (again.status_code, again.json()) == (409, told)
    (held,) = desk.submitted.every_key()
    assert (held.forked, held.records) == (contradiction[0], 2)
    assert desk.submitted.held_keys() == 1
    wait_until(lambda: desk.log.head().size == 2)  # what was taken before goes on
    desk.submitted.release(agent.signer.key)
    assert web.post("/v1/records", json=body(entries), headers=one).is_success
    assert problem(web.post("/v1/records", json=body(contradiction), headers=other)) == "key-forked"


def test_an_agent_that_goes_on_from_another_history_is_found_out_too(desk: Desk, web: httpx.Client) -> None:
    site, agent = desk.site(), Agent()
    twin = Agent(signer=agent.signer)
    assert web.post("/v1/records", json=body(agent.sign(2), agent.certificate), headers=site).is_success
    history = twin.sign(3, b"\4" * 32)
    # Counter 2 is free; what it names as the record before is not what counter 1 is known to be.
    answer = web.post("/v1/records", json=body(history[2:]), headers=site)
    assert (problem(answer), answer.json()["counter"]) == ("key-forked", 2)


def test_a_contradiction_within_requests_that_are_written_together_is_found(idle: Desk) -> None:
    agent = Agent()
    twins = [agent, *(Agent(signer=agent.signer) for _ in range(5))]
    site = idle.site()
    sent = [body(one.sign(1, bytes([number]) * 32), agent.certificate) for number, one in enumerate(twins)]
    with serving(idle.app) as web, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda one: web.post("/v1/records", json=one, headers=site), sent))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409, 409]
    assert idle.submitted.every_key()[0].records == 1
    assert idle.submitted.held_keys() == 1


def test_one_key_that_is_held_keeps_no_other_out_of_another_request(desk: Desk, web: httpx.Client) -> None:
    site, agent, honest = desk.site(), Agent(), Agent()
    twin = Agent(signer=agent.signer)
    assert web.post("/v1/records", json=body(agent.sign(), agent.certificate), headers=site).is_success
    assert not web.post("/v1/records", json=body(twin.sign(1, b"\4" * 32)), headers=site).is_success
    both = body([*honest.sign(), *agent.sign()], honest.certificate)
    assert problem(web.post("/v1/records", json=both, headers=site)) == "key-forked"
    again = Agent(signer=honest.signer)
    assert web.post("/v1/records", json=body(again.sign(), honest.certificate), headers=site).is_success


def seal_here(desk: Desk, agent: Agent) -> None:
    """A record that the node's own site signs."""
    sealer = Sealer(JournalStore(desk.store), agent.signer, agent.domain, lambda: 1_800_000_000)
    sealer.state(AcquisitionRecord, [Claim(b"\5" * 32, "px1-sha256/attributes-1", {})], Beacon(7, b"\7" * 32), 0)


def test_a_key_that_signs_at_the_node_is_not_taken_from_elsewhere(desk: Desk, web: httpx.Client) -> None:
    site, agent = desk.site(), Agent()
    seal_here(desk, agent)
    answer = web.post("/v1/records", json=body(agent.sign(), agent.certificate), headers=site)
    assert (answer.status_code, problem(answer)) == (403, "not-allowed")
    wait_until(lambda: desk.log.head().size == 1)


def test_what_the_node_signs_with_a_key_that_was_handed_in_stays_out_of_the_log(desk: Desk, web: httpx.Client) -> None:
    site, agent = desk.site(), Agent()
    entries = agent.sign(2)
    assert web.post("/v1/records", json=body(entries, agent.certificate), headers=site).is_success
    seal_here(desk, agent)
    wait_until(lambda: desk.log.head().size == 2)
    desk.loop.wake()
    wait_until(lambda: desk.queue.depth() == 0)
    assert desk.queue.contradicting() == 1
    assert desk.entries() == entries
    assert any("another agent uses their key" in trouble for trouble in desk.node.health().troubles)


def test_a_node_that_seals_itself_has_both_in_one_log(desk: Desk, web: httpx.Client) -> None:
    site, agent, own = desk.site(), Agent(), Agent()
    for _ in range(3):
        seal_here(desk, own)
        assert web.post("/v1/records", json=body(agent.sign(2), agent.certificate), headers=site).is_success
    wait_until(lambda: desk.log.head().size == 9)
    assert len(set(desk.entries())) == 9
    wait_until(lambda: desk.queue.next_index() == 9)


def test_limits_are_kept_and_say_when_to_come_again(tmp_path: Path) -> None:
    limits = Limits(requests_per_s=1, burst=6, records_per_s=1, record_burst=3, records=2, body=3000, queue=3)
    with Desk(tmp_path, limits, carries=False) as desk, serving(desk.app) as web:
        site, agent = desk.site(), Agent()
        entries = agent.sign(5)
        answer = web.post("/v1/records", json=body(entries[:3]), headers=site)
        assert (answer.status_code, problem(answer)) == (413, "too-large")
        answer = web.post("/v1/records", content=b"x" * 3001, headers=site)
        assert (answer.status_code, problem(answer)) == (413, "too-large")
        parts = iter([b"x" * 2000, b"x" * 2000])
        assert web.post("/v1/records", content=parts, headers=site).status_code == 413
        assert web.post("/v1/records", json=body(entries[:2], agent.certificate), headers=site).status_code == 202
        answer = web.post("/v1/records", json=body(entries[2:4]), headers=site)
        assert (answer.status_code, problem(answer)) == (429, "too-many")
        assert int(answer.headers["retry-after"]) >= 1
        assert web.post("/v1/records", json=body(entries[2:3]), headers=site).status_code == 202
        answer = web.post("/v1/records", json=body(entries[3:4]), headers=site)
        assert answer.status_code == 429
        # Another site has limits of its own; the queue is full for everybody.
        answer = web.post("/v1/records", json=body(entries[3:4]), headers=desk.site("Site C"))
        assert (answer.status_code, problem(answer)) == (503, "busy")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_full_queue_takes_records_again_when_it_has_room(tmp_path: Path) -> None:
    with Desk(tmp_path, Limits(queue=2), carries=False) as desk, serving(desk.app) as web:
        site, agent = desk.site(), Agent()
        entries = agent.sign(3)
        assert web.post("/v1/records", json=body(entries[:2], agent.certificate), headers=site).status_code == 202
        assert web.post("/v1/records", json=body(entries[2:]), headers=site).status_code == 503
        desk.queue.note_indices({entries[0]: 0, entries[1]: 1})
        assert web.post("/v1/records", json=body(entries[2:]), headers=site).status_code == 202


def test_nothing_of_a_request_is_in_the_log_of_the_process(desk: Desk, web: httpx.Client, caplog) -> None:
    caplog.set_level(logging.DEBUG, "ledger")
    agent = Agent()
    site, sent = desk.site(), body(agent.sign(), agent.certificate)
    assert web.post("/v1/records?patient=SECRET", json=sent, headers=site).is_success
    assert not web.post("/v1/records", content=b'{"SECRET": 1}', headers=site).is_success
    assert not web.get("/v1/evidence/" + "5e" * 32 + "?name=SECRET").is_success

    def lines_of() -> list[str]:
        return [str(vars(record)) for record in caplog.records if record.name.startswith("ledger.web")]

    wait_until(lambda: len(lines_of()) >= 3)  # what is asked is answered before it is noted
    lines = lines_of()
    assert len(lines) == 3
    for line in lines:
        assert not any(part in line for part in ("SECRET", sent["records"][0][:20], site["Authorization"][7:], "5e5e"))
    assert "'refused': 'input'" in lines[1]
    assert "'site': 'Site B'" in lines[0]
    assert "'route': '/v1/evidence/{token}'" in lines[2]
