"""A site whose log a node keeps: its client, and what it takes instead of a chain account. docs/node.md."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from ledger.core.errors import FixInput, LedgerUnavailable, NeedPermission, TryLater
from ledger.core.stateproof import Header, parse_header
from ledger.node.client import NodeClient
from ledger.wiring import site as sites
from ledger.wiring.assembly import opened
from ledger.wiring.leaving import Left
from ledger.wiring.site import RemoteNode, Site


def client(site: Site) -> NodeClient:
    """For a site with a node. Raises FixInput, NeedPermission (its token cannot be read)."""
    if site.node is None:
        raise FixInput("this site keeps its own log: it hands nothing in")
    path = site.folder / site.node.token_file
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NeedPermission(f"{path}: the site's token cannot be read ({type(error).__name__})") from error
    ders = {certificate.key: certificate.der for certificate in site.certificates().values()}
    return NodeClient(site.node.url, token, _path(site, site.node.ca), shown=_shown(site, site.node), certificates=ders)


def _path(site: Site, name: str | None) -> str | None:
    return None if name is None else str(site.folder / name)


def _shown(site: Site, node: RemoteNode) -> tuple[str, str] | None:
    certificate, key = _path(site, node.certificate), _path(site, node.key)
    return None if certificate is None or key is None else (certificate, key)


def newest_block(site: Site) -> tuple[Header, bytes]:
    """A recent block of the chain as the node shows it, with its RLP: for a site that asks no chain itself.

    A node that lies shows a block that the chain never had, and no record with it is ever proven to be younger than it.
    Raises LedgerUnavailable.
    """
    node = client(site)
    try:
        rlp = node.newest_header()
        return parse_header(rlp), rlp
    except TryLater as error:
        raise LedgerUnavailable(str(error)) from error
    finally:
        node.close()


@contextmanager
def left_with(site: Site | None, url: str | None, ca: Path | None) -> Iterator[Left]:
    """What was left with the node at a URL, or with the site's. The node is not asked, and not told who asks, before there is
    something to ask. Raises FixInput."""
    given = site.node if site is not None and url is None else None
    if given is not None and site is not None:
        named = NodeClient(given.url, None, _path(site, given.ca), shown=_shown(site, given))
    elif url is not None:
        named = NodeClient(url, None, None if ca is None else str(ca))
    else:
        raise FixInput("no node is named, and this site has none")
    with closing(named):
        yield Left(named)


def denouncing(site: Site) -> Callable[[str, str], None]:
    """Keeps two notes that the log's key signed and that contradict each other: whoever has the log's key can check them."""

    def keep(seen: str, shown: str) -> None:
        name = hashlib.sha256((seen + shown).encode()).hexdigest()[:16]
        path = site.node_folder / f"contradiction-{name}.txt"
        if not path.exists():
            sites.write_text(path, f"seen before:\n\n{seen}\nshown then:\n\n{shown}")

    return keep


def create(
    folder: Path, name: str, node: RemoteNode, trust: Path, rpc: tuple[str, ...], *, keep_passphrase: bool
) -> dict[str, Any]:
    """A new site that hands in to a node; `node`'s files and `trust`, the node's trust file, are copied into its folder.

    Nothing is asked of the node yet. Raises FixInput, NeedPermission.
    """
    believed = sites.read_trust(trust)
    if len(believed.logs) != 1:
        raise FixInput(f"{trust} names {len(believed.logs)} logs: the node's own trust file names one")
    shown = None if node.certificate is None or node.key is None else (node.certificate, node.key)
    NodeClient(node.url, None, node.ca, shown=shown).close()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NeedPermission(f"{folder}: cannot be made ({error.strerror})") from error
    if (folder / "site.toml").exists():
        raise FixInput(f"{folder} is a ScanSeal site already: nothing was changed")
    names = {"token_file": "node/token", "ca": "node/ca.pem", "certificate": "node/client.pem", "key": "node/client.key"}
    given = {member: getattr(node, member) for member in names if getattr(node, member) is not None}
    kept = RemoteNode(node.url, **{member: names[member] for member in given})
    for member, source in given.items():
        _copy(Path(source), folder / names[member])
    _copy(trust, folder / "trust.toml")
    site = sites.create(folder, name, rpc or believed.rpc, keep_passphrase=keep_passphrase, node=kept)
    with opened(site):
        pass
    return {"site": str(folder), "name": name, "node": node.url, "log": believed.logs[0].origin, "rpc": list(site.rpc)}


def adopt_certificate(folder: Path | None, path: Path) -> dict[str, Any]:
    """Takes over the certificate that the node's operator made of a request of this site. Raises FixInput."""
    site = sites.open_site(folder)
    certificate = sites.read_certificate(path)
    name = site.requested().get(certificate.key)
    if name is None:
        raise FixInput(f"{path} is of none of this site's keys: was it made of a request (devices/*.csr) from here?")
    if not any(certificate.is_issued_by(issuer) for _, issuer in site.trust().issuers()):
        raise FixInput("the certificate is of no authority that the site's trust file names")
    sites.write_text(site.certificate_path(name), certificate.x509.public_bytes(Encoding.PEM).decode())
    return {"name": name, "device": certificate.holder().name, "key": "0x" + certificate.key.hex()}


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o600)
    except OSError as error:
        raise FixInput(f"{source}: cannot be read ({error.strerror})") from error
