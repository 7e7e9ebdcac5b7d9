"""A re-org takes included anchors away; that is noticed, and anchoring again repairs it."""

from __future__ import annotations

import pytest

from ledger.chain import Endpoint, Nodes
from ledger.chain.devnet import make_block
from ledger.core.errors import LedgerDisagrees
from tests.chain.conftest import Chain, fresh


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_an_anchor_that_a_reorg_took_is_gone_and_can_be_anchored_again(own_anvil: Chain, depth: int) -> None:
    endpoint, ledger = Endpoint(own_anvil.url), own_anvil.ledger()
    log = ledger.open_log(fresh())
    kept = ledger.anchor(log, 0, 3, b"\3" * 32, [])
    for _ in range(5):
        make_block(endpoint)
    taken = ledger.anchor(log, 3, 8, b"\x08" * 32, [kept.block_number])
    for _ in range(depth - 1):
        make_block(endpoint)
    assert ledger.sighting(log, 8) is not None
    endpoint.call("anvil_reorg", depth, [])
    assert ledger.sighting(log, 8) is None
    seen = ledger.sighting(log, 3)
    assert seen is not None
    assert seen.block_hash == kept.block_hash
    assert ledger.anchored_size(log) == 3
    again = ledger.anchor(log, 3, 8, b"\x08" * 32, [kept.block_number])
    assert again.block_hash != taken.block_hash
    make_block(endpoint)
    make_block(endpoint)
    final = ledger.sighting(log, 8)
    assert final is not None
    assert (final.state, final.block_hash) == ("final", again.block_hash)


def test_a_reorg_replaces_the_blocks_that_somebody_noted(own_anvil: Chain) -> None:
    endpoint, ledger = Endpoint(own_anvil.url), own_anvil.ledger()
    for _ in range(6):
        make_block(endpoint)
    noted = ledger.beacon().header
    endpoint.call("anvil_reorg", 3, [])
    assert ledger.facts([noted.number], [], []).blocks[noted.number] != noted.hash


def test_a_named_block_that_is_not_on_the_chain_is_a_disagreement(anvil: Chain) -> None:
    nodes = Nodes([Endpoint(anvil.url)])
    with pytest.raises(LedgerDisagrees, match="re-org or a lying node"):
        nodes.agreed({1: b"\1" * 32})
    with pytest.raises(LedgerDisagrees, match="re-org or a lying node"):
        nodes.agreed({1 << 40: b"\1" * 32})
