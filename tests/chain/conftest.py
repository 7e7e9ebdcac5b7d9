"""Real chains for the tests: anvil as osaka and as paris, and ganache. SCANSEAL_ANVIL and SCANSEAL_GANACHE may name them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.chain import Deployment, Endpoint, Ledger, deploy
from ledger.chain.devnet import Devnet, Kind, account
from ledger.core.errors import FixInput
from ledger.core.trust import Policy, Trust
from tests.simulators.rpc import FaultyNode

CHAINS: dict[str, tuple[Kind, str]] = {
    "anvil-osaka": ("anvil", "osaka"),
    "anvil-paris": ("anvil", "paris"),
    "ganache": ("ganache", "shanghai"),
}
_numbers = itertools.count(1)


@dataclass
class Chain:
    """A running chain with the contracts on it."""

    name: str
    devnet: Devnet
    url: str
    deployed: Deployment

    @property
    def trust(self) -> Trust:
        return Trust(
            format="scanseal-trust-1",
            chain_id=self.deployed.chain_id,
            genesis_hash=self.deployed.genesis_hash,
            anchor_log=self.deployed.anchor_log,
            device_registry=self.deployed.device_registry,
            logs=(),
            authorities=(),
            policy=Policy(),
        )

    def ledger(self, *urls: str, number: int | None = 0, **options: object) -> Ledger:
        """The ledger through these nodes (the real one if none), writing as a well-known account, or only reading with None."""
        endpoints = [Endpoint(url, timeout_s=10) for url in urls or (self.url,)]
        return Ledger.connect(endpoints, self.trust, None if number is None else account(number), **options)


def start(name: str, folder: Path) -> Chain:
    """A fresh chain with freshly deployed contracts. Without the program: an error in CI, a named skip elsewhere."""
    kind, hardfork = CHAINS[name]
    devnet = Devnet(folder)
    try:
        url = devnet.up(kind=kind, hardfork=hardfork).url
    except FixInput as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no {kind} here: {error}")
    return Chain(name, devnet, url, deploy([Endpoint(url)], account()))


@pytest.fixture(scope="session")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Chain]]:
    started: dict[str, Chain] = {}
    yield started
    for chain in started.values():
        chain.devnet.down()


@pytest.fixture(params=CHAINS)
def chain(request: pytest.FixtureRequest, chains: dict[str, Chain], tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Each kind of chain, shared by all tests: they keep apart by using logs and keys of their own."""
    return _shared(request.param, chains, tmp_path_factory)


@pytest.fixture
def anvil(chains: dict[str, Chain], tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The shared anvil (osaka), for what does not depend on the kind of chain."""
    return _shared("anvil-osaka", chains, tmp_path_factory)


@pytest.fixture
def own_anvil(tmp_path: Path) -> Iterator[Chain]:
    """An anvil of the test's own, to be re-organised and stopped."""
    chain = start("anvil-osaka", tmp_path / "devnet")
    yield chain
    chain.devnet.down()


@pytest.fixture
def node(anvil: Chain) -> Iterator[FaultyNode]:
    """A proxy before the shared anvil that lies and fails on demand."""
    with FaultyNode(anvil.url) as proxy:
        yield proxy


@pytest.fixture
def word() -> bytes:
    """32 bytes that no other test uses."""
    return fresh()


def fresh() -> bytes:
    return next(_numbers).to_bytes(32, "big")


def _shared(name: str, chains: dict[str, Chain], factory: pytest.TempPathFactory) -> Chain:
    if name not in chains:
        chains[name] = start(name, factory.mktemp(name))
    return chains[name]
