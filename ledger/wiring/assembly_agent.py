"""What the agent's commands need, built. As `assembly`: imports what it uses when it uses it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.core.errors import FixInput, NeedPermission, ScanSealError
from ledger.wiring import site as sites
from ledger.wiring.site import Site

if TYPE_CHECKING:
    from ledger.agent.health import Health
    from ledger.agent.settings import Settings
    from ledger.wiring.agent import Running

LOG = logging.getLogger(__name__)
SETTINGS = "agent.toml"
LOCK = "agent.lock"
RELOADING = "settings"
"""The part that is in trouble where new settings were refused."""


def settings_path(site: Site, config: Path | None) -> Path:
    return config or site.folder / SETTINGS


# ---- the settings ---------------------------------------------------------------------------------------------------


def template() -> str:
    """The settings to begin with: every one with its default and why."""
    return files("ledger.agent").joinpath(SETTINGS).read_text(encoding="utf-8")


def write_template(site: Path | None, config: Path | None) -> Path:
    """Writes the settings to begin with. Raises FixInput where there are some, NeedPermission."""
    path = settings_path(sites.open_site(site), config)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as error:
        raise FixInput(f"{path} exists already: it is never overwritten") from error
    except OSError as error:
        raise NeedPermission(f"{path}: cannot be written ({error.strerror})") from error
    return path


@dataclass(frozen=True)
class Checked:
    """Settings that an agent could run with, in words: a line each for what arrives and where it goes."""

    path: Path
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "settings": str(self.path),
            "sources": list(self.sources),
            "destinations": list(self.destinations),
            "warnings": list(self.warnings),
        }


def check(site: Path | None, config: Path | None) -> Checked:
    """Reads the settings and the files that they name; opens no key and asks nobody. Raises FixInput for the first mistake."""
    from ledger.agent.settings import read_settings
    from ledger.wiring.agent import check_files

    here = sites.open_site(site)
    path = settings_path(here, config)
    settings = read_settings(path)
    check_files(here, settings)
    return Checked(
        path,
        tuple(_shown_source(one) for one in settings.source),
        tuple(f"{one.name}: {one.ae_title} at {one.host}:{one.port}" for one in settings.destination),
        tuple(_warnings(settings)),
    )


def _shown_source(one: Any) -> str:
    places = {"dicom": "host", "folder": "path", "orthanc": "url"}
    place = f"{one.host}:{one.port}" if one.kind == "dicom" else getattr(one, places[one.kind])
    key = f"device {one.device}" if one.role == "acquire" else f"gateway {one.gateway}"
    goes = f"to {one.destination}" if one.destination else "sealed only, forwarded to nobody"
    return f"{one.name}: {one.kind} at {place}, {one.role} with the key of {key}, {goes}"


def _warnings(settings: Settings) -> list[str]:
    found = []
    used = {one.destination for one in settings.source}
    found += [f"destination {one.name}: no source forwards to it" for one in settings.destination if one.name not in used]
    for one in settings.source:
        if (
            one.kind == "dicom"
            and one.host in ("127.0.0.1", "::1", "localhost")
            and any(peer.address not in (None, "127.0.0.1", "::1") for peer in one.allow)
        ):
            found.append(f"source {one.name}: listens on this machine only, and allows a peer of elsewhere: set its host")
        if one.kind == "dicom" and not one.allow:
            found.append(f"source {one.name}: takes images of anybody who reaches its port: name who may send in `allow`")
    if settings.health.host not in ("127.0.0.1", "::1", "localhost"):
        found.append("health: answers anybody who reaches its port")
    return found


# ---- running --------------------------------------------------------------------------------------------------------


def run(site: Path | None, config: Path | None) -> None:
    """Runs the agent until a signal ends it. SIGHUP: with new settings, where these are in order; the old ones stay where they
    are not, and are gone back to where the agent cannot start with the new ones."""
    from ledger.agent.settings import read_settings
    from ledger.wiring import logs
    from ledger.wiring.agent import agent

    here = sites.open_site(site)
    path = settings_path(here, config)
    settings = read_settings(path)
    logs.configure()
    signals = _Signals(lambda: read_settings(path), here)
    before: Settings | None = None
    refused = ""
    while not signals.ended.is_set():
        running: Running | None = None
        try:
            with agent(here, settings) as running:
                running.refusals.say(RELOADING, refused)
                signals.obey(running, settings)
                running.agent.run()
        except (FixInput, NeedPermission) as error:
            if before is None or (running is not None and running.agent.started is not None):
                raise
            LOG.error("could not start with the new settings, the old ones stay", extra={"reason": str(error)})
            settings, before, refused = before, None, str(error)
            continue
        if signals.newer is None:
            return
        before, settings, refused = settings, signals.newer, ""
        LOG.info("starts again with new settings")


class _Signals:
    """What the operating system asks of the process. SIGTERM and SIGINT end it, at whatever moment they come."""

    def __init__(self, read: Any, site: Site) -> None:
        self._read, self._site = read, site
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._settings: Settings | None = None
        self._is_missed = False
        self.ended = threading.Event()
        self.newer: Settings | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._again)

    def obey(self, running: Running, settings: Settings) -> None:
        """From now on for this agent; settings that somebody asked to be read while there was none are read now."""
        with self._lock:
            self._running, self._settings, self.newer = running, settings, None
            is_missed, self._is_missed = self._is_missed, False
        if is_missed:
            self._again()
        if self.ended.is_set():
            running.agent.stopping.set()

    def _end(self, *_: Any) -> None:
        self.ended.set()
        if self._running is not None:
            self._running.agent.stopping.set()

    def _again(self, *_: Any) -> None:
        # Not in the handler: that interrupts the main thread wherever it is, with whatever it holds.
        threading.Thread(target=self._reload, name="settings", daemon=True).start()

    def _reload(self) -> None:
        from ledger.wiring.agent import check_keys

        with self._lock:
            running = self._running
            if running is None or running.agent.stopping.is_set():
                self._is_missed = True
                return
            try:
                newer = self._read()
                check_keys(self._site, newer)
            except ScanSealError as error:
                LOG.error("settings refused, the old ones stay", extra={"reason": str(error)})
                running.refusals.say(RELOADING, str(error))
                return
            running.refusals.say(RELOADING, "")
            if newer == self._settings:
                LOG.info("settings are the same")
                return
            self.newer = newer
            running.agent.stopping.set()


# ---- how it is ------------------------------------------------------------------------------------------------------


def status(site: Path | None, config: Path | None) -> dict[str, Any]:
    """What a running agent says of itself; of one that does not run, or does not answer, what its store says. `running` is
    whether one holds the site, `answers` whether it is what told; docs/agent.md has the other members. Raises FixInput,
    NeedPermission, TryLater."""
    from ledger.agent.settings import read_settings

    here = sites.open_site(site)
    settings = read_settings(settings_path(here, config))
    is_running = holds(here.folder / LOCK)
    told = ask(here, settings) if is_running else None
    if told is not None:
        return {"running": True, "answers": True} | told
    return {"running": is_running, "answers": False} | _stored(here, settings).as_json()


def ask(site: Site, settings: Settings) -> dict[str, Any] | None:
    """The answer of this site's agent on its health port; None where there is none."""
    from ledger.agent.health import asked

    told = asked(settings.health.host, settings.health.port) if settings.health.port else None
    return told if told is not None and told.get("site") in (site.name, None) else None


def _stored(site: Site, settings: Settings) -> Health:
    """How the site's store says that it is; asks nobody."""
    from ledger.agent.health import Health
    from ledger.store.payments import PaymentStore
    from ledger.store.spool import SpoolStore
    from ledger.wiring.agent import free_for
    from ledger.wiring.assembly import opened
    from ledger.wiring.standing import Situation, Standing

    with opened(site, read_only=True) as store:
        counts = SpoolStore(store.store).counts()
        payments = PaymentStore(store.store, time.time)
        log = store.log(to_write=False)
        standing = Standing(log, store.journal, store.anchors, payments, site.anchoring, time.time)
        anchoring = standing.status(Situation(doing="the agent does not tell")) if settings.anchor else None
    return Health(
        time.time(),
        site.name,
        0,
        version("scanseal"),
        None,
        {},
        counts,
        free_for(site, settings),
        0,
        {},
        {},
        {},
        (),
        None if anchoring is None else anchoring.as_json(),
        None,
    )


def holds(path: Path) -> bool:
    """Whether a process holds a lock file. Makes none: it would belong to whoever asks."""
    import fcntl

    try:
        with path.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise NeedPermission(f"{path}: cannot be looked at ({error.strerror})") from error
    return False
