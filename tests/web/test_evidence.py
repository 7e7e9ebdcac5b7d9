"""Deposits: each site's own under a token, read by whoever knows it, and nothing of them told to anybody else."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest

from ledger.store.deposited import PER_TOKEN
from ledger.web import Limits
from tests.web.nodes import Desk, serving
from tests.web.test_records import problem

TOKEN = "5e" * 32
PATH = f"/v1/evidence/{TOKEN}"


def bodies(web: httpx.Client, path: str = PATH) -> list[bytes]:
    return [base64.b64decode(one) for one in web.get(path).json()["evidence"]]


def body(text: str) -> bytes:
    return text.encode().ljust(40, b".")


def test_what_a_site_leaves_is_found_under_its_token_and_nowhere_else(desk: Desk, web: httpx.Client) -> None:
    site = desk.site()
    assert problem(web.get(PATH)) == "no-such-evidence"
    assert web.put(PATH, content=body("one"), headers=site).status_code == 201
    assert web.put(PATH, content=body("two"), headers=site).status_code == 204
    assert bodies(web) == [body("two")]
    assert problem(web.get(f"/v1/evidence/{'5f' * 32}")) == "no-such-evidence"


def test_no_site_takes_another_s_away(desk: Desk, web: httpx.Client) -> None:
    one, other = desk.site("Site B"), desk.site("Site C")
    assert web.put(PATH, content=body("one"), headers=one).status_code == 201
    assert web.put(PATH, content=body("other"), headers=other).status_code == 201
    assert bodies(web) == [body("other"), body("one")]
    assert web.delete(PATH, headers=other).status_code == 204
    assert bodies(web) == [body("one")]
    assert problem(web.delete(PATH, headers=other)) == "no-such-evidence"
    assert web.delete(PATH, headers=one).status_code == 204
    assert problem(web.get(PATH)) == "no-such-evidence"


def test_only_a_site_leaves_something_and_takes_it_back(desk: Desk, web: httpx.Client) -> None:
    assert problem(web.put(PATH, content=body("one"))) == "token"
    site = desk.site()
    assert web.put(PATH, content=body("one"), headers=site).is_success
    assert problem(web.delete(PATH)) == "token"
    assert bodies(web) == [body("one")]


@pytest.mark.parametrize("content", [b"", b"x" * 28])
def test_what_can_be_no_deposit_is_refused(desk: Desk, web: httpx.Client, content: bytes) -> None:
    assert problem(web.put(PATH, content=content, headers=desk.site())) == "input"


@pytest.mark.parametrize("token", ["5E" * 32, "5e" * 31, "5e" * 33, "zz" * 32])
def test_a_token_has_one_form(desk: Desk, web: httpx.Client, token: str) -> None:
    for answer in (
        web.get(f"/v1/evidence/{token}"),
        web.put(f"/v1/evidence/{token}", content=body("one"), headers=desk.site()),
    ):
        assert (answer.status_code, problem(answer)) == (422, "input")


def test_many_sites_may_leave_something_for_one_image_and_not_endlessly_many(desk: Desk, web: httpx.Client) -> None:
    sites = [desk.site(f"Site {number}") for number in range(PER_TOKEN + 1)]
    answers = [web.put(PATH, content=body("one"), headers=site).status_code for site in sites]
    assert answers == [201] * PER_TOKEN + [422]
    assert web.put(PATH, content=body("two"), headers=sites[0]).status_code == 204, "in place of its older one"
    assert len(bodies(web)) == PER_TOKEN


def test_a_deposit_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with Desk(tmp_path, Limits(deposit=100)) as desk, serving(desk.app) as web:
        answer = web.put(PATH, content=b"x" * 101, headers=desk.site())
        assert (answer.status_code, problem(answer)) == (413, "too-large")
        assert problem(web.get(PATH)) == "no-such-evidence"
