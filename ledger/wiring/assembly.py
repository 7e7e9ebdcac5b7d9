"""What each command needs, built: the one place where sites, stores, keys and chains meet. Imports what it uses when it uses
it,
so that `scanseal verify --offline` loads no network client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.core.checkpoint import Checkpoint
from ledger.core.errors import FixInput, LedgerUnavailable, NeedPermission
from ledger.wiring import site as sites
from ledger.wiring.site import Site

if TYPE_CHECKING:
    from ledger.log import Log
    from ledger.log.sequencing import Queue
    from ledger.wiring.anchors import SiteAnchoring
    from ledger.wiring.bundles import Exporter
    from ledger.wiring.export import Export
    from ledger.wiring.handing import HandingIn
    from ledger.wiring.images import Images
    from ledger.wiring.sealing import Sealing, Signing
    from ledger.wiring.verification import Verifier

CLOCK_TOLERANCE_S = 300


# ---- images ---------------------------------------------------------------------------------------------------------


def images(paths: Iterable[str]) -> Images:
    """The images in files, folders, zip archives and DICOMDIRs, lazily."""
    from ledger.wiring.images import Images

    return Images(paths)


def describe(file: Path, hash_name: str) -> dict[str, Any]:
    """What a seal of this image would bind (`scanseal inspect`)."""
    from ledger.core.errors import Refused
    from ledger.dicom import read

    if hash_name not in ("sha256", "blake3"):
        raise FixInput(f"--hash {hash_name}: use sha256 or blake3")
    image = read(file)
    profile = image.default_profile(hash_name)
    digest = image.digest(profile)
    try:
        decoded = str(image.decoded_digest()) if profile.startswith("cs1") else None
    except Refused as error:
        decoded = f"none: {error}"
    return {
        "path": str(file),
        "pixel_digest": str(digest),
        "profile": profile,
        "refusal": image.refusal_of(hash_name) if profile.startswith("raw1") else None,
        "transfer_syntax": image.transfer_syntax,
        "frames": image.frames,
        "frame_digests": [frame.hex() for frame in digest.frames],
        "decoder": image.decoder,
        "decoded_digest": decoded,
        "attributes": dict(image.attributes),
    }


# ---- verifying ------------------------------------------------------------------------------------------------------


@contextmanager
def verifier(
    site: Path | None,
    trust: Path | None,
    bundles: Sequence[Path],
    *,
    offline: bool,
    node: str | None = None,
    node_ca: Path | None = None,
) -> Iterator[Verifier]:
    """A verifier for a trust file (the site's where none is named), named bundles, the site's store where there is a site, and
    what was left with a node: the one that is named, or the site's."""
    from ledger.wiring.bundles import bundle_files, read_bundle
    from ledger.wiring.verification import Verifier

    folder = sites.find(site) if trust is None else sites.own(site)
    if trust is None and folder is None:
        raise FixInput("no trust file: name one with --trust, or work in a site (--site)")
    believed = sites.read_trust(trust) if trust is not None else sites.read_site(folder or Path()).trust()
    parsed = [read_bundle(file) for path in bundles for file in bundle_files(path)]
    oracle = None
    if not offline and believed.rpc:
        from ledger.wiring.chain import Asking

        oracle = Asking(believed)
    if offline and node is not None:
        raise FixInput("--offline asks no one, and --node names who is to be asked: leave one of them out")
    here = None if folder is None else sites.read_site(folder)
    with ExitStack() as stack:
        left = None
        if not offline and (node is not None or (here is not None and here.node is not None)):
            from ledger.wiring import remote

            left = stack.enter_context(remote.left_with(here, node, node_ca))
        if here is None or not here.store_path.exists():
            yield Verifier(believed, parsed, None, oracle, elsewhere=left)
            return
        store = stack.enter_context(opened(here, read_only=True))
        yield Verifier(believed, parsed, store.evidence(), oracle, elsewhere=left)


# ---- the site's store -----------------------------------------------------------------------------------------------


class Opened:
    """A site with its store open."""

    def __init__(self, site: Site, store: Any) -> None:
        from ledger.store.anchors import AnchorStore
        from ledger.store.journal import JournalStore
        from ledger.store.submitted import SiteQueue

        self.site, self.store = site, store
        self.journal, self.anchors = JournalStore(store, deposits=site.node is not None), AnchorStore(store)
        self.queue: Queue = SiteQueue(store) if site.node is None else self.journal

    def log(self, *, to_write: bool) -> Log:
        """The site's log; writing needs the passphrase of its key."""
        from ledger.log import Log
        from ledger.store.log import LogStore

        if not to_write:
            trusted = self.site.trust().logs[0]
            return Log(LogStore(self.store), trusted.origin, trusted.key)
        if self.site.node is not None:
            raise FixInput(f"this site hands its records in to {self.site.node.url}: it has no log of its own to write")
        from ledger.keys import authority

        key = authority.load_log_key(self.site.log_key_path, self.site.passphrase())
        return Log(LogStore(self.store), self.site.origin, authority.log_public_key(key), key.sign)

    def exporter(self) -> Exporter:
        from ledger.wiring.bundles import Exporter

        ders = [certificate.der for certificate in self.site.certificates().values()]
        return Exporter(self.site.trust(), self.journal, self.anchors, self.log(to_write=False), ders)

    def evidence(self) -> tuple[Any, Exporter] | None:
        """The site's own evidence, once the site has a ledger."""
        return (self.journal, self.exporter()) if self.site.trust_path.exists() else None


@contextmanager
def opened(site: Site, *, read_only: bool = False) -> Iterator[Opened]:
    from ledger.store.engine import open_store

    database = open_store(site.store_path, read_only=read_only)
    try:
        yield Opened(site, database)
    finally:
        database.close()


@contextmanager
def sealing(site: Path | None, device: str) -> Iterator[Sealing]:
    """One device of a site, ready to seal."""
    from ledger.wiring.sealing import Sealing

    with signing(site, device) as ready:
        yield Sealing(ready)


@contextmanager
def signing(site: Path | None, device: str) -> Iterator[Signing]:
    """One key of a site, ready to sign, with a recent block as beacon."""
    import time

    from ledger.core.contracts import Beacon, KeyState
    from ledger.register import Sealer
    from ledger.wiring import chain, remote
    from ledger.wiring.sealing import Signing

    opened_site = sites.open_site(site)
    trust = opened_site.trust()
    signer = opened_site.signer(device)
    with opened(opened_site) as store:
        warning = roles = None
        try:
            if opened_site.node is not None and not opened_site.rpc:
                header, rlp = remote.newest_block(opened_site)
                state = KeyState.from_words(0, 0)
            else:
                ledger = chain.connect(opened_site.rpc, trust)
                block, state = ledger.beacon(), ledger.key_state(signer.key)
                header, rlp = block.header, block.rlp
            if state.compromised_since or state.retired_at:
                word = "revoked" if state.compromised_since else "retired"
                raise NeedPermission(
                    f"the key of {device} is {word} on chain, its seals would be REVOKED: seal with a newer key"
                )
            if any(state.certificate):
                roles = state.roles
            elif opened_site.rpc:
                warning = f"the key of {device} is not enrolled yet: run `scanseal device approve` before `scanseal anchor`"
            store.anchors.keep_header(header.number, header.hash, rlp)
            beacon, beacon_time = Beacon(header.number, header.hash), header.timestamp
        except LedgerUnavailable as error:
            known = store.anchors.newest_header()
            if known is None:
                raise
            beacon, beacon_time = known
            warning = f"{error}; sealing goes on with block {beacon.number}, the last one seen"
        now = time.time()
        if now < beacon_time - CLOCK_TOLERANCE_S:
            warning = f"this machine's clock is {beacon_time - now:.0f} s behind the chain: the block's time is claimed instead"
        sealer = Sealer(store.journal, signer, trust.domain, time.time)
        yield Signing(sealer, store.journal, beacon, beacon_time, warning, roles)


def software() -> str:
    """This package with its version, as a statement's `tool`."""
    from importlib.metadata import version

    return f"scanseal {version('scanseal')}"


# ---- the log and the chain --------------------------------------------------------------------------------------------


@contextmanager
def anchoring(site: Path | None) -> Iterator[SiteAnchoring | HandingIn]:
    """A site's way from the journal to the chain, or to its node; one process at a time."""
    import time

    from ledger.chain import FeePolicy
    from ledger.keys import signers
    from ledger.log.anchoring import Anchoring
    from ledger.store.payments import PaymentStore
    from ledger.wiring import chain
    from ledger.wiring.anchors import SiteAnchoring, only_one

    opened_site = sites.open_site(site)
    if opened_site.node is not None:
        from ledger.wiring.assembly_anchoring import handing_in

        with only_one(opened_site.folder / "anchor.lock"), opened(opened_site) as store:
            yield handing_in(store)
        return
    trust = opened_site.trust()
    account = signers.load_account(opened_site.account_path, opened_site.passphrase())
    with only_one(opened_site.folder / "anchor.lock"), opened(opened_site) as store:
        log = store.log(to_write=True)
        payments = PaymentStore(store.store, time.time)
        fees = FeePolicy(opened_site.anchoring.ceiling_wei)
        ledger = chain.connect(opened_site.rpc, trust, account, fees=fees, outbox=payments)
        ready = Anchoring(log, store.anchors, payments, ledger, trust.logs[0].log_id, trust.anchor_log)
        yield SiteAnchoring(opened_site, ready, log, store.queue, store.anchors, lambda: chain.let_time_pass(opened_site))


@contextmanager
def site_log(site: Path | None) -> Iterator[Log]:
    """The site's log, to be read."""
    with opened(sites.open_site(site), read_only=True) as store:
        yield store.log(to_write=False)


def check_log(folder: Path | None, site: Path | None, trust: Path | None) -> Checkpoint:
    """Recomputes a mirror, or without one the site's own log, and holds it against the trust file's log key."""
    from ledger.log import check

    believed = sites.read_trust(trust) if trust is not None else sites.open_site(site).trust()
    trusted = believed.logs[0]
    if folder is not None:
        return check(folder, trusted.origin, trusted.key)
    from ledger.store.log import LogStore

    with opened(sites.open_site(site), read_only=True) as store:
        return check(LogStore(store.store), trusted.origin, trusted.key)


@contextmanager
def export(site: Path | None) -> Iterator[Export]:
    """Bundles out of a site's store."""
    from ledger.wiring.export import Export

    with opened(sites.open_site(site), read_only=True) as store:
        yield Export(store.journal, store.exporter())


def describe_bundle(file: Path) -> dict[str, Any]:
    """What a bundle claims (`scanseal bundle inspect`)."""
    from ledger.wiring.bundles import describe, read_bundle

    return {"path": str(file), "bytes": file.stat().st_size if file.exists() else 0} | describe(read_bundle(file))


# ---- setting up -----------------------------------------------------------------------------------------------------


def create_site(folder: Path, name: str, rpc: tuple[str, ...], *, keep_passphrase: bool) -> dict[str, Any]:
    from ledger.keys import signers

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NeedPermission(f"{folder}: cannot be made ({error.strerror})") from error
    site = sites.create(folder, name, rpc, keep_passphrase=keep_passphrase)
    with opened(site):
        pass
    account = signers.load_account(site.account_path, site.passphrase())
    return {"site": str(folder), "name": name, "account": account.address, "rpc": list(rpc)}


def devnet_up(site: Path | None, port: int) -> dict[str, Any]:
    from ledger.wiring import chain

    return chain.devnet_up(sites.open_site(site), port)


def devnet_down(site: Path | None) -> dict[str, Any]:
    from ledger.wiring import chain

    return chain.devnet_down(sites.open_site(site))


def devnet_status(site: Path | None) -> dict[str, Any]:
    from ledger.wiring import chain

    return chain.devnet_status(sites.open_site(site))


def deploy(site: Path | None) -> dict[str, Any]:
    """Deploys, opens the log, writes the trust file; or says what was deployed before."""
    from ledger.keys import authority, signers
    from ledger.wiring import chain

    here = sites.open_site(site)
    passphrase = here.passphrase()
    is_new = not here.trust_path.exists()
    if is_new:
        account = signers.load_account(here.account_path, passphrase)
        log_key = authority.log_public_key(authority.load_log_key(here.log_key_path, passphrase))
        trust = chain.deploy(here, account, log_key)
        sites.write_trust(here.trust_path, trust)
    trust = here.trust()
    chain.connect(here.rpc, trust)
    return {
        "new": is_new,
        "chain_id": trust.chain_id,
        "anchor_log": "0x" + trust.anchor_log.address.hex(),
        "device_registry": "0x" + trust.device_registry.address.hex(),
        "trust": str(here.trust_path),
    }
