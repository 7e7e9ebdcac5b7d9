"""The loop that anchors a site by itself, and how it stands, built. As `assembly`: imports what it uses when it uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ledger.core.errors import EvidenceInvalid, LedgerUnavailable, ScanSealError, Stop, TryLater
from ledger.wiring import site as sites
from ledger.wiring.assembly import Opened, opened

if TYPE_CHECKING:
    import threading

    from ledger.core.stateproof import Header
    from ledger.log.anchoring import Anchoring
    from ledger.log.sequencing import Queue
    from ledger.wiring.carrying import Carrier
    from ledger.wiring.handing import HandingIn
    from ledger.wiring.standing import Situation, Status

GIVE_UP_S = 120.0
"""How long the loop waits for one transaction before it looks at everything else again."""


class Loop(Protocol):
    """What carries a site's records by itself: `ledger.wiring.carrying.Carrier`, `ledger.wiring.handing.HandingIn`."""

    def run(self, stop: threading.Event) -> None: ...

    def wake(self) -> None: ...

    def status(self) -> Status: ...


@contextmanager
def carrying(site: Path | None) -> Iterator[Loop]:
    """A site's loop with a store of its own."""
    with opened(sites.open_site(site)) as store:
        yield loop(store)


def loop(store: Opened) -> Loop:
    """The loop for an open site, onto the chain or to its node. Needs neither yet."""
    return carrier(store) if store.site.node is None else handing_in(store)


def handing_in(store: Opened, clock: Callable[[], float] = time.time, **options: Any) -> HandingIn:
    """The loop of a site with a node; `options` as `HandingIn` has them."""
    from ledger.log.following import Following, Ledger
    from ledger.store.leaving import LeavingStore
    from ledger.store.payments import PaymentStore
    from ledger.wiring import remote
    from ledger.wiring.handing import HandingIn
    from ledger.wiring.leaving import AT_ONCE, Leaving
    from ledger.wiring.standing import Standing

    site, trust = store.site, store.site.trust()
    log = store.log(to_write=False)
    ledger = Ledger(trust.anchor_log, trust.device_registry, trust.logs[0].log_id, _on_chain(store))
    node = remote.client(site)
    following = Following(
        log, store.journal, store.journal, store.anchors, node, ledger, time.monotonic, remote.denouncing(site)
    )
    standing = Standing(log, store.journal, store.anchors, PaymentStore(store.store, clock), site.anchoring, clock)
    leaving = Leaving(LeavingStore(store.store), store.journal, store.anchors, store.exporter, node)
    return HandingIn(
        following,
        standing,
        site.folder / "anchor.lock",
        lambda: leaving.turn() >= AT_ONCE,
        node.name,
        clock=clock,
        **options,
    )


def _on_chain(store: Opened) -> Callable[[Header], bool]:
    """Whether the chain has a header in a final block, which then goes into the site's trust file; at a site that asks no
    chain, whether the trust file has it."""
    from ledger.wiring import chain
    from ledger.wiring.anchors import trust_block

    def is_on_chain(header: Header) -> bool:
        trusted = {block.number: block.hash for block in store.site.trust().blocks}
        if header.number in trusted:
            return trusted[header.number] == header.hash
        if not store.site.rpc:
            raise LedgerUnavailable(
                f"block {header.number} is not in the trust file, and this site asks no chain: name nodes as rpc in site.toml, "
                "or take over a newer trust file"
            )
        final, known = chain.connect(store.site.rpc, store.site.trust()).final_blocks([header.number])
        if header.number > final:
            raise LedgerUnavailable(f"block {header.number} is not final at the chain's nodes that this site asks: later")
        if known.get(header.number) != header.hash:
            return False
        trust_block(store.site, header)
        return True

    return is_on_chain


def carrier(
    store: Opened, queue: Queue | None = None, clock: Callable[[], float] = time.time, timeout_s: float = 20.0, **options: Any
) -> Carrier:
    """The loop for an open site. Needs no chain yet. `queue`: what is to be sequenced, the site's own unless one is given;
    `timeout_s`: how long a node may take for an answer."""
    from ledger.chain import Endpoint, FeePolicy, Ledger
    from ledger.keys import signers
    from ledger.log.anchoring import Anchoring
    from ledger.store.payments import PaymentStore
    from ledger.wiring import chain
    from ledger.wiring.anchors import trust_blocks
    from ledger.wiring.carrying import Carrier

    site, trust = store.site, store.site.trust()
    account = signers.load_account(site.account_path, site.passphrase())
    log = store.log(to_write=True)
    payments = PaymentStore(store.store, clock)
    fees = FeePolicy(site.anchoring.ceiling_wei, give_up_after_s=GIVE_UP_S)

    def connect(stop: threading.Event) -> Anchoring:
        endpoints = [Endpoint(url, timeout_s=timeout_s) for url in site.rpc]
        ledger = Ledger.connect(endpoints, trust, account, fees=fees, outbox=payments, stop=stop)
        return Anchoring(log, store.anchors, payments, ledger, trust.logs[0].log_id, trust.anchor_log)

    is_devnet = chain.is_devnet(trust)
    return Carrier(
        log,
        queue or store.queue,
        store.anchors,
        payments,
        connect,
        site.anchoring,
        site.folder / "anchor.lock",
        believe=lambda rows: trust_blocks(site, rows),
        let_time_pass=(lambda: chain.let_time_pass(site)) if is_devnet else None,
        clock=clock,
        **({"settle_s": 1.0} if is_devnet else {}) | options,
    )


def log_status(site: Path | None) -> Status:
    """How a site's anchoring stands, of its store and of a look at the chain; nothing is written, no key is opened."""
    from ledger.store.payments import PaymentStore
    from ledger.wiring.standing import Situation, Standing

    here = sites.open_site(site)
    with opened(here, read_only=True) as store:
        log = store.log(to_write=False)
        standing = Standing(log, store.queue, store.anchors, PaymentStore(store.store, time.time), here.anchoring, time.time)
        if here.node is not None:
            return _at_node(store, standing.status(Situation()))
        try:
            situation = _seen(store)
        except Stop as error:
            situation = Situation(stopped=str(error))
        except TryLater as error:
            situation = Situation(error=str(error))
        status = standing.status(replace(situation, doing=""))
        waiting = status.queued + status.log_size - status.anchored_size
        return replace(status, doing=f"{waiting} records wait" if waiting else "every record is anchored")


def _at_node(store: Opened, status: Status) -> Status:
    """The standing of a site at a node, with what the node shows now. Nothing is written."""
    from ledger.core.checkpoint import parse_and_verify
    from ledger.log.following import HELD
    from ledger.wiring import remote
    from ledger.wiring.standing import Alarm

    alarms = [Alarm("key held", why) for why in store.journal.barred().values() if why.startswith(HELD)]
    error, log = None, store.log(to_write=False)
    node = remote.client(store.site)
    try:
        size = parse_and_verify(node.checkpoint(), log.origin, log.public_key).size
        if size < status.log_size:
            alarms.append(Alarm("log disagrees", f"the node shows a log of {size} records, {status.log_size} were seen"))
    except EvidenceInvalid as invalid:
        alarms.append(Alarm("log disagrees", f"the node shows another log than that of the trust file: {invalid}"))
    except ScanSealError as failed:
        error = str(failed)
    finally:
        node.close()
    doing = f"{status.queued} records wait to be handed in" if status.queued else "every record is in the node's log"
    return replace(status, doing=doing, last_error=error, alarms=tuple(alarms), node=node.name)


def _seen(store: Opened) -> Situation:
    """What the chain says of this site's log and account."""
    from ledger.wiring import chain
    from ledger.wiring.standing import Situation

    site, trust = store.site, store.site.trust()
    ledger = chain.connect(site.rpc, trust)
    anchored, size = ledger.anchored_size(trust.logs[0].log_id), store.log(to_write=False).head().size
    stopped = None
    if anchored > size:
        stopped = f"the chain has an anchor for {anchored} records, this log has {size}: restore the newest copy of it"
    account = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        account = bytes.fromhex(json.loads(site.account_path.read_text())["address"])
    return Situation(stopped=stopped, market=None if account is None else ledger.market(account))
