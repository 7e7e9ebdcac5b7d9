"""The agent of a site, built from its settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger.agent.agent import Agent, Part, Refusals
from ledger.agent.folders import Folder, Watcher
from ledger.agent.forwarding import Destination, Forwarder
from ledger.agent.orthanc import Orthanc, Poller
from ledger.agent.receiver import Listener, Peer, Receiver
from ledger.agent.sealing import SealingWorker
from ledger.agent.settings import (
    DicomSource,
    FolderSource,
    OrthancSource,
    PacsDestination,
    Settings,
    Source,
    client_tls,
    server_tls,
)
from ledger.agent.spool import Spool, Steps
from ledger.core.certificates import Device
from ledger.core.errors import FixInput
from ledger.keys import signers
from ledger.register import Sealer
from ledger.store.spool import SpoolStore
from ledger.wiring.agent_seals import Acquirer, AgentSeals, Gateway
from ledger.wiring.anchors import only_one
from ledger.wiring.assembly import Opened, opened
from ledger.wiring.beacons import Beacons
from ledger.wiring.site import Site


@dataclass(frozen=True)
class Running:
    """An agent with what tells of it."""

    agent: Agent
    spool: Spool
    beacons: Beacons
    refusals: Refusals
    forwarders: tuple[Forwarder, ...]
    sealers: tuple[SealingWorker, ...]
    receivers: tuple[Receiver, ...]


@contextmanager
def agent(site: Site, settings: Settings, step: Steps = lambda _: None) -> Iterator[Running]:
    """The agent, not yet running; one a site. Raises FixInput, NeedPermission, TryLater (another one runs)."""
    with only_one(site.folder / "agent.lock", "`scanseal agent run`"), opened(site) as store:
        yield _built(site, store, settings, step)


def _built(site: Site, store: Opened, settings: Settings, step: Steps) -> Running:
    refusals = Refusals()
    folder = settings.spool.folder if settings.spool.folder.is_absolute() else site.folder / settings.spool.folder
    spool = Spool(folder, SpoolStore(store.store), settings.spool.min_free_mb << 20, settings.spool.keep_s, step)
    keys = _Keys(site, store)
    seals = {source.name: (keys.acquirer(source.device), keys.gateway(source.gateway)) for source in settings.source}
    beacons = Beacons(site.trust(), site.rpc, store.anchors, keys.names)
    sealers = tuple(
        SealingWorker([name], AgentSeals(acquirer, gateway, beacons, settings.hash), spool, refusals.say)
        for name, (acquirer, gateway) in seals.items()
    )
    forwarders = tuple(_forwarder(one, settings, spool, refusals) for one in settings.destination)
    spool.wakes += [one.wake for one in forwarders] + [one.wake for one in sealers]
    sources = [_source(one, spool, refusals) for one in settings.source]
    receivers = tuple(one for one in sources if isinstance(one, Receiver))
    sends = {source.name: source.destination is not None for source in settings.source}
    running = Agent(spool, [beacons, *sealers, *forwarders], sources, sends.get)
    return Running(running, spool, beacons, refusals, forwarders, sealers, receivers)


class _Keys:
    """The keys that sources sign with, loaded once each."""

    def __init__(self, site: Site, store: Opened) -> None:
        self._site, self._store = site, store
        self._trust = site.trust()
        self._sealers: dict[str, Sealer] = {}
        self.names: dict[bytes, str] = {}

    def acquirer(self, name: str | None) -> Acquirer | None:
        if name is None:
            return None
        certificate = self._site.certificates().get(name)
        holder = certificate.holder() if certificate is not None else None
        if not isinstance(holder, Device):
            raise FixInput(f"{name} has no certificate of a device here: `scanseal device approve {name}` first")
        return Acquirer(self._sealer(name), holder)

    def gateway(self, name: str | None) -> Gateway | None:
        return None if name is None else _gateway(self._sealer(name), self._store)

    def _sealer(self, name: str) -> Sealer:
        if name not in self._sealers:
            signer = signers.load(self._site.device_key_path(name), self._site.passphrase())
            self._sealers[name] = Sealer(self._store.journal, signer, self._trust.domain, time.time)
            self.names[signer.key] = name
        return self._sealers[name]


def _gateway(sealer: Sealer, store: Opened) -> Gateway:
    raise FixInput("gateway sources come with the next commit")


def _forwarder(one: PacsDestination, settings: Settings, spool: Spool, refusals: Refusals) -> Forwarder:
    sources = [source.name for source in settings.source if source.destination == one.name]
    target = Destination(one.name, one.host, one.port, one.ae_title, one.calling_ae_title, client_tls(one.tls), one.timeout_s)
    return Forwarder(target, sources, spool, refusals.say)


def _source(one: Source, spool: Spool, refusals: Refusals) -> Part:
    forward = one.destination is not None
    if isinstance(one, FolderSource):
        return Watcher(Folder(one.name, one.path, forward, one.settle_s, one.remove), spool, refusals.say)
    allow = tuple(Peer(peer.ae_title, peer.address) for peer in one.allow) or (Peer(),)
    if isinstance(one, OrthancSource):
        password = _password(one.password_file)
        url = one.url.rstrip("/")
        ca = str(one.ca_file) if one.ca_file else None
        return Poller(Orthanc(one.name, url, forward, one.user, password, allow, one.poll_s, ca), spool, refusals.say)
    return _receiver(one, forward, allow, spool, refusals.count)


def _receiver(
    one: DicomSource, forward: bool, allow: tuple[Peer, ...], spool: Spool, refused: Callable[[str, str], None]
) -> Receiver:
    tls = server_tls(one.tls)
    listener = Listener(one.name, one.host, one.port, one.ae_title, allow, forward, tls, one.associations, one.idle_s)
    return Receiver(listener, spool, refused)


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise FixInput(f"{path}: cannot be read ({error.strerror})") from error
