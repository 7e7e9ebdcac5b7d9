"""The product's own way from a file to a seal and from a file to a verdict, wired as the commands wire it, without a chain.

The chain is the test simulator's: real tries and headers, no network. What a verifier is given is the same as from a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.files import ImageFile
from benchmarks.rounds import Took, timed
from ledger.core import content
from ledger.core.contracts import Beacon
from ledger.core.evidence import Bundle
from ledger.core.verdict import Token
from ledger.keys.signers import Curve
from ledger.register import Sealer
from ledger.store.engine import Store, open_store
from ledger.store.journal import JournalStore
from ledger.wiring.assembly import images
from ledger.wiring.sealing import Outcome, Sealing, Signing
from ledger.wiring.verification import Verifier
from tests.simulators.ledger import World

BLOCK, STATE_BLOCK = 5, 8


class Site:
    """One device on a ledger of its own; every sealing gets a new journal in `folder`."""

    def __init__(self, folder: Path, curve: Curve) -> None:
        self._folder, self._curve = folder, curve
        self.world = World(curve)
        self._journals = 0

    def seal(self, files: Sequence[ImageFile]) -> Took:
        """Seals the files into a new journal on disk, durably, in the batches of the command."""
        store, journal = self._new_journal()
        try:
            return self._sealed(journal, files)
        finally:
            self._remove(store)

    def bundle(self, files: Sequence[ImageFile]) -> Bundle:
        """Seals the files and anchors them: the bundle of all, final, without tiles."""
        store, journal = self._new_journal()
        try:
            self._sealed(journal, files)
            return self._anchored(journal)
        finally:
            self._remove(store)

    def verifier(self, bundle: Bundle) -> Verifier:
        """Offline: nothing is asked, the trust file names the block."""
        return Verifier(self.world.trust(STATE_BLOCK), [bundle])

    def _new_journal(self) -> tuple[Store, JournalStore]:
        self._journals += 1
        store = open_store(self._folder / f"journal-{self._curve}-{self._journals}.sqlite")
        journal = JournalStore(store)
        journal.study_secrets(["a study before"])  # so that the site's own secret is not made while the clock runs
        return store, journal

    def _remove(self, store: Store) -> None:
        store.close()
        for suffix in ("", "-wal", "-shm"):
            Path(store.name + suffix).unlink(missing_ok=True)

    def _sealed(self, journal: JournalStore, files: Sequence[ImageFile]) -> Took:
        world = self.world
        seen = world.time_of(world.beacon_block)
        sealer = Sealer(journal, world.signer, world.domain, lambda: seen + 1.0)
        sealing = Sealing(Signing(sealer, journal, Beacon(world.beacon_block, world.hash_of(world.beacon_block)), seen))
        paths = [str(file.path) for file in files]
        outcomes: list[Outcome] = []
        took = timed(lambda: outcomes.extend(sealing.seal(images(paths), "sha256")))
        sealed = sum(1 for outcome in outcomes if outcome.receipt is not None and outcome.receipt.is_new)
        if sealed != len(files):
            raise SystemExit(f"{sealed} of {len(files)} images were sealed: this is no measurement")
        return took

    def _anchored(self, journal: JournalStore) -> Bundle:
        stored = list(journal.all_images())
        studies = list(dict.fromkeys(seal.study for seal in stored))
        place = {study: index for index, study in enumerate(studies)}
        self.world.entries = [seal.signed.entry() for seal in stored]
        parts = [seal.seal(place[seal.study], None, with_tiles=False) for seal in stored]
        keys = tuple(content.find_key(journal.study_secret(study)) for study in studies)
        return self.world.anchored(parts, block=BLOCK, state_block=STATE_BLOCK, studies=keys)


def verified(verifier: Verifier, files: Sequence[ImageFile]) -> Took:
    """Verifies the files, all of them AUTHENTIC; results are let go one by one, as the command does."""
    paths = [str(file.path) for file in files]
    authentic = 0

    def verify() -> None:
        nonlocal authentic
        for result in verifier.verify(images(paths)):
            authentic += result.verdict.token is Token.AUTHENTIC

    took = timed(verify)
    if authentic != len(files):
        raise SystemExit(f"{authentic} of {len(files)} images are AUTHENTIC: this is no measurement")
    return took
