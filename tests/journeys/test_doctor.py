"""`scanseal agent doctor` against real faults: each is found, by its name, with what to do about it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from ledger.chain import Endpoint
from ledger.chain.devnet import Devnet
from ledger.keys import authority
from ledger.wiring.doctor import Examined, Finding, examine
from tests.journeys.agents import destination, dicom_source, running
from tests.journeys.conftest import Site, free_port
from tests.journeys.orthanc import orthanc


class Ward:
    """A site whose agent would run, a PACS that answers C-ECHO, and what breaks it."""

    def __init__(self, site: Site, stack: ExitStack) -> None:
        self.site, self.stack, self.folder = site, stack, site.folder
        self.port, self.health = free_port(), free_port()
        self.pacs_port = free_port()
        stack.callback(self.close)
        self.serve()
        self.settings = f"[health]\nport = {self.health}\n" + dicom_source("ct", self.port) + destination(self.pacs_port)
        self.configure(self.settings)

    def serve(self, *callers: str) -> None:
        """A PACS that takes these callers only, where some are named."""
        entity = AE(ae_title="ORTHANC")
        entity.add_supported_context(Verification)
        entity.require_calling_aet = list(callers)
        self.pacs = entity.start_server(
            ("127.0.0.1", self.pacs_port), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda _: 0)]
        )

    def close(self) -> None:
        if self.pacs is not None:
            self.pacs.shutdown()
            self.pacs = None

    def configure(self, settings: str) -> None:
        (self.folder / "agent.toml").write_text(settings)

    def add(self, more: str) -> None:
        with (self.folder / "agent.toml").open("a") as file:
            file.write(more)

    def examined(self) -> Examined:
        return examine(self.folder, None)

    @property
    def passphrase(self) -> str:
        return (self.folder / "passphrase").read_text().strip()

    @property
    def node(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.site.port}")


@pytest.fixture
def ward(own_site: Site) -> Iterator[Ward]:
    with ExitStack() as stack:
        yield Ward(own_site, stack)


def test_where_nothing_is_wrong_everything_is_well(ward):
    examined = ward.examined()
    assert [one for one in examined.findings if one.state != "well"] == []
    assert {one.check for one in examined.findings} >= {"settings", "agent", "store", "disk", "RPC 1", "clock", "key ct1"}
    assert {one.check for one in examined.findings} >= {
        "role of ct1",
        "port of ct",
        "port of health",
        "PACS pacs",
        "account",
        "log",
    }
    assert examined.exit_code == 0


def issued(ward: Ward, now: datetime) -> None:
    """Puts a certificate of ct1's key that was issued at another time."""
    ca = authority.load_authority(ward.folder / "ca", ward.passphrase)
    request = x509.load_pem_x509_csr((ward.folder / "devices" / "ct1.csr").read_bytes()).public_bytes(Encoding.DER)
    certificate = ca.issue(request, now)
    (ward.folder / "devices" / "ct1.pem").write_bytes(certificate.x509.public_bytes(Encoding.PEM))


def valid_for(ward: Ward) -> timedelta:
    certificate = x509.load_pem_x509_certificate((ward.folder / "devices" / "ct1.pem").read_bytes())
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def no_settings(ward: Ward) -> None:
    (ward.folder / "agent.toml").unlink()


def wrong_settings(ward: Ward) -> None:
    ward.configure(ward.settings.replace('role = "acquire"', 'role = "acquires"'))


def key_missing(ward: Ward) -> None:
    for path in (ward.folder / "keys").glob("ct1.*"):
        path.unlink()


def passphrase_wrong(ward: Ward) -> None:
    (ward.folder / "passphrase").write_text("another")


def certificate_missing(ward: Ward) -> None:
    (ward.folder / "devices" / "ct1.pem").unlink()


def certificate_ends(ward: Ward) -> None:
    issued(ward, datetime.now(UTC) - valid_for(ward) + timedelta(days=10))


def certificate_ended(ward: Ward) -> None:
    issued(ward, datetime.now(UTC) - valid_for(ward) - timedelta(days=1))


def key_revoked(ward: Ward) -> None:
    ward.site.run("device", "revoke", "ct1", "--compromised-since", "now")


def role_missing(ward: Ward) -> None:
    ward.site.run("device", "request", "pacs1", "--manufacturer", "Acme", "--model", "A", "--serial", "1", "--ae", "A")
    ward.site.run("device", "approve", "pacs1", "--roles", "hold")
    path = ward.folder / "agent.toml"
    path.write_text(path.read_text().replace('device = "ct1"', 'device = "pacs1"'))


def clock_behind(ward: Ward) -> None:
    ward.node.call("evm_setNextBlockTimestamp", int(time.time()) + 7200)
    ward.node.call("evm_mine")


def disk_full(ward: Ward) -> None:
    ward.add("\n[spool]\nmin_free_mb = 1000000000\n")


def chain_down(ward: Ward) -> None:
    Devnet(ward.folder / "devnet").down()


def another_chain(ward: Ward) -> None:
    other = Devnet(ward.folder / "other")
    ward.stack.callback(other.down)
    url = other.up(free_port()).url
    path = ward.folder / "site.toml"
    path.write_text(path.read_text().replace(f"http://127.0.0.1:{ward.site.port}", url))


def account_empty(ward: Ward) -> None:
    address = "0x" + json.loads((ward.folder / "keys" / "account.json").read_text())["address"].removeprefix("0x")
    ward.node.call("anvil_setBalance", address, "0x0")
    ward.node.call("evm_mine")


def trust_missing(ward: Ward) -> None:
    (ward.folder / "trust.toml").unlink()


def pacs_down(ward: Ward) -> None:
    ward.close()


def pacs_refuses(ward: Ward) -> None:
    ward.close()
    ward.serve("SOMEBODY")


def port_taken(ward: Ward) -> None:
    ward.stack.enter_context(socket.create_server(("127.0.0.1", ward.port)))


def folder_missing(ward: Ward) -> None:
    more = '\n[[source]]\nkind = "folder"\nname = "export"\nrole = "acquire"\ndevice = "ct1"\npath = "/nowhere/export"\n'
    ward.add(more)


def orthanc_down(ward: Ward) -> None:
    more = f'\n[[source]]\nkind = "orthanc"\nname = "o"\nrole = "gateway"\ngateway = "ct1"\nurl = "http://127.0.0.1:{free_port()}"\n'
    ward.add(more)


def nobody_anchors(ward: Ward) -> None:
    path = ward.folder / "agent.toml"
    path.write_text("anchor = false\n" + path.read_text())


SETTINGS = [(no_settings, "settings", "fix", "scanseal agent init", "agent.toml")]
MISTAKE = [(wrong_settings, "settings", "fix", "'acquire' or 'gateway'", "agent check")]
NO_TRUST = [(trust_missing, "trust file", "fix", "is missing", "scanseal deploy")]
NO_KEY = [
    (key_missing, "key ct1", "fix", "no key for device", "device request ct1"),
    (certificate_missing, "certificate ct1", "fix", "there is none", "device approve ct1"),
    (disk_full, "disk", "fix", "images are refused", "make room"),
    (pacs_down, "PACS pacs", "down", "out of reach", "start it, open the firewall"),
    (port_taken, "port of ct", "fix", "cannot listen", "ss -ltnp"),
    (folder_missing, "folder of export", "down", "is no folder", "mount it"),
    (orthanc_down, "Orthanc of o", "down", "out of reach", "start it"),
]
NO_PASSPHRASE = [
    (certificate_ends, "certificate ct1", "fix", "ends on", "device rotate ct1"),
    (passphrase_wrong, "key ct1", "fix", "passphrase", "device request"),
    (passphrase_wrong, "account", "fix", "passphrase", "SCANSEAL_PASSPHRASE"),
    (clock_behind, "clock", "fix", "behind the chain's newest block", "set-ntp"),
    (pacs_refuses, "PACS pacs", "down", "rejects the association", "must know the calling AE title"),
]
NOT_VALID = [
    (certificate_ended, "certificate ct1", "fix", "not valid today", "device rotate ct1"),
    (key_revoked, "role of ct1", "fix", "revoked on chain", "request and approve another key"),
    (account_empty, "account", "fix", "nothing is anchored", "send gas money to 0x"),
]
NO_ROLE = [
    (role_missing, "role of pacs1", "fix", "may not acquire", "--roles"),
    (nobody_anchors, "anchor lock", "fix", "nobody anchors", "anchor = true"),
]
NO_CHAIN = [(chain_down, "RPC 1", "down", "nothing answers", "start the node")]
OTHER_CHAIN = [(another_chain, "RPC 1", "fix", "", "nodes of the right chain")]


@pytest.mark.parametrize(
    "faults",
    [SETTINGS, MISTAKE, NO_TRUST, NO_KEY, NO_PASSPHRASE, NOT_VALID, NO_ROLE, NO_CHAIN, OTHER_CHAIN],
    ids=lambda faults: faults[0][0].__name__,
)
def test_each_of_some_faults_is_found_with_what_to_do(ward, faults: list[tuple[Callable[[Ward], None], str, str, str, str]]):
    for breaks in dict.fromkeys(one[0] for one in faults):
        breaks(ward)
    examined = ward.examined()
    found = {one.check: one for one in examined.findings}
    for _, check, state, says, todo in faults:
        one = found[check]
        assert (one.state, says in one.says, todo in one.todo) == (state, True, True), one
    assert all(one.todo for one in examined.findings if one.state != "well"), examined
    assert examined.exit_code == (2 if any(one.state == "fix" for one in examined.findings) else 6)


def test_beside_a_running_agent_it_says_what_the_agent_says_and_tries_the_store_of_the_pacs(own_site, tmp_path):
    port = free_port()
    with orthanc(tmp_path / "orthanc") as pacs:
        settings = dicom_source("ct", port) + destination(pacs)
        with running(own_site, settings) as agent:
            done = own_site.json("agent", "doctor", "--store-test", expect=0)
            found = {one["check"]: one["says"] for one in done["findings"]}
            assert found["agent"] == f"runs, process {agent.status()['pid']}"
            assert found["port of ct"] == f"{port} is held by the running agent"
            assert "took a test image" in found["PACS pacs"]
            assert json.loads(pacs.call("/statistics"))["CountInstances"] == 1
            agent.configure(settings.replace('role = "acquire"', 'role = "none"'))
            assert "agent check" in str(own_site.json("agent", "doctor", expect=2))


def test_findings_are_in_the_order_in_which_they_are_to_be_fixed():
    order = Examined((Finding("a", "down", "x", "y"), Finding("b", "fix", "x", "y"), Finding("c", "well", "x")))
    assert (order.exit_code, Examined(order.findings[:1]).exit_code, Examined(order.findings[2:]).exit_code) == (2, 6, 0)
    assert [one["check"] for one in order.as_json()["findings"]] == ["a", "b", "c"]


def test_the_doctor_leaves_nothing_behind(ward):
    def names() -> set[Path]:
        return {
            path for path in ward.folder.rglob("*") if "devnet" not in path.parts and not path.name.startswith("store.sqlite")
        }

    before = names()
    ward.examined()
    assert names() == before
