"""A local chain to try things on: anvil, or ganache where there is no anvil, as a background process that outlives its starter.

Its state lies in one folder (`anvil.json` or `ganache/`, `devnet.json` about the process, `devnet.log`) and survives `down`, a
reboot and mostly a kill: anvil writes its state every second, so SIGKILL loses what is younger. It listens on loopback only.
The accounts are those of the well-known test mnemonic: never use them where money is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ledger.chain.rpc import Call, Endpoint, Refusal, quantity
from ledger.core.errors import FixInput, LedgerUnavailable, NeedPermission, ScanSealError, TryLater

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

Kind = Literal["anvil", "ganache"]

CHAIN_ID = 31337
MNEMONIC = "test test test test test test test test test test test junk"
"""Anvil's default: ten accounts with 10,000 coins each."""
HOST = "127.0.0.1"
_VARIABLES: Mapping[Kind, str] = {"anvil": "SCANSEAL_ANVIL", "ganache": "SCANSEAL_GANACHE"}
_HARDFORKS: Mapping[Kind, str] = {"anvil": "osaka", "ganache": "shanghai"}
_READY_S = 60.0
_STOP_S = 20.0
_RELEASE_S = 3.0


@dataclass(frozen=True)
class Status:
    """A devnet as it is now. `block` is None while it does not run."""

    running: bool
    kind: Kind
    url: str
    chain_id: int
    pid: int
    started: str
    """When the process started, as the system tells it: another process with this number has another."""
    log: str
    hardfork: str
    genesis_time: int
    """Timestamp of the genesis block, which anvil would make anew, and with it the genesis hash, at each start."""
    block: int | None = None


class Devnet:
    """The local chain whose state lies in `folder`. Methods can be repeated: what is done already is said, not done again."""

    def __init__(self, folder: Path, *, search: Sequence[Path] | None = None) -> None:
        """`search`: folders whose `node_modules` may have the binaries; None: where we are and above, and this checkout."""
        self._folder = folder
        self._search = _places() if search is None else tuple(search)
        self._status_path = folder / "devnet.json"

    def up(self, port: int = 0, *, kind: Kind | None = None, hardfork: str | None = None) -> Status:
        """Starts the chain, or says that it runs. `port` 0 takes the port of last time, else a free one.

        `kind` (anvil where there is one) and `hardfork` count when the chain is new.

        Raises FixInput where no binary is found or the port is taken, LedgerUnavailable where the process does not come up.
        """
        self._make_folder()
        with _locked(self._folder / "devnet.lock"):
            return self._up(port, kind, hardfork)

    def _up(self, port: int, kind: Kind | None, hardfork: str | None) -> Status:
        known = self._settled()
        if known is not None and known.running:
            return known
        if known is not None and _is_alive(known):
            raise TryLater(
                f"the devnet (process {known.pid}) runs and does not answer: stop it first, or look into {known.log}"
            )
        kind = known.kind if known is not None else kind
        kind, binary = self._binary(kind)
        port = port or self._last_port(known) or _free_port()
        if _is_taken(port):
            raise FixInput(f"port {port} on {HOST} is taken by another program: name another port")
        genesis_time = int(time.time()) if known is None else known.genesis_time
        hardfork = known.hardfork if known is not None else hardfork or _HARDFORKS[kind]
        log = self._folder / "devnet.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - a binary that the caller's environment names, no shell
                [str(binary), *self._arguments(kind, port, hardfork, genesis_time)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )
        started = (_process(process.pid) or "").partition(" ")[2]
        status = Status(True, kind, f"http://{HOST}:{port}", CHAIN_ID, process.pid, started, str(log), hardfork, genesis_time)
        self._write(status)
        return self._ready(status, process)

    def down(self) -> Status | None:
        """Stops the chain and keeps its state; the status after that, None where there never was one."""
        known = self.status()
        if known is None or not _is_alive(known):
            return known
        with contextlib.suppress(ProcessLookupError):
            os.killpg(known.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while _is_alive(known):
            if time.monotonic() > deadline:
                raise TryLater(
                    f"the devnet (process {known.pid}) has not stopped within {_STOP_S:g} s: it may be writing its state"
                )
            time.sleep(0.05)
        stopped = replace(known, running=False, block=None)
        self._write(stopped)
        return stopped

    def status(self) -> Status | None:
        """How the chain is now; None where none was started in this folder."""
        try:
            known = Status(**json.loads(self._status_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise FixInput(f"{self._status_path} is not readable: remove it, the chain's state lies in another file") from error
        block = self._block(known) if _is_alive(known) else None
        return replace(known, running=block is not None, block=block)

    def _settled(self) -> Status | None:
        """As `status`; a process that does not answer is given a moment, since a killed one frees its memory before it ends."""
        deadline = time.monotonic() + _RELEASE_S
        while True:
            known = self.status()
            if known is None or known.running or not _is_alive(known) or time.monotonic() > deadline:
                return known
            time.sleep(0.05)

    def _binary(self, kind: Kind | None) -> tuple[Kind, Path]:
        kinds: tuple[Kind, ...] = ("anvil", "ganache") if kind is None else (kind,)
        for one in kinds:
            found = find_binary(one, self._search)
            if found is not None:
                return one, found
        raise FixInput(
            f"no {' or '.join(kinds)} found: run `npm install @foundry-rs/anvil` here, or name the binary in "
            f"{_VARIABLES[kinds[0]]}"
        )

    def _arguments(self, kind: Kind, port: int, hardfork: str, genesis_time: int) -> list[str]:
        if kind == "anvil":
            return [
                *("--host", HOST, "--port", str(port), "--chain-id", str(CHAIN_ID), "--mnemonic", MNEMONIC),
                *("--hardfork", hardfork, "--slots-in-an-epoch", "1", "--timestamp", str(genesis_time)),
                *(("--enable-tx-gas-limit",) if hardfork == "osaka" else ()),
                *("--state", str(self._folder / "anvil.json"), "--state-interval", "1", "--preserve-historical-states"),
            ]
        return [
            *("--server.host", HOST, "--server.port", str(port), "--chain.chainId", str(CHAIN_ID)),
            *("--wallet.mnemonic", MNEMONIC, "--wallet.defaultBalance", "10000"),
            *("--chain.hardfork", hardfork, "--database.dbPath", str(self._folder / "ganache")),
        ]

    def _ready(self, status: Status, process: subprocess.Popen[bytes]) -> Status:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            block = self._block(status)
            if block is not None:
                if status.kind == "anvil":
                    # With a genesis time of its own, anvil's clock would go on from there.
                    Endpoint(status.url).call("evm_setTime", int(time.time()))
                return replace(status, block=block)
            time.sleep(0.05)
        else:
            process.terminate()
        raise LedgerUnavailable(f"{status.kind} did not come up; its last words: {_last_line(Path(status.log))}")

    def _block(self, status: Status) -> int | None:
        """The newest block's number, None where what listens there is not our chain."""
        try:
            chain_id, block = Endpoint(status.url, timeout_s=5).results([Call("eth_chainId"), Call("eth_blockNumber")])
            number = quantity(block, "block number")
        except ScanSealError:
            return None
        return number if quantity(chain_id, "chain id") == status.chain_id else None

    def _last_port(self, known: Status | None) -> int:
        """The port of last time, 0 where another program has it by now."""
        if known is None:
            return 0
        port = int(known.url.rpartition(":")[2])
        deadline = time.monotonic() + _RELEASE_S
        while _is_taken(port):  # a killed process's threads keep it for a moment
            if time.monotonic() > deadline:
                return 0
            time.sleep(0.05)
        return port

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NeedPermission(f"{self._folder}: cannot be made ({error.strerror})") from error

    def _write(self, status: Status) -> None:
        new = self._status_path.with_suffix(".new")
        new.write_text(json.dumps(asdict(replace(status, block=None)), indent=2) + "\n", encoding="utf-8")
        new.replace(self._status_path)


def make_block(endpoint: Endpoint) -> bool:
    """Lets a devnet make the next block, since it makes none without transactions; False on any chain that is none."""
    version, chain_id = endpoint.batch([Call("web3_clientVersion"), Call("eth_chainId")])
    is_devnet = isinstance(version, str) and version.lower().startswith(("anvil/", "ganache/")) and chain_id == hex(CHAIN_ID)
    return is_devnet and not isinstance(endpoint.batch([Call("evm_mine")])[0], Refusal)


def account(number: int = 0) -> LocalAccount:
    """One of the well-known accounts that have coins on a devnet."""
    from eth_account import Account

    Account.enable_unaudited_hdwallet_features()
    made: LocalAccount = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{number}")
    return made


def give_coins(endpoint: Endpoint, address: bytes, wei: int) -> None:
    """Sends coins of a well-known account to another on a devnet. Raises LedgerUnavailable elsewhere."""
    giver = account()
    nonce, price = endpoint.results([Call("eth_getTransactionCount", (giver.address, "pending")), Call("eth_gasPrice")])
    signed = giver.sign_transaction(
        {
            "chainId": CHAIN_ID,
            "nonce": quantity(nonce, "nonce"),
            "gas": 21_000,
            "gasPrice": 2 * quantity(price, "gas price"),
            "to": address,
            "value": wei,
            "data": b"",
        }
    )
    endpoint.call("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex())


def find_binary(kind: Kind, search: Sequence[Path]) -> Path | None:
    """A binary by environment variable, PATH, or `node_modules/.bin`; None without one.

    Raises FixInput where the variable names no program.
    """
    if named := os.environ.get(_VARIABLES[kind]):
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise FixInput(f"{_VARIABLES[kind]} names {named}, which is no program")
        return _behind_wrapper(Path(named))
    if found := shutil.which(kind):
        return _behind_wrapper(Path(found))
    for folder in search:
        local = folder / "node_modules" / ".bin" / kind
        if os.access(local, os.X_OK):
            return _behind_wrapper(local)
    return None


def _behind_wrapper(path: Path) -> Path:
    """The program itself where `path` is npm's script that only starts it, so that its process is ours to watch."""
    real = path.resolve()
    if real.parent.name != "anvil" or real.suffix != ".mjs":
        return path
    programs = [program for program in real.parent.parent.glob("anvil-*/bin/anvil*") if os.access(program, os.X_OK)]
    return programs[0] if len(programs) == 1 else path


def _places() -> tuple[Path, ...]:
    here, checkout = Path.cwd(), Path(__file__).resolve().parents[2]
    return (here, *here.parents, checkout)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


def _is_alive(status: Status) -> bool:
    """Whether the chain's process runs, or one that it started (it leads a process group)."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(status.pid, os.WNOHANG)  # one of ours that has ended is no process any more
    try:
        os.killpg(status.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    process = _process(status.pid)
    if process is None:
        return True
    state, _, started = process.partition(" ")
    return started == status.started and not state.startswith("Z")


def _process(pid: int) -> str | None:
    """State and start time of a process, None where there is none."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return f"{fields[0]} {fields[19]}"  # proc(5): state and starttime
    shown = subprocess.run(  # noqa: S603 - fixed words and a number
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607 - wherever the system has it
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
    )
    return " ".join(shown.stdout.split()) or None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "none")
