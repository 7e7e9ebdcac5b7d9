"""The agent of a site, built from its settings."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ledger.agent.agent import Agent, Part, Refusals
from ledger.agent.association import Peer as Pacs
from ledger.agent.commitment import Commitment, Route
from ledger.agent.folders import Folder, Watcher
from ledger.agent.forwarding import Forwarder
from ledger.agent.health import Health, HealthServer
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
from ledger.agent.settings import Peer as Sender
from ledger.agent.spool import Spool, Steps, nothing
from ledger.agent.workers import Line, Loop, WorkerProcess
from ledger.core.certificates import Device
from ledger.core.errors import FixInput
from ledger.register import Sealer
from ledger.store.spool import SpoolStore
from ledger.wiring import logs, remote
from ledger.wiring.agent_seals import Acquirer, AgentSeals
from ledger.wiring.anchors import only_one
from ledger.wiring.assembly import Opened, opened
from ledger.wiring.assembly_anchoring import loop as loop_of
from ledger.wiring.beacons import Beacons
from ledger.wiring.gateway import Receiving
from ledger.wiring.site import Site, read_site

NICENESS = 19
"""Sealing and anchoring follow when they can: receiving and forwarding come first."""


ANCHORING = "anchor"


@dataclass(frozen=True)
class Running:
    """An agent with what tells of it."""

    site: str
    agent: Agent
    spool: Spool
    refusals: Refusals
    workers: tuple[WorkerProcess, ...]
    ports: dict[str, Receiver]

    def health(self) -> Health:
        states = {worker.name: worker.state for worker in self.workers}
        anchoring = states.get(ANCHORING)
        alarms = [f"file lost: {self.agent.lost} files of the spool are gone"] if self.agent.lost else []
        for state in states.values():
            alarms += [f"key barred: {name}: {word}" for name, word in state.get("barred", {}).items()]
        alarms += [f"{one['word']}: {one['detail']}" for one in (anchoring or {}).get("alarms", ())]
        return Health(
            time.time(),
            self.site,
            os.getpid(),
            version("scanseal"),
            self.agent.started,
            {name: port for name, part in self.ports.items() if (port := part.port)},
            self.spool.book.counts(),
            self.spool.free(),
            self.agent.lost,
            self.refusals.counts(),
            {worker.name: (worker.pid, worker.restarts) for worker in self.workers},
            self.refusals.troubles(),
            tuple(alarms),
            anchoring,
            next((state["clock_behind_s"] for state in states.values() if "clock_behind_s" in state), None),
        )


@contextmanager
def agent(site: Site, settings: Settings, step: Steps = nothing) -> Iterator[Running]:
    """The agent, not yet running; one a site. `step` is told of each numbered step, here and in the worker processes.

    Raises FixInput, NeedPermission (before anything runs), TryLater (another one runs).
    """
    with only_one(site.folder / "agent.lock", "`scanseal agent run`"), opened(site) as store:
        check_files(site, settings)
        _Keys(site, store).check(settings)
        refusals = Refusals()
        spool = _spool(site, store, settings, step)
        workers = [WorkerProcess("seal", seal, (site.folder, settings, step), refusals.say)]
        workers += [
            WorkerProcess(f"forward to {one.name}", forward, (site.folder, settings, one.name, step), refusals.say)
            for one in settings.destination
        ]
        if settings.anchor:
            workers.append(WorkerProcess(ANCHORING, anchor, (site.folder,), refusals.say))
        spool.wakes += [worker.wake for worker in workers]
        commitment = Commitment(_routes(settings), spool, refusals.say)
        sources = {one.name: _source(one, spool, refusals, commitment, settings) for one in settings.source}
        sends = {source.name: source.destination is not None for source in settings.source}
        ports = {name: part for name, part in sources.items() if isinstance(part, Receiver)}
        parts: list[Part] = [*workers, commitment]
        running = Running(
            site.name, Agent(spool, parts, list(sources.values()), sends.get), spool, refusals, tuple(workers), ports
        )
        if settings.health.port:
            parts.append(HealthServer(settings.health.host, settings.health.port, running.health))
        yield running


def check_files(site: Site, settings: Settings) -> None:
    """Raises FixInput where a file that the settings name is missing or wrong; opens no key."""
    for destination in settings.destination:
        client_tls(destination.tls)
    for source in settings.source:
        for name in (source.device, source.gateway):
            if name is not None:
                site.device_key_path(name)
        if source.device is not None:
            _device(site, source.device)
        if isinstance(source, DicomSource):
            server_tls(source.tls)
            client_tls(source.reply_to.tls if source.reply_to else None)
        if isinstance(source, OrthancSource):
            _password(source.password_file)


def check_keys(site: Site, settings: Settings) -> None:
    """Raises as `check_files`, and where a key does not open."""
    check_files(site, settings)
    with opened(site) as store:
        _Keys(site, store).check(settings)


def seal(folder: Path, settings: Settings, step: Steps, line: Line) -> None:
    """The sealing process: every source's files, with the keys that it names."""
    os.nice(NICENESS)
    logs.configure("seal")
    site = read_site(folder)
    with opened(site) as store:
        spool = _spool(site, store, settings, step)
        keys = _Keys(site, store)
        seals = {source.name: (keys.acquirer(source.device), keys.gateway(source.gateway)) for source in settings.source}
        log = store.log(to_write=False) if site.node is None else None
        newest = (lambda: remote.newest_block(site)) if site.node is not None and not site.rpc else None
        beacons = Beacons(site.trust(), site.rpc, store.anchors, keys.names, store.journal, log, newest)
        receiving = {
            name: Receiving(one, store.journal, beacons, settings.hash) for name, (_, one) in seals.items() if one is not None
        }
        workers = {
            name: SealingWorker([name], AgentSeals(acquirer, receiving.get(name), beacons, settings.hash), spool, line.say)
            for name, (acquirer, _) in seals.items()
        }

        def state() -> dict[str, Any]:
            known = beacons.state()
            own: dict[str, str | None] = {f"seal {name}": worker.last_error for name, worker in workers.items()}
            return known | {"troubles": own | {"chain": known.pop("error")}}

        line.serve([beacons, *workers.values()], [one.wake for one in workers.values()], state)


def forward(folder: Path, settings: Settings, name: str, step: Steps, line: Line) -> None:
    """The process that sends to one destination."""
    logs.configure(f"forward to {name}")
    site = read_site(folder)
    with opened(site) as store:
        spool = _spool(site, store, settings, step)
        one = next(one for one in settings.destination if one.name == name)
        workers = forwarders(one, settings, spool, line.say)

        def state() -> dict[str, Any]:
            return {"troubles": {f"forward to {name}": next((one.last_error for one in workers if one.last_error), None)}}

        line.serve(workers, [worker.wake for worker in workers], state)


def anchor(folder: Path, line: Line) -> None:
    """The process that carries the site's records to the chain, or to its node."""
    os.nice(NICENESS)
    logs.configure(ANCHORING)
    with opened(read_site(folder)) as store:
        carrier = loop_of(store)
        loop = Loop(ANCHORING, carrier.run)

        def state() -> dict[str, Any]:
            status = carrier.status()
            return status.as_json() | {"troubles": {ANCHORING: status.last_error}}

        line.serve([loop], [], state)


def forwarders(one: PacsDestination, settings: Settings, spool: Spool, say: Callable[[str, str], None]) -> list[Forwarder]:
    """What sends to a destination, not yet running."""
    sources = [source.name for source in settings.source if source.destination == one.name]
    return [Forwarder(pacs(one), sources, spool, say, (which, one.associations)) for which in range(one.associations)]


def spool_folder(site: Site, settings: Settings) -> Path:
    return settings.spool.folder if settings.spool.folder.is_absolute() else site.folder / settings.spool.folder


def free_for(site: Site, settings: Settings) -> int:
    """Bytes that are free where the spool is, or will be."""
    folder = spool_folder(site, settings)
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def _spool(site: Site, store: Opened, settings: Settings, step: Steps) -> Spool:
    return Spool(
        spool_folder(site, settings), SpoolStore(store.store), settings.spool.min_free_mb << 20, settings.spool.keep_s, step
    )


class _Keys:
    """The keys that sources sign with, loaded once each."""

    def __init__(self, site: Site, store: Opened) -> None:
        self._site, self._store = site, store
        self._trust = site.trust()
        self._sealers: dict[str, Sealer] = {}
        self.names: dict[bytes, str] = {}

    def check(self, settings: Settings) -> None:
        """Raises FixInput where a source names a key that is not here."""
        for source in settings.source:
            self.acquirer(source.device)
            self.gateway(source.gateway)

    def acquirer(self, name: str | None) -> Acquirer | None:
        if name is None:
            return None
        return Acquirer(self._sealer(name), _device(self._site, name))

    def gateway(self, name: str | None) -> Sealer | None:
        return None if name is None else self._sealer(name)

    def _sealer(self, name: str) -> Sealer:
        if name not in self._sealers:
            signer = self._site.signer(name)
            self._sealers[name] = Sealer(self._store.journal, signer, self._trust.domain, time.time)
            self.names[signer.key] = name
        return self._sealers[name]


def _device(site: Site, name: str) -> Device:
    certificate = site.certificates().get(name)
    holder = certificate.holder() if certificate is not None else None
    if not isinstance(holder, Device):
        raise FixInput(f"{name} has no certificate of a device here: `scanseal device approve {name}` first")
    return holder


def _routes(settings: Settings) -> tuple[Route, ...]:
    """The sources whose modality asks for storage commitment."""
    known = {one.name: pacs(one) for one in settings.destination}
    routes = []
    for one in settings.source:
        if isinstance(one, DicomSource) and one.reply_to is not None and one.destination is not None:
            to = one.reply_to
            modality = Pacs(
                f"the modality of {one.name}", to.host, to.port, to.ae_title, one.ae_title, client_tls(to.tls), 30.0
            )
            routes.append(Route(one.name, modality, known[one.destination]))
    return tuple(routes)


def pacs(one: PacsDestination) -> Pacs:
    """A destination as a peer. Raises FixInput where its certificate cannot be loaded."""
    return Pacs(one.name, one.host, one.port, one.ae_title, one.calling_ae_title, client_tls(one.tls), one.timeout_s)


def _source(one: Source, spool: Spool, refusals: Refusals, commitment: Commitment, settings: Settings) -> Part:
    forward = one.destination is not None
    if isinstance(one, FolderSource):
        return Watcher(Folder(one.name, one.path, forward, one.settle_s, one.remove), spool, refusals.say)
    if isinstance(one, OrthancSource):
        return Poller(orthanc(one), spool, refusals.say)
    return _receiver(one, forward, _allowed(one.allow), spool, refusals.count, commitment, settings)


def _allowed(peers: Sequence[Sender]) -> tuple[Peer, ...]:
    return tuple(Peer(peer.ae_title, peer.address) for peer in peers) or (Peer(),)


def orthanc(one: OrthancSource) -> Orthanc:
    """Where its instances are asked for, and how. Raises FixInput where its password cannot be read."""
    ca = str(one.ca_file) if one.ca_file else None
    url, password, forward = one.url.rstrip("/"), _password(one.password_file), one.destination is not None
    return Orthanc(one.name, url, forward, one.user, password, _allowed(one.allow), one.poll_s, ca)


def _receiver(
    one: DicomSource,
    forward: bool,
    allow: tuple[Peer, ...],
    spool: Spool,
    refused: Callable[[str, str], None],
    commitment: Commitment,
    settings: Settings,
) -> Receiver:
    tls, asks = server_tls(one.tls), one.reply_to is not None
    reporters = tuple(Peer(pacs.ae_title) for pacs in settings.destination if asks and pacs.name == one.destination)
    listener = Listener(
        one.name,
        one.host,
        one.port,
        one.ae_title,
        allow,
        forward,
        tls,
        one.associations,
        one.idle_s,
        reporters=reporters,
    )
    return Receiver(listener, spool, refused, commitment.handlers(one.name) if asks else None)


def _password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise FixInput(f"{path}: cannot be read ({error.strerror})") from error
