"""Connecting to a site's or a trust file's chain, and running a devnet for a site."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding

from ledger import chain
from ledger.chain import Endpoint, Ledger, Nodes
from ledger.chain.devnet import CHAIN_ID, Devnet, Status, make_block
from ledger.core.errors import FixInput, LedgerUnavailable
from ledger.core.trust import Authority, Facts, Trust, TrustedLog
from ledger.wiring import site as sites
from ledger.wiring.site import Site

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

DEVNET_BALANCE_WEI = 1000 * 10**18


def endpoints(urls: Sequence[str]) -> list[Endpoint]:
    if not urls:
        raise FixInput('no RPC URL: add `rpc = ["http://..."]` to site.toml or the trust file')
    return [Endpoint(url) for url in urls]


def connect(urls: Sequence[str], trust: Trust, account: LocalAccount | None = None, **options: Any) -> Ledger:
    """The trust file's ledger at these nodes, after they were asked whether they are the right chain; `options` as
    `Ledger.connect` has them."""
    return Ledger.connect(endpoints(urls), trust, account, **options)


class Asking:
    """`ledger.wiring.verification.Oracle` that connects with the first question."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._ledger: Ledger | None = None

    def facts(self, blocks: Sequence[int], keys: Sequence[bytes], devices: Sequence[bytes]) -> Facts:
        if self._ledger is None:
            self._ledger = connect(self._trust.rpc, self._trust)
        return self._ledger.facts(blocks, keys, devices)


def deploy(site: Site, account: LocalAccount, log_key: bytes) -> Trust:
    """Deploys the contracts, opens the site's log, and says what a verifier has to believe of them."""
    nodes = endpoints(site.rpc)
    _fund_on_devnet(nodes[0], account)
    made = chain.deploy(nodes, account)
    ca = sites.read_certificate(site.ca_folder / "ca.pem")
    trust = Trust(
        format="scanseal-trust-1",
        chain_id=made.chain_id,
        genesis_hash=made.genesis_hash,
        rpc=site.rpc,
        anchor_log=made.anchor_log,
        device_registry=made.device_registry,
        logs=(),
        authorities=(Authority(name=site.name, certificate=ca.x509.public_bytes(Encoding.PEM).decode()),),
    )
    log_id = connect(site.rpc, trust, account).open_log(log_key)
    return trust.model_copy(update={"logs": (TrustedLog(origin=site.origin, log_id=log_id, key=log_key),)})


def _fund_on_devnet(node: Endpoint, account: LocalAccount) -> None:
    """Gives the site's account money on anvil or ganache; on any other chain nobody can."""
    for method in ("anvil_setBalance", "evm_setAccountBalance"):
        with suppress(LedgerUnavailable):
            node.call(method, account.address, hex(DEVNET_BALANCE_WEI))
            return


def code_hashes_and_genesis(urls: Sequence[str], addresses: Sequence[bytes]) -> tuple[int, bytes, list[bytes]]:
    """(chain id, genesis hash, code hash at each address), as all the nodes say."""
    nodes = Nodes(endpoints(urls))
    chain_id, genesis = nodes.identity()
    return chain_id, genesis, chain.code_hashes(nodes, addresses)


def shipped(name: str) -> bytes:
    """The code hash of the contract that this package ships under a name."""
    from ledger.chain.contracts import artefact

    return artefact(name).code_hash


# ---- devnet ---------------------------------------------------------------------------------------------------------


def devnet_up(site: Site, port: int) -> dict[str, Any]:
    """Starts the site's devnet on the port of its RPC URL, or on `port`."""
    return _shown(Devnet(site.devnet_folder).up(port or _port(site)))


def devnet_down(site: Site) -> dict[str, Any]:
    return _shown(Devnet(site.devnet_folder).down())


def devnet_status(site: Site) -> dict[str, Any]:
    return _shown(Devnet(site.devnet_folder).status())


def let_time_pass(site: Site) -> None:
    """Makes a devnet's next block, since it makes none without transactions; on any other chain nothing."""
    with suppress(LedgerUnavailable):
        make_block(Endpoint(site.rpc[0]))


def is_devnet(trust: Trust) -> bool:
    """Whether a chain may be one that makes no blocks by itself."""
    return trust.chain_id == CHAIN_ID


def _port(site: Site) -> int:
    url = urlsplit(site.rpc[0] if site.rpc else "")
    if url.hostname not in ("127.0.0.1", "localhost") or url.port is None:
        raise FixInput("the site's RPC URL is not a port of this machine: a devnet is for local sites, or name a --port")
    return url.port


def _shown(status: Status | None) -> dict[str, Any]:
    return {"running": False} if status is None else asdict(status)
