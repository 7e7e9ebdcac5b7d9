"""Leaving a site's evidence with its node, encrypted, and taking back what is redacted; and finding what others left."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Final

from ledger.core import evidence
from ledger.core.deposit import NONCE_SIZE, Deposit, secret_of
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, TryLater, Unreadable
from ledger.core.evidence import Bundle
from ledger.core.search import Subject
from ledger.node.client import NodeClient
from ledger.store.anchors import AnchorStore
from ledger.store.leaving import LeavingStore
from ledger.store.records import RecordReader
from ledger.wiring.bundles import Exporter

AT_ONCE: Final = 32
"""Deposits of one turn: what is to be handed in does not wait for more."""
AGAIN_S: Final = 30.0
"""A node that did not answer is not asked for so long: of many images none waits for it again."""
HASHES: Final = ("sha256", "blake3")


class Leaving:
    """One site's evidence at its node. Each turn can be repeated after a crash: a deposit takes the place of an older one."""

    def __init__(
        self,
        store: LeavingStore,
        journal: RecordReader,
        anchors: AnchorStore,
        exporter: Callable[[], Exporter],
        node: NodeClient,
    ) -> None:
        self._store, self._journal, self._anchors, self._exporter, self._node = store, journal, anchors, exporter, node

    def turn(self) -> int:
        """Leaves the evidence of images that are final, and takes back that of redacted ones; how many that were, `AT_ONCE` if
        there may be more. Raises TryLater, NeedPermission (the node does not take this site's token)."""
        done = 0
        for record_id, token in self._store.to_withdraw(AT_ONCE):
            self._node.withdraw(token)
            self._store.note_withdrawn(record_id)
            done += 1
        waiting = self._store.waiting(self._anchors.final_size(), AT_ONCE - done)
        if not waiting:
            return done
        exporter = self._exporter()
        images = self._journal.by_id([one.record_id for one in waiting])
        for one in waiting:
            try:
                bundle = exporter.bundle([images[one.record_id]], with_tiles=False)
            except NeedPermission:
                continue  # redacted in this moment
            body = one.deposit.sealed(evidence.write(bundle), secrets.token_bytes(NONCE_SIZE))
            try:
                self._node.deposit(one.deposit.token, body)
            except FixInput:  # too large, or too many sites left something for this image: never taken
                self._store.note(one.record_id, is_refused=True)
            else:
                self._store.note(one.record_id)
            done += 1
        return done


class Left:
    """`ledger.wiring.verification.Elsewhere`: what sites left with a node."""

    def __init__(self, node: NodeClient) -> None:
        self._node = node
        self._failed: tuple[float, TryLater] | None = None

    def found(self, subject: Subject) -> tuple[tuple[Bundle, ...], str | None]:
        if self._failed is not None and time.monotonic() - self._failed[0] < AGAIN_S:
            raise self._failed[1]
        try:
            return self._found(subject)
        except TryLater as error:
            self._failed = time.monotonic(), error
            raise

    def _found(self, subject: Subject) -> tuple[tuple[Bundle, ...], str | None]:
        bundles: list[Bundle] = []
        damage = None
        for deposit in _deposits(subject):
            for body in self._node.deposited(deposit.token):
                try:
                    bundles.append(evidence.parse(deposit.opened(body)))
                except EvidenceInvalid as error:
                    damage = str(error)
        return tuple(bundles), damage


def _deposits(subject: Subject) -> Iterator[Deposit]:
    """Where the evidence of an image may be left: by its digest under each hash that it may be sealed with."""
    kinds = dict.fromkeys(profile.partition("-")[0] for profile in subject.digests)
    for kind in kinds:
        for name in HASHES:
            try:
                secret = secret_of(str(subject.digests[f"{kind}-{name}"]), subject.attributes)
            except (KeyError, Unreadable):
                continue
            if secret is not None:
                yield Deposit(secret)
