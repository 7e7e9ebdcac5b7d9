"""Stations: sites whose loop a test runs, each on a chain of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chain.conftest import Chain, start
from tests.wiring.station import Station, wait_for_workers


@pytest.fixture
def own_chain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Chain]:
    """An anvil, or what a test asks for by indirect parameter."""
    chain = start(getattr(request, "param", "anvil-osaka"), tmp_path / "devnet")
    yield chain
    chain.devnet.down()


@pytest.fixture
def station(own_chain: Chain, tmp_path: Path) -> Iterator[Station]:
    made = Station(tmp_path, own_chain.url, own_chain.trust)
    made.open_log()
    yield made
    wait_for_workers()
    made.close()
