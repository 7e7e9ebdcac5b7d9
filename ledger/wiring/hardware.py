"""Keys of a site's devices in hardware: where the next one is to be, and making it there. docs/hardware-keys.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.core.errors import FixInput
from ledger.keys.signers import IN_HARDWARE, Curve
from ledger.wiring.site import Site

if TYPE_CHECKING:
    from ledger.keys.pkcs11 import Pkcs11Signer, Place


@dataclass(frozen=True)
class OnToken:
    """The token that a new device's key is made on, or is on already (`existing`); the key is called as the device is, unless
    it is given a label or an id (hex)."""

    module: Path
    token: str
    key_label: str | None = None
    key_id: str | None = None
    pin_file: Path | None = None
    pin_env: str | None = None
    existing: bool = False

    def place(self, name: str) -> Place:
        """Where the key of the device `name` is. Raises FixInput."""
        from ledger.keys.pkcs11 import Place

        try:
            identity = bytes.fromhex(self.key_id) if self.key_id is not None else None
        except ValueError as error:
            raise FixInput("--key-id is written in hex, as pkcs11-tool --list-objects shows it") from error
        label = name if self.key_label is None and identity is None else self.key_label
        pin_file = self.pin_file.absolute() if self.pin_file is not None else None
        return Place(self.module.absolute(), self.token, label, identity, pin_file, self.pin_env)

    def key(self, name: str, curve: Curve) -> tuple[Pkcs11Signer, bool]:
        """The device's key, made or found, and whether it never was outside the token. Nothing is written on this machine.

        Raises FixInput, NeedPermission, TryLater.
        """
        from ledger.keys import pkcs11

        return pkcs11.existing(self.place(name)) if self.existing else (pkcs11.make(self.place(name), curve), True)


def beside(site: Site, name: str) -> OnToken | None:
    """A place for a new key on the token that has the key of `name`; None where that key is not in hardware here."""
    from ledger.keys import pkcs11

    path = site.folder / "keys" / f"{name}{IN_HARDWARE}"
    if not path.exists():
        return None
    place = pkcs11.read(path).place
    return OnToken(place.module, place.token, pin_file=place.pin_file, pin_env=place.pin_env)
