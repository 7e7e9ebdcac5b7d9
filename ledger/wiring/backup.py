"""A copy of a site that is whole, and what it takes to go on from one without signing a counter twice. docs/decisions/011.

A backup is of one moment. What its keys signed after that moment nobody can tell who has only the backup: were they to sign
on from it, two records would have one counter, and look like fraud. So every key is barred in the copy, and a site that is
restored goes on with new keys. Only where the site itself was told to sign no more (`move`) its keys sign on in the copy.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from ledger.core import merkle
from ledger.core.errors import FixInput, NeedPermission, Stop, TryLater
from ledger.log import check
from ledger.log.mirror import Mirror
from ledger.store.copying import copy_store, settle
from ledger.store.spool import SpoolStore
from ledger.wiring import site as sites
from ledger.wiring.anchors import only_one
from ledger.wiring.assembly import Opened, opened
from ledger.wiring.site import Site

FORMAT: Final = "scanseal-backup-1"
CONTENTS: Final = "backup.json"
"""The last member: without it the archive is not whole."""
FILES: Final = ("site.toml", "trust.toml", "agent.toml")
FOLDERS: Final = ("keys", "ca", "devices", "node", "fingerprints")
STORE: Final = "store.sqlite"
SPOOL: Final = "spool"
SECRET: Final = ("keys/", "ca/ca.key", "node/client.key")
"""What a site for evidence alone does without."""
BATCH: Final = 4096
CONTENTS_LIMIT: Final = 1 << 28
MOVED: Final = "this site was moved to another machine"


@dataclass(frozen=True)
class Backed:
    """What was copied. `left_out`: secrets that the site names and that are kept apart from its keys."""

    path: Path
    size: int
    records: int
    log_size: int
    images: int
    left_out: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"path": str(self.path), "left_out": list(self.left_out)}


@dataclass(frozen=True)
class Restored:
    """What was restored. `anchored_size`: of the log on chain, None for a site that has none; `added`: records of the log that
    a mirror had and the backup had not; `barred`: keys that sign no more, by name."""

    folder: Path
    made: str
    records: int
    log_size: int
    anchored_size: int | None
    added: int
    barred: tuple[str, ...]
    left_out: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return vars(self) | {"folder": str(self.folder), "barred": list(self.barred), "left_out": list(self.left_out)}


# ---- backing up -----------------------------------------------------------------------------------------------------


def backup(folder: Path | None, out: Path, config: Path | None = None, *, move: bool = False) -> Backed:
    """Copies a site into one file, as of one moment, while the agent runs.

    1. with `move`: nothing runs, and every key is barred here, before anything is copied;
    2. the images that wait get a second name, so that they stay until they are copied;
    3. the store is copied by SQLite's online backup, and every key barred in the copy (with `move`: none);
    4. everything goes into a new file beside `out`, which is on disk before it gets its name.

    Raises FixInput where `out` exists, NeedPermission, TryLater (nothing is left).
    """
    site = sites.open_site(folder)
    if out.exists():
        raise FixInput(f"{out} exists already: it is never overwritten")
    with ExitStack() as stack:
        # 1
        if move:
            _stop_signing(site, stack)
        try:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".backup-", dir=out.absolute().parent)))
            # 2, 3
            spool = _spool_folder(site, config)
            links = stack.enter_context(_links(spool))
            _link(spool, links)
            copy_store(site.store_path, work / STORE)
            made = int(time.time())
            with opened(Site(work, site.name, site.rpc)) as store:
                copy = Opened(site, store.store)
                _mark(site, copy, made, moved=move)
                log_size, (records, _) = _log_size(copy), copy.journal.counts()
                waiting = [file.name for file in SpoolStore(copy.store).kept() if file.is_waiting]
            settle(work / STORE)
            _link(spool, links, waiting)
            # 4
            left_out = _secrets_apart(site, config)
            head = {"format": FORMAT, "site": site.name, "made": made, "moved": move, "version": version("scanseal")}
            head |= {"records": records, "log_size": log_size, "left_out": left_out}
            part = work / "backup.tar"
            _write(part, head, _members(site, config, work / STORE, spool, links, waiting, left_out))
            size = part.stat().st_size
            part.rename(out)
            _sync(out.absolute().parent)
        except PermissionError as error:
            raise NeedPermission(f"{error.filename}: {error.strerror}") from error
        except OSError as error:
            raise TryLater(f"no backup was made ({error.strerror})") from error
    return Backed(out, size, records, log_size, len(waiting), tuple(left_out))


def _stop_signing(site: Site, stack: ExitStack) -> None:
    stack.enter_context(only_one(site.folder / "agent.lock", "`scanseal agent run`"))
    stack.enter_context(only_one(site.folder / "anchor.lock"))
    with opened(site) as store:
        store.journal.bar(_keys(site, store), MOVED)


def _mark(site: Site, copy: Opened, made: int, *, moved: bool) -> None:
    if moved:
        copy.journal.unbar(MOVED)
        return
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(made))
    why = f"it is of a backup of {day}, and what it signed later is not known here; `scanseal device rotate` makes another key"
    copy.journal.bar(_keys(site, copy), why)


def _keys(site: Site, store: Opened) -> dict[bytes, str]:
    """key id -> name, of every key that this site has, had or asked for."""
    found = dict.fromkeys(store.journal.signers(), "a key without certificate")
    found |= site.requested()
    return found | {certificate.key: name for name, certificate in site.certificates().items()}


def _spool_folder(site: Site, config: Path | None) -> Path:
    from ledger.agent.settings import read_settings
    from ledger.wiring.agent import spool_folder

    path = config or site.folder / "agent.toml"
    return spool_folder(site, read_settings(path)) if path.exists() else site.folder / SPOOL


@contextmanager
def _links(spool: Path) -> Iterator[Path]:
    """A folder in the spool for second names of its files; none where there is no spool."""
    if not spool.is_dir():
        yield spool
        return
    for stale in spool.glob(".backup-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=spool) as folder:
        yield Path(folder)


def _link(spool: Path, links: Path, names: list[str] | None = None) -> None:
    paths = sorted(spool.glob("*.dcm")) if names is None else [spool / name for name in names]
    for path in paths:
        if path.exists() and not (links / path.name).exists():
            try:
                os.link(path, links / path.name)
            except FileNotFoundError:
                continue  # finished and removed in this moment
            except OSError:
                shutil.copyfile(path, links / path.name)  # a file system without second names


def _secrets_apart(site: Site, config: Path | None) -> list[str]:
    """What opens the keys is not kept with the keys: the files of it that the site names."""
    named = [site.passphrase_file] if site.passphrase_file else []
    named += [site.node.token_file] if site.node else []
    if (config or site.folder / "agent.toml").exists():
        from ledger.agent.settings import OrthancSource, read_settings

        settings = read_settings(config or site.folder / "agent.toml")
        parts = [one.tls for one in settings.destination] + [getattr(one, "tls", None) for one in settings.source]
        named += [str(path) for part in parts if part for path in (part.certificate, part.key, part.client_ca, part.ca) if path]
        passwords = [one.password_file for one in settings.source if isinstance(one, OrthancSource)]
        named += [str(path) for path in passwords if path]
    return sorted(set(named))


def _members(
    site: Site, config: Path | None, store: Path, spool: Path, links: Path, waiting: list[str], left_out: list[str]
) -> Iterator[tuple[str, Path]]:
    """Name in the archive, file."""
    for name in FILES:
        path = config if name == "agent.toml" and config is not None else site.folder / name
        if path.is_file():
            yield name, path
    apart = {(site.folder / one).resolve() for one in left_out}
    for folder in FOLDERS:
        for path in sorted((site.folder / folder).rglob("*")):
            if path.is_file() and path.resolve() not in apart:
                yield path.relative_to(site.folder).as_posix(), path
    yield STORE, store
    for name in waiting:
        if (links / name).exists():
            yield f"{SPOOL}/{name}", links / name
    for path in [*sorted(spool.glob("*.last")), *sorted(spool.glob("commitments/*.json"))]:
        yield f"{SPOOL}/{path.relative_to(spool).as_posix()}", path


class _Hashing:
    """A file that is hashed as it is read, or written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self.digest.update(part)
        return part


def _write(path: Path, head: dict[str, Any], members: Iterator[tuple[str, Path]]) -> None:
    hashes: dict[str, str] = {}
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, source in members:
                with source.open("rb") as opened_file:
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode, entry.mtime = os.fstat(opened_file.fileno()).st_size, 0o600, int(head["made"])
                    hashing = _Hashing(opened_file)
                    archive.addfile(entry, hashing)
                    hashes[name] = hashing.digest.hexdigest()
            contents = json.dumps(head | {"files": hashes}, indent=1).encode()
            entry = tarfile.TarInfo(CONTENTS)
            entry.size, entry.mode, entry.mtime = len(contents), 0o600, int(head["made"])
            archive.addfile(entry, io.BytesIO(contents))
        file.flush()
        os.fsync(file.fileno())


# ---- restoring ------------------------------------------------------------------------------------------------------


def restore(archive: Path, folder: Path, mirror: Path | None = None, *, evidence_only: bool = False) -> Restored:
    """Makes a site of a backup in a new folder.

    1. every file is there and is what was backed up;
    2. the log is brought up to `mirror`, a mirror of the same log, where one is given;
    3. the chain has nothing of the log that the copy has not, else it could never be anchored again;
    4. the folder gets its name: until then nothing was restored.

    With `evidence_only` without keys: it signs and anchors nothing, and 2 and 3 are left out.

    Raises FixInput where the folder exists, the backup is not whole or older than the chain, TryLater where the chain does not
    answer: it has to be asked. Nothing is left then.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FixInput(f"{folder} is not empty: a site is restored into a new folder")
    part = folder.absolute().with_name(f".{folder.absolute().name}.restoring")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True, mode=0o700)
        # 1
        head = _extract(archive, part, evidence_only=evidence_only)
        site = sites.read_site(part)
        with opened(site) as store:
            # 2
            added = _grow(store, mirror) if mirror is not None and not evidence_only else 0
            # 3
            anchored = None if evidence_only else _compared(site, store)
            barred = store.journal.barred()
            names = sorted({name for key, name in _keys(site, store).items() if key in barred})
            records, log_size = store.journal.counts()[0], _log_size(store)
        # 4
        for path in (*part.rglob("*"), part):
            _sync(path)
        if folder.exists():
            folder.rmdir()
        part.rename(folder.absolute())
        _sync(folder.absolute().parent)
    except OSError as error:
        raise NeedPermission(f"{folder}: cannot be restored ({error.strerror})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sites.remember(folder)
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(head["made"]))
    return Restored(folder, made, records, log_size, anchored, added, tuple(names), tuple(head["left_out"]))


def _extract(archive: Path, folder: Path, *, evidence_only: bool) -> dict[str, Any]:
    """The files of a backup, each whole; what the archive says of itself."""
    hashes: dict[str, str] = {}
    head: Any = None
    try:
        with tarfile.open(archive, "r:") as opened_archive:
            for entry in opened_archive:
                source = opened_archive.extractfile(entry) if entry.isreg() else None
                if source is None or entry.issparse() or not _is_ours(entry.name) or entry.name in hashes:
                    raise FixInput(f"{archive} is not a backup of a site: it has {entry.name[:80]!r}")
                if entry.name == CONTENTS:
                    head = json.loads(source.read(CONTENTS_LIMIT))
                    continue
                path = folder / entry.name
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                hashing = _Hashing(source)
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    shutil.copyfileobj(hashing, file)
                hashes[entry.name] = hashing.digest.hexdigest()
    except FileNotFoundError as error:
        raise FixInput(f"{archive}: no such file") from error
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise FixInput(f"{archive} is not a whole backup ({type(error).__name__})") from error
    if not _is_head(head) or head["files"] != hashes:
        raise FixInput(f"{archive} is not a whole backup: what it says that it has is not what it has")
    for name in hashes if evidence_only else ():
        if name.startswith(SECRET):
            (folder / name).unlink()
    return dict(head)


def _is_head(head: Any) -> bool:
    """Whether it is what `backup` says of an archive."""
    has_all = isinstance(head, dict) and head.get("format") == FORMAT and {"made", "left_out", "files"} <= head.keys()
    return bool(has_all) and isinstance(head["made"], int) and isinstance(head["left_out"], list)


def _is_ours(name: str) -> bool:
    """Whether a member has a place in a site, and in that site alone."""
    path = PurePosixPath(name)
    is_inside = not path.is_absolute() and ".." not in path.parts and "\0" not in name
    return is_inside and (name in (*FILES, STORE, CONTENTS) or (len(path.parts) > 1 and path.parts[0] in (*FOLDERS, SPOOL)))


def _grow(store: Opened, folder: Path) -> int:
    """Appends what a mirror of this very log has more. Returns how many records."""
    log = store.log(to_write=True)
    head = check(folder, log.origin, log.public_key)
    size, mirror = log.head().size, Mirror(folder)
    if head.size <= size:
        return 0
    if merkle.root_from_tiles(size, mirror.tiles) != log.root(size):
        raise Stop(f"the mirror {folder} and the backup disagree on the first {size} records: one of them is another history")
    while (at := log.head().size) < head.size:
        log.append(list(mirror.entries(at, min(at + BATCH, head.size))), at=at)
    if log.root(head.size) != head.root:
        raise Stop(f"the log has another root than the mirror {folder} after it was brought up to it")
    return head.size - size


def _compared(site: Site, store: Opened) -> int | None:
    """The log's size on chain, which the copy has too. None for a site that has no ledger yet, or whose log a node keeps: what
    its keys have signed the node knows, and here they are barred."""
    from ledger.wiring import chain

    if site.node is not None or not site.trust_path.exists():
        return None
    trust, size = site.trust(), _log_size(store)
    anchored = chain.connect(site.rpc, trust).anchored_size(trust.logs[0].log_id)
    if anchored > size:
        raise FixInput(
            f"the chain has an anchor for {anchored} records, this backup has {size}: restore a newer one, or name a mirror of "
            "the log with --log-mirror; with --evidence-only what it has can be shown, and the site goes on as a new one"
        )
    return anchored


def _log_size(store: Opened) -> int:
    has_log = store.site.node is None and store.site.trust_path.exists()
    return store.log(to_write=False).head().size if has_log else 0


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
