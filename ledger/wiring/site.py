"""A site's folder: where keys, certificates, the store and the trust file lie. `scanseal init` makes one.

site.toml     name, RPC URLs, passphrase_file, four_eyes    keys/    account.json, log.pem, one file a device
              and [anchoring] (docs/anchoring.md), or
              [node], [serve] (docs/node.md)                node/    token and certificates for a log node
trust.toml    what verifiers believe (made by `deploy`)     ca/      ca.key, ca.pem
store.sqlite  journal, log and anchors                      devices/ one request (.csr) and certificate (.pem) a device
                                                            fingerprints/ of devices, for the detector
"""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.core.errors import FixInput, NeedPermission
from ledger.log.schedule import ETHER, GWEI, Policy

if TYPE_CHECKING:
    from ledger.core.certificates import Certificate
    from ledger.core.trust import Trust
    from ledger.keys.signers import Signer

SITE_VARIABLE = "SCANSEAL_SITE"
PASSPHRASE_VARIABLE = "SCANSEAL_PASSPHRASE"  # noqa: S105 - the name of a variable
FOUR_EYES = ("enrolment", "revocation", "transmittal")
"""What a site may ask two persons for, in `site.toml`."""
EYES = 2
"""How many."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class RemoteNode:
    """The log node that a site hands its records in to. Files are named from the site's folder; `ca`: whom to believe that the
    node is itself (PEM), the system's authorities if None; `certificate`, `key`: what the site shows to a node that asks."""

    url: str
    token_file: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Site:
    """A site's folder, as `site.toml` describes it."""

    folder: Path
    name: str
    rpc: tuple[str, ...]
    passphrase_file: str | None = None
    four_eyes: tuple[str, ...] = ()
    anchoring: Policy = field(default_factory=Policy)
    node: RemoteNode | None = None
    """A site with a node has no log of its own and no chain account."""
    serve: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The log's C2SP origin: one word."""
        return "scanseal/" + re.sub(r"[^\w.-]+", "-", self.name)

    @property
    def store_path(self) -> Path:
        return self.folder / "store.sqlite"

    @property
    def trust_path(self) -> Path:
        return self.folder / "trust.toml"

    @property
    def account_path(self) -> Path:
        return self.folder / "keys" / "account.json"

    @property
    def log_key_path(self) -> Path:
        return self.folder / "keys" / "log.pem"

    @property
    def ca_folder(self) -> Path:
        return self.folder / "ca"

    @property
    def node_folder(self) -> Path:
        """What it takes to hand in to a node, and proof against one that contradicted itself."""
        return self.folder / "node"

    @property
    def devnet_folder(self) -> Path:
        return self.folder / "devnet"

    def device_key_path(self, name: str) -> Path:
        """The key file of a device on this machine. Raises FixInput where there is none."""
        found = self._key_path(name)
        if found is None:
            raise FixInput(
                f"no key for device {name!r} in {self.folder / 'keys'}: make one with `scanseal device request {name}`"
            )
        return found

    def has_key(self, name: str) -> bool:
        return self._key_path(name) is not None

    def _key_path(self, name: str) -> Path | None:
        from ledger.keys.signers import SUFFIXES

        paths = [self.folder / "keys" / f"{device_name(name)}{suffix}" for suffix in SUFFIXES]
        return next((path for path in paths if path.exists()), None)

    def signer(self, name: str) -> Signer:
        """The key of a device on this machine, ready to sign; one in hardware needs no passphrase. Raises as `signers.load`."""
        from ledger.keys import signers

        path = self.device_key_path(name)
        return signers.load(path, "" if path.name.endswith(signers.IN_HARDWARE) else self.passphrase())

    def request_path(self, name: str) -> Path:
        return self.folder / "devices" / f"{device_name(name)}.csr"

    def certificate_path(self, name: str) -> Path:
        return self.folder / "devices" / f"{device_name(name)}.pem"

    def requested(self) -> dict[bytes, str]:
        """key id -> name, of the keys that a certificate was requested for. Raises FixInput."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        from ledger.core.signatures import key_id

        found = {}
        for path in sorted((self.folder / "devices").glob("*.csr")):
            try:
                public_key = x509.load_pem_x509_csr(path.read_bytes()).public_key()
            except ValueError as error:
                raise FixInput(f"{path}: not a certificate request in PEM: put it right, or away") from error
            found[key_id(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))] = path.stem
        return found

    def certificates(self) -> dict[str, Certificate]:
        """The certificates of this site's devices, by name."""
        paths = sorted((self.folder / "devices").glob("*.pem"))
        return {path.stem: read_certificate(path) for path in paths}

    def passphrase(self) -> str:
        """The passphrase of this site's keys: from the environment, or from the file that `site.toml` names."""
        if value := os.environ.get(PASSPHRASE_VARIABLE):
            return value
        if self.passphrase_file:
            try:
                return (self.folder / self.passphrase_file).read_text().strip()
            except OSError as error:
                raise FixInput(f"cannot read the passphrase file {self.passphrase_file} ({error.strerror})") from error
        raise FixInput(f"no passphrase: set {PASSPHRASE_VARIABLE}, or name a passphrase_file in {self.folder / 'site.toml'}")

    def trust(self) -> Trust:
        if not self.trust_path.exists():
            raise FixInput(f"{self.trust_path} is missing: `scanseal deploy` makes it, or copy the ledger's trust file there")
        return read_trust(self.trust_path)


def device_name(name: str) -> str:
    """A device's name as a file name. Raises FixInput for one that could leave its folder."""
    if not _NAME.fullmatch(name) or name in ("account", "log"):
        raise FixInput(f"{name!r} cannot name a device: use letters, digits, '-', '_' and '.'")
    return name


def find(folder: Path | None = None) -> Path | None:
    """The site's folder: the one given, or of the environment, or the nearest one upward that this user made; None without
    one. Raises FixInput for a site of somebody else that nobody named: it may have come with the images."""
    if folder is None and (value := os.environ.get(SITE_VARIABLE)):
        folder = Path(value)
    if folder is not None:
        if not (folder / "site.toml").is_file():
            raise FixInput(f"{folder} is not a ScanSeal site: run `scanseal init {folder}` first")
        return folder
    found = _upward()
    if found is not None and not _is_own(found):
        raise FixInput(
            f"{found} has a site.toml that was not made here by `scanseal init`: what came with images must not say whom to "
            f"believe. If you trust it, name it: --site {found}"
        )
    return found


def own(folder: Path | None) -> Path | None:
    """As `find`, but a site of somebody else that nobody named is passed over."""
    if folder is None and not os.environ.get(SITE_VARIABLE):
        found = _upward()
        return found if found is not None and _is_own(found) else None
    return find(folder)


def _upward() -> Path | None:
    here = Path.cwd()
    return next((place for place in (here, *here.parents) if (place / "site.toml").is_file()), None)


def _own_sites() -> Path:
    """The list of sites that this user made on this machine, a path a line."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(state) / "scanseal" / "sites"


def _is_own(folder: Path) -> bool:
    try:
        return str(folder.resolve()) in _own_sites().read_text(encoding="utf-8").splitlines()
    except OSError:
        return False


def remember(folder: Path) -> None:
    """Notes a site as this user's, so that commands find it upward from where they run. Where that can't be written, the site
    has to be named."""
    if not _is_own(folder):
        with suppress(OSError):
            _own_sites().parent.mkdir(parents=True, exist_ok=True)
            with _own_sites().open("a", encoding="utf-8") as file:
                file.write(f"{folder.resolve()}\n")


def open_site(folder: Path | None = None) -> Site:
    """The site to work in. Raises FixInput where there is none."""
    found = find(folder)
    if found is None:
        raise FixInput("no ScanSeal site here: run `scanseal init`, or name one with --site or SCANSEAL_SITE")
    return read_site(found)


def read_site(folder: Path) -> Site:
    path = folder / "site.toml"
    try:
        values = tomllib.loads(path.read_text(), parse_float=Decimal)
        four_eyes = tuple(str(what) for what in values.get("four_eyes", ()))
        if not set(four_eyes) <= set(FOUR_EYES):
            raise FixInput(f"{path}: four_eyes may name {', '.join(FOUR_EYES)}")
        rpc = tuple(str(url) for url in values.get("rpc", ()))
        policy = _policy(path, values.get("anchoring", {}))
        node, limits = _node(path, values.get("node")), values.get("serve", {})
        if not isinstance(limits, dict):
            raise FixInput(f"{path}: [serve] is a table")
        return Site(folder, str(values["name"]), rpc, values.get("passphrase_file"), four_eyes, policy, node, limits)
    except OSError as error:
        raise FixInput(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, KeyError, UnicodeDecodeError) as error:
        raise FixInput(f"{path}: not a site file ({error})") from error


def _node(path: Path, table: Any) -> RemoteNode | None:
    """The `[node]` table. Raises FixInput."""
    if table is None:
        return None
    places = ("url", "token_file", "ca", "certificate", "key")
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise FixInput(f"{path}: [node] is a table of text: {', '.join(places)}")
    if not {"url", "token_file"} <= table.keys() <= set(places):
        raise FixInput(f"{path}: [node] has url and token_file, and may have ca, certificate and key")
    if ("certificate" in table) != ("key" in table):
        raise FixInput(f"{path}: [node] has certificate and key, or neither")
    return RemoteNode(**table)


def _policy(path: Path, table: Any) -> Policy:
    """The `[anchoring]` table. Raises FixInput."""
    places = {"interval_s": ("interval_s", 1), "batch": ("batch", 1)}
    places |= {"ceiling_gwei": ("ceiling_wei", GWEI), "budget_eth_per_day": ("budget_wei", ETHER)}
    if not isinstance(table, dict):
        raise FixInput(f"{path}: [anchoring] is a table with {', '.join(places)}")
    found: dict[str, int] = {}
    for name, value in table.items():
        if name not in places:
            raise FixInput(f"{path}: [anchoring] has no {name}; it has {', '.join(places)}")
        member, unit = places[name]
        is_number = isinstance(value, int | Decimal) and not isinstance(value, bool) and Decimal(value).is_finite()
        if not is_number or value <= 0 or (unit == 1 and not isinstance(value, int)):
            raise FixInput(f"{path}: [anchoring] {name} must be a {'whole ' if unit == 1 else ''}number above 0")
        found[member] = max(1, int(value * unit))
    return Policy(**found)


def create(folder: Path, name: str, rpc: tuple[str, ...], *, keep_passphrase: bool, node: RemoteNode | None = None) -> Site:
    """A new site: its authority, its log's key, its chain account; with a `node`, which has them, none of these.
    Raises FixInput where one exists.

    With `keep_passphrase` a random passphrase is made and kept in the folder: for a devnet, not for a hospital.
    """
    from datetime import UTC, datetime

    import tomli_w

    from ledger.keys import authority, signers

    if (folder / "site.toml").exists():
        raise FixInput(f"{folder} is a ScanSeal site already: nothing was changed")
    if not name.strip() or any(ord(character) < 32 or character == "+" for character in name):
        raise FixInput("a site's name is one line of text without '+'")
    site = Site(folder, name, rpc, "passphrase" if keep_passphrase else None, node=node)
    if keep_passphrase and not (folder / "passphrase").exists():
        signers.write_secret(folder / "passphrase", secrets.token_urlsafe(24).encode())
    passphrase = site.passphrase()
    if node is None and not (site.ca_folder / "ca.pem").exists():
        authority.save_authority(authority.new_authority(name, datetime.now(UTC)), site.ca_folder, passphrase)
    if node is None and not site.log_key_path.exists():
        authority.new_log_key(site.log_key_path, passphrase)
    if node is None and not site.account_path.exists():
        signers.save_account(signers.new_account(), site.account_path, passphrase)
    values: dict[str, object] = {"name": name, "rpc": list(rpc)}
    if site.passphrase_file:
        values["passphrase_file"] = site.passphrase_file
    if node is not None:
        values["node"] = {member: value for member, value in vars(node).items() if value is not None}
    write_text(folder / "site.toml", tomli_w.dumps(values))
    remember(folder)
    return site


def read_trust(path: Path) -> Trust:
    """A trust file. Raises FixInput."""
    from ledger.core import trust

    try:
        return trust.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FixInput(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FixInput(f"{path}: not UTF-8 text") from error


def write_trust(path: Path, value: Trust) -> None:
    """Replaces a trust file as a whole, or not at all."""
    import tomli_w

    write_text(path, tomli_w.dumps(value.model_dump(exclude_defaults=True) | {"format": value.format}, multiline_strings=True))


def believe(site: Site, header: bytes) -> None:
    """Puts a block that this site saw to be final (header in RLP) into its trust file."""
    from ledger.core.stateproof import parse_header
    from ledger.core.trust import Block

    trust, block = site.trust(), parse_header(header)
    if all(known.hash != block.hash for known in trust.blocks):
        blocks = (*trust.blocks, Block(number=block.number, hash=block.hash))
        write_trust(site.trust_path, trust.model_copy(update={"blocks": blocks}))


def write_text(path: Path, text: str) -> None:
    """Replaces a file as a whole, or not at all. Raises NeedPermission."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise NeedPermission(f"{path}: cannot be written ({error.strerror})") from error


def read_certificate(path: Path) -> Certificate:
    """A certificate from PEM. Raises FixInput."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from ledger.core import certificates

    try:
        return certificates.parse(x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER))
    except (OSError, *certificates.MALFORMED) as error:
        raise FixInput(f"{path}: not a certificate in PEM") from error
