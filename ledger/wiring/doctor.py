"""`scanseal agent doctor`: everything that the agent needs, tried one by one, with what to do where it fails.

It changes nothing and stores nothing (but for the PACS's test image, when asked to), and may run beside the agent.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from ledger.agent import settings as agent_settings
from ledger.agent.forwarding import echo
from ledger.agent.orthanc import version
from ledger.agent.probe import store_test
from ledger.agent.settings import DicomSource, FolderSource, OrthancSource, Settings
from ledger.chain import Ledger
from ledger.core.certificates import Certificate
from ledger.core.checkpoint import parse_and_verify
from ledger.core.errors import LedgerDisagrees, LedgerUnavailable, ScanSealError, TryLater
from ledger.core.records import Role
from ledger.core.signatures import check as check_signature
from ledger.core.trust import Trust
from ledger.keys import authority, signers
from ledger.wiring import agent as wiring
from ledger.wiring import assembly, assembly_agent, assembly_anchoring, chain, remote
from ledger.wiring import site as sites
from ledger.wiring.site import Site

SOON = timedelta(days=30)
"""A certificate that ends earlier is renewed now."""
_START_NODE = "start the node, or correct rpc in site.toml"
PATIENCE_S = 10.0
"""How long a peer may take: somebody waits."""

STARTS_WITHIN_S = 60.0

State = Literal["well", "fix", "down"]
EXIT_CODES: dict[State, int] = {"well": 0, "fix": 2, "down": 6}


@dataclass(frozen=True)
class Finding:
    """One check: `well`, or what is to be fixed here, or down elsewhere; `todo` says what to do about it."""

    check: str
    state: State
    says: str
    todo: str = ""


@dataclass(frozen=True)
class Examined:
    """All findings, in the order in which they are to be fixed."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """2 where something must be fixed, else 6 where something outside is down, else 0."""
        states = {finding.state for finding in self.findings}
        return next((EXIT_CODES[state] for state in ("fix", "down") if state in states), 0)

    def as_json(self) -> dict[str, Any]:
        return {"exit_code": self.exit_code, "findings": [asdict(finding) for finding in self.findings]}


class _Ill(Exception):
    """A check that failed for a reason of its own."""

    def __init__(self, says: str, todo: str, state: State = "fix") -> None:
        super().__init__(says)
        self.says, self.todo, self.state = says, todo, state


def examine(site: Path | None, config: Path | None, *, store_test: bool = False) -> Examined:
    """Tries everything. With `store_test` each PACS is sent a made-up image, which stays there. Raises FixInput where there is
    no site."""
    return Examined(tuple(_Doctor(sites.open_site(site), config, sends=store_test).findings()))


class _Doctor:
    def __init__(self, site: Site, config: Path | None, *, sends: bool) -> None:
        self._site, self._path, self._sends = site, assembly_agent.settings_path(site, config), sends
        self._settings: Settings | None = None
        self._trust: Trust | None = None
        self._ledger: Ledger | None = None
        self._told: dict[str, Any] | None = None
        self._runs = False

    def findings(self) -> Iterator[Finding]:
        yield self._tried("settings", f"correct {self._path}; `scanseal agent check` names the mistakes", self._read)
        yield self._tried("agent", "`scanseal agent status` and the agent's log say more", self._agent)
        yield self._tried("store", "docs/operations/README.md: backup and restore", self._store)
        yield self._tried("trust file", "`scanseal deploy`, or the ledger's trust file of your registrar", self._believe)
        yield self._tried("disk", "", self._disk)
        if self._trust is not None:
            yield from self._chain()
        for name, needed in self._keys().items():
            yield self._tried(f"key {name}", f"see `scanseal device request {name}`", self._key, name)
            yield self._tried(f"certificate {name}", "", self._certificate, name)
            asks = self._site.rpc or self._site.node is None
            if self._trust is not None and asks and self._site.certificate_path(name).exists():
                yield self._tried(f"role of {name}", _START_NODE, self._role, name, needed)
        if self._trust is not None:
            yield from self._anchoring()
        yield from self._peers(self._settings) if self._settings is not None else ()

    def _peers(self, settings: Settings) -> Iterator[Finding]:
        for source in settings.source:
            if isinstance(source, DicomSource):
                yield self._tried(f"port of {source.name}", "", self._port, source.name, source.host, source.port)
            elif isinstance(source, FolderSource):
                yield self._tried(f"folder of {source.name}", "", self._folder, source)
            else:
                yield self._tried(f"Orthanc of {source.name}", "start it, or correct its url", self._orthanc, source)
        if settings.health.port:
            yield self._tried("port of health", "", self._port, "health", settings.health.host, settings.health.port)
        for destination in settings.destination:
            todo = "start it, open the firewall, or correct host, port and AE titles: the PACS must know the calling AE title"
            yield self._tried(f"PACS {destination.name}", todo, self._pacs, destination)

    def _tried(self, check: str, todo: str, attempt: Callable[..., str], *arguments: Any) -> Finding:
        """A check with its outcome: `attempt` says what is well, or raises; `todo` is for what says none of its own."""
        try:
            return Finding(check, "well", attempt(*arguments))
        except _Ill as ill:
            return Finding(check, ill.state, ill.says, ill.todo)
        except LedgerDisagrees as error:
            return Finding(check, "fix", str(error), "name nodes of the right chain as rpc in site.toml")
        except TryLater as error:
            return Finding(check, "down", str(error), todo or "try again")
        except ScanSealError as error:
            return Finding(check, "fix", str(error), todo or "correct it")
        except OSError as error:
            return Finding(check, "fix", error.strerror or type(error).__name__, todo or "correct it")

    # ---- this machine -----------------------------------------------------------------------------------------------

    def _read(self) -> str:
        read = agent_settings.read_settings(self._path)
        self._settings = read
        wiring.check_files(self._site, read)
        return f"{self._path}: {len(read.source)} sources, {len(read.destination)} destinations"

    def _agent(self) -> str:
        self._runs = assembly_agent.holds(self._site.folder / assembly_agent.LOCK)
        if not self._runs:
            return "does not run"
        self._told = assembly_agent.ask(self._site, self._settings) if self._settings is not None else None
        if self._told is None:
            if self._settings is not None and self._settings.health.port:
                raise _Ill(
                    "runs, and does not answer on its health port", "look at its log; has it the newest settings?", "down"
                )
            return "runs, and has no health port to ask"
        if alarms := self._told["alarms"]:
            raise _Ill("; ".join(alarms), "docs/agent.md and docs/anchoring.md say what to do about each alarm")
        if troubles := self._told["troubles"]:
            says = "; ".join(f"{part}: {why}" for part, why in troubles.items())
            raise _Ill(says, "the checks below say what to do", "down")
        return f"runs, process {self._told['pid']}"

    def _store(self) -> str:
        with assembly.opened(self._site, read_only=True) as store:
            records, queued = store.journal.counts()[:2]
        return f"{records} records, {queued} of them queued"

    def _disk(self) -> str:
        if self._settings is None:
            raise _Ill("where the spool lies is not known", "correct the settings first")
        folder = wiring.spool_folder(self._site, self._settings)
        least, free = self._settings.spool.min_free_mb << 20, wiring.free_for(self._site, self._settings)
        if free < least:
            raise _Ill(
                f"{free >> 20} MiB are free, {least >> 20} are to stay free: images are refused",
                "make room, or lower keep_s or min_free_mb in [spool]",
            )
        place = next(one for one in (folder, *folder.parents) if one.exists())
        probe = place / f".doctor-{secrets.token_hex(6)}"
        try:
            started = time.monotonic()
            with probe.open("xb") as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
            took = time.monotonic() - started
        except OSError as error:
            raise _Ill(f"{place} cannot be written ({error.strerror})", "give it to the user that the agent runs as") from error
        finally:
            probe.unlink(missing_ok=True)
        owner, me = place.stat().st_uid, os.geteuid()
        remark = "" if me == owner else f"; tried as user {me}, the spool is of user {owner}: run the doctor as that one"
        return f"{shutil.disk_usage(place).free >> 20} MiB free in {place}, a write on disk took {took * 1000:.0f} ms{remark}"

    def _port(self, name: str, host: str, port: int) -> str:
        told = self._told
        if told is not None and (name == "health" or told["ports"].get(name) == port):
            return f"{port} is held by the running agent"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError as error:
                todo = "give the agent CAP_NET_BIND_SERVICE (docs/operations/scanseal-agent.service), or take a port above 1023"
                raise _Ill(f"may not listen on port {port}", todo) from error
            except OSError as error:
                if self._runs and told is None:
                    return f"{port} is in use, by the running agent it seems"
                todo = f"find who has it (`ss -ltnp`), or take another; {host} must be an address of this machine"
                raise _Ill(f"cannot listen on {host}:{port} ({error.strerror})", todo) from error
        return f"{port} is free" + ("; the running agent has other settings: reload it" if told is not None else "")

    def _folder(self, source: FolderSource) -> str:
        needed = os.R_OK | os.X_OK | (os.W_OK if source.remove else 0)
        if not source.path.is_dir():
            raise _Ill(f"{source.path} is no folder", "make or mount it, or correct path", "down")
        if not os.access(source.path, needed):
            word = "read and emptied" if source.remove else "read"
            raise _Ill(f"{source.path} cannot be {word}", "give the agent's user the rights to it")
        with os.scandir(source.path) as entries:
            found = any(True for _ in entries)
        return f"{source.path} can be read{'' if found else ', and is empty'}"

    # ---- keys -------------------------------------------------------------------------------------------------------

    def _keys(self) -> dict[str, Role]:
        """The keys that the settings name, with the role that each needs."""
        needed: dict[str, Role] = {}
        for source in self._settings.source if self._settings is not None else ():
            for name, role in ((source.device, Role.ACQUIRE), (source.gateway, Role.HOLD)):
                if name is not None:
                    needed[name] = needed.get(name, Role(0)) | role
        return needed

    def _key(self, name: str) -> str:
        signer = self._site.signer(name)
        digest = secrets.token_bytes(32)
        check_signature(signer.public_key_der, digest, signer.sign(digest))
        return "opens and signs"

    def _certificate(self, name: str) -> str:
        path = self._site.certificate_path(name)
        if not path.exists():
            raise _Ill("there is none", f"`scanseal device approve {name}`, by the registrar; its .pem goes to {path}")
        certificate = sites.read_certificate(path)
        renewed = f"`scanseal device rotate {name} NEW` and name NEW in the settings"
        ends = certificate.x509.not_valid_after_utc
        if not certificate.is_valid_at(int(time.time())):
            raise _Ill(f"is not valid today: it is from {_day(certificate)} to {ends:%Y-%m-%d}", renewed)
        if ends - datetime.now(UTC) < SOON:
            raise _Ill(f"ends on {ends:%Y-%m-%d}", renewed)
        if self._trust is not None and not self._is_believed(certificate):
            raise _Ill("was issued by nobody whom the trust file names", "ask the registrar for the right certificate")
        with suppress(ScanSealError):
            if self._site.signer(name).key != certificate.key:
                raise _Ill(
                    "is of another key than the one here", f"`scanseal device approve {name}` with the request of this key"
                )
        return f"{certificate.holder().name}, until {ends:%Y-%m-%d}"

    def _is_believed(self, certificate: Certificate) -> bool:
        issuers = self._trust.issuers() if self._trust is not None else ()
        return any(certificate.is_issued_by(one) for _, one in issuers)

    def _role(self, name: str, needed: Role) -> str:
        certificate = sites.read_certificate(self._site.certificate_path(name))
        state = self._connected().key_state(certificate.key)
        if not any(state.certificate):
            raise _Ill(
                "its key is not enrolled on chain",
                f"`scanseal device approve {name} --roles {needed.words.replace(', ', ',')}`",
            )
        if state.compromised_since or state.retired_at:
            word = "revoked" if state.compromised_since else "retired"
            raise _Ill(f"its key is {word} on chain: nothing is sealed with it", "request and approve another key, and name it")
        if state.certificate != certificate.fingerprint:
            raise _Ill(
                "another certificate of it is enrolled on chain", f"put the enrolled one to {self._site.certificate_path(name)}"
            )
        if needed & ~state.roles:
            missing = needed & ~state.roles
            todo = "a key's roles are for ever: request another key and have it approved with --roles"
            raise _Ill(f"its key may not {missing.words}: its roles are {state.roles.words}", todo)
        return state.roles.words

    # ---- the chain --------------------------------------------------------------------------------------------------

    def _believe(self) -> str:
        self._trust = self._site.trust()
        return f"chain {self._trust.chain_id}, log {self._trust.logs[0].origin}"

    def _connected(self) -> Ledger:
        if self._ledger is None:
            if self._trust is None:
                raise LedgerUnavailable("there is no trust file, so no chain is known")
            self._ledger = chain.connect(self._site.rpc, self._trust)
        return self._ledger

    def _chain(self) -> Iterator[Finding]:
        if not self._site.rpc and self._site.node is not None:
            return
        if not self._site.rpc:
            yield Finding("RPC", "fix", "site.toml names no node", 'add rpc = ["http://..."] to it')
        for number, url in enumerate(self._site.rpc, 1):
            yield self._tried(f"RPC {number}", _START_NODE, self._node, url)
        yield self._tried("clock", _START_NODE, self._clock)

    def _node(self, url: str) -> str:
        if self._trust is None:
            raise LedgerUnavailable("there is no trust file, so no chain is known")
        ledger = chain.connect((url,), self._trust)
        self._ledger = self._ledger or ledger
        name = chain.endpoints((url,))[0].name
        return f"{name} has chain {self._trust.chain_id}, its contracts and block {ledger.heights().included}"

    def _clock(self) -> str:
        newest = self._connected().beacon().header.timestamp
        ahead = time.time() - newest
        if ahead < -assembly.CLOCK_TOLERANCE_S:
            raise _Ill(
                f"this machine's clock is {-ahead:.0f} s behind the chain's newest block",
                "set it (`timedatectl set-ntp true`, `chronyc makestep`); until then the block's time is claimed",
            )
        if ahead > assembly.CLOCK_TOLERANCE_S and not chain.is_devnet(self._site.trust()):
            raise _Ill(
                f"the chain's newest block is {ahead:.0f} s old: the chain stands still, or this machine's clock is ahead",
                "compare it with a time server (`chronyc tracking`), and the node with another",
                "down",
            )
        return f"{abs(ahead):.0f} s {'ahead of' if ahead >= 0 else 'behind'} the chain's newest block"

    # ---- anchoring --------------------------------------------------------------------------------------------------

    def _anchoring(self) -> Iterator[Finding]:
        yield self._tried("anchor lock", "", self._lock)
        if self._settings is None or not self._settings.anchor:
            return
        if self._site.node is not None:
            yield self._tried("log node", "docs/node.md says what a site at a node needs", self._log_node)
        else:
            todo = f"set {sites.PASSPHRASE_VARIABLE}, or name a passphrase_file in site.toml"
            yield self._tried("account", todo, self._account)
        yield self._tried("log", _START_NODE, self._log)

    def _lock(self) -> str:
        is_held = assembly_agent.holds(self._site.folder / "anchor.lock")
        if self._settings is not None and not self._settings.anchor:
            if not is_held:
                raise _Ill("nobody anchors", "set anchor = true, or run `scanseal anchor --watch` beside the agent")
            return "another process anchors, as the settings say"
        if self._runs and not is_held and not self._starts():
            raise _Ill("the agent runs, and nobody anchors", "`scanseal agent status` says why", "down")
        return "held by who anchors" if is_held else "free"

    def _starts(self) -> bool:
        """Whether the agent has only just begun: its processes take some seconds."""
        started = (self._told or {}).get("started")
        return started is None or time.time() - started < STARTS_WITHIN_S

    def _account(self) -> str:
        account = signers.load_account(self._site.account_path, self._site.passphrase())
        authority.load_log_key(self._site.log_key_path, self._site.passphrase())
        market = self._connected().market(bytes.fromhex(account.address[2:]))
        if not market.balance_wei:
            raise _Ill("it is empty: nothing is anchored", f"send gas money to {account.address}")
        return f"{account.address} opens, and the log's key"

    def _log_node(self) -> str:
        node = remote.client(self._site)
        try:
            trusted = self._site.trust().logs[0]
            size = parse_and_verify(node.checkpoint(), trusted.origin, trusted.key).size
            node.try_token()
        finally:
            node.close()
        return f"{node.name} takes this site's token, and shows a log of {size} records"

    def _log(self) -> str:
        status = assembly_anchoring.log_status(self._site.folder)
        if status.alarms:
            todo = "docs/anchoring.md says what to do about each alarm"
            raise _Ill("; ".join(str(alarm) for alarm in status.alarms), todo)
        days = status.forecast.days_left
        lasts = "" if days is None else f"; the account lasts for {days:,.0f} days"
        return f"{status.log_size} records, {status.anchored_size} on chain, {status.queued} queued{lasts}"

    # ---- others -----------------------------------------------------------------------------------------------------

    def _pacs(self, one: agent_settings.PacsDestination) -> str:
        shorter = one.model_copy(update={"timeout_s": min(PATIENCE_S, one.timeout_s)})
        echo(wiring.pacs(shorter))
        if not self._sends:
            return "answers C-ECHO"
        store_test(wiring.pacs(shorter), self._site.name.encode())
        return "answers C-ECHO, and took a test image (patient SCANSEAL-TEST): it may be deleted there"

    def _orthanc(self, source: OrthancSource) -> str:
        return f"answers, version {version(wiring.orthanc(source))}"


def _day(certificate: Certificate) -> str:
    return f"{certificate.x509.not_valid_before_utc:%Y-%m-%d}"
