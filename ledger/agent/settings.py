"""The agent's configuration: one TOML file, which variables of the environment override (`SCANSEAL_AGENT_SPOOL__KEEP_S=60`).

docs/agent.md shows a complete file. Times are in seconds, sizes in bytes unless their name says otherwise.
"""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ledger.core.errors import FixInput

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]{0,31}$")]
AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Peer(_Part):
    """A sender: an AE title, from an address. One of both may be left out, and then any will do."""

    ae_title: AETitle | None = None
    address: str | None = None

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(ip_address(value))
        except ValueError:
            raise ValueError("an address is written in numbers, as 192.0.2.10: a name is looked up by nobody") from None


class Tls(_Part):
    """PEM files. With `client_ca` (a source) peers need a certificate of it; `ca` (a destination) is whom to believe."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    ca: Path | None = None


class _Source(_Part):
    """`role` says whose pixels these are: `acquire` only where they are the modality's own output, sealed with the key of
    `device`; `gateway` for what came over the network from elsewhere, recorded with the key of `gateway`."""

    name: Name
    role: Literal["acquire", "gateway"]
    device: str | None = None
    gateway: str | None = None
    destination: Name | None = None

    @model_validator(mode="after")
    def _has_key(self) -> _Source:
        if self.role == "acquire" and not self.device:
            raise ValueError(f"source {self.name}: an acquiring source names the `device` whose output it is")
        if self.role == "gateway" and (self.device or not self.gateway):
            raise ValueError(f"source {self.name}: a gateway source names its `gateway` key, and no device")
        return self


def _require_named(name: str, role: str, allow: tuple[Peer, ...]) -> None:
    if role == "acquire" and not (allow and all(peer.ae_title and peer.address for peer in allow)):
        raise ValueError(
            f"source {name}: an acquiring source names in `allow` the modality's AE title and address, both of each: "
            "what anybody may send is nobody's acquisition"
        )


class Reply(_Part):
    """A modality that asks for storage commitment."""

    host: str
    port: Port
    ae_title: AETitle
    tls: Tls | None = None


class DicomSource(_Source):
    """A port on which a C-STORE SCP listens."""

    kind: Literal["dicom"]
    port: Port
    host: str = "127.0.0.1"
    ae_title: AETitle = "SCANSEAL"
    allow: tuple[Peer, ...] = ()
    tls: Tls | None = None
    associations: Annotated[int, Field(ge=1, le=1000)] = 64
    idle_s: Seconds = 60.0
    reply_to: Reply | None = None
    """Where the modality takes reports of storage commitment."""

    @model_validator(mode="after")
    def _is_bounded(self) -> DicomSource:
        _require_named(self.name, self.role, self.allow)
        if self.reply_to is not None and self.destination is None:
            raise ValueError(f"source {self.name}: storage commitment is the PACS's: reply_to needs a destination")
        if self.tls is not None and not (self.tls.certificate and self.tls.key):
            raise ValueError(f"source {self.name}: tls needs a certificate and a key")
        return self


class FolderSource(_Source):
    """A folder that the modality exports to."""

    kind: Literal["folder"]
    path: Path
    settle_s: Seconds = 5.0
    remove: bool = False


class OrthancSource(_Source):
    """An Orthanc, polled over `/changes`."""

    kind: Literal["orthanc"]
    url: str
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    allow: tuple[Peer, ...] = ()
    poll_s: Seconds = 2.0

    @model_validator(mode="after")
    def _is_bounded(self) -> OrthancSource:
        _require_named(self.name, self.role, self.allow)
        return self


Source = Annotated[DicomSource | FolderSource | OrthancSource, Field(discriminator="kind")]


class PacsDestination(_Part):
    """A PACS that images are forwarded to."""

    name: Name
    host: str
    port: Port
    ae_title: AETitle = "ANY-SCP"
    calling_ae_title: AETitle = "SCANSEAL"
    associations: Annotated[int, Field(ge=1, le=8)] = 2
    """How many at once: with more than one the PACS need not wait for us between two images."""
    timeout_s: Seconds = 60.0
    tls: Tls | None = None


class SpoolPart(_Part):
    folder: Path = Path("spool")
    min_free_mb: Annotated[int, Field(ge=0)] = 1024
    keep_s: Annotated[float, Field(ge=0)] = 86_400.0


class HealthPart(_Part):
    """Where `/healthz` and `/metrics` answer; port 0 for nowhere."""

    host: str = "127.0.0.1"
    port: Port = 9104


class Settings(BaseSettings):
    """All of it. `anchor`: whether this agent carries the site's log to the chain, too (one process of a site does)."""

    model_config = SettingsConfigDict(
        env_prefix="SCANSEAL_AGENT_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    hash: Literal["sha256", "blake3"] = "sha256"
    anchor: bool = True
    spool: SpoolPart = SpoolPart()
    health: HealthPart = HealthPart()
    source: tuple[Source, ...] = ()
    destination: tuple[PacsDestination, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Settings:
        names = [one.name for one in self.source]
        targets = [one.name for one in self.destination]
        if not names:
            raise ValueError("no [[source]]: nothing would arrive")
        for what, given in (("source", names), ("destination", targets)):
            if len(set(given)) != len(given):
                raise ValueError(f"two {what}s have one name")
        for one in self.source:
            if one.destination is not None and one.destination not in targets:
                raise ValueError(f"source {one.name}: there is no [[destination]] named {one.destination}")
        return self


def read_settings(path: Path) -> Settings:
    """The settings of a TOML file and the environment. Raises FixInput naming what is wrong."""

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(  # type: ignore[override]
            cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (sources["env_settings"], TomlConfigSettingsSource(settings_cls, path))

    if not path.is_file():
        raise FixInput(f"{path}: no such file; `scanseal agent init` writes one to begin with")
    try:
        # Of a class that another process knows, too.
        return Settings(**FromFile().model_dump())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "union_tag_invalid":  # its words quote what was given
            first["msg"] = f"its kind is one of {first['ctx']['expected_tags']}"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise FixInput(f"{path}: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}{more}") from error
    except (ValueError, OSError) as error:
        raise FixInput(f"{path}: not a TOML file ({_place(error)})") from error


def _place(error: Exception) -> str:
    """Where a TOML file is wrong: the words before that may quote it."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    found = re.search(r"at (line \d+, column \d+|end of document)", str(error))
    return found[0] if found else type(error).__name__


def server_tls(tls: Tls | None) -> ssl.SSLContext | None:
    """For a listening source. Raises FixInput."""
    if tls is None:
        return None
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls, tls.client_ca)


def client_tls(tls: Tls | None) -> ssl.SSLContext | None:
    """For a destination. Raises FixInput."""
    if tls is None:
        return None
    return _loaded(ssl.create_default_context(), tls, tls.ca)


def _loaded(context: ssl.SSLContext, tls: Tls, ca: Path | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
        if ca is not None:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise FixInput(f"tls: the certificate, key or authority cannot be loaded ({error})") from error
    return context


def described(settings: Settings) -> dict[str, Any]:
    """The settings without secrets, for `agent status`."""
    return settings.model_dump(mode="json")
