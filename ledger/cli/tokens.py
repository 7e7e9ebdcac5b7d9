"""The options that put a device's key on a token (HSM, smart card, TPM)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.core.errors import FixInput

if TYPE_CHECKING:
    from ledger.wiring.hardware import OnToken

_PANEL = "Key in hardware"
Pkcs11Option = Annotated[
    Path | None, typer.Option("--pkcs11", help="Make the key on a token: its PKCS#11 module.", rich_help_panel=_PANEL)
]
TokenOption = Annotated[str | None, typer.Option("--token", help="The token's label.", rich_help_panel=_PANEL)]
KeyLabelOption = Annotated[
    str | None, typer.Option("--key-label", help="The key's label on the token (default: NAME).", rich_help_panel=_PANEL)
]
KeyIdOption = Annotated[str | None, typer.Option("--key-id", help="The key's id on the token, in hex.", rich_help_panel=_PANEL)]
PinFileOption = Annotated[Path | None, typer.Option("--pin-file", help="A file with the token's PIN.", rich_help_panel=_PANEL)]
PinEnvOption = Annotated[
    str | None, typer.Option("--pin-env", help="An environment variable with the token's PIN.", rich_help_panel=_PANEL)
]
ExistingKeyOption = Annotated[
    bool,
    typer.Option("--existing-key", help="Take a key that is on the token already, whatever its curve.", rich_help_panel=_PANEL),
]


def on_token(
    module: Path | None,
    token: str | None,
    key_label: str | None,
    key_id: str | None,
    pin_file: Path | None,
    pin_env: str | None,
    existing: bool,
) -> OnToken | None:
    """The token that these options name; None where they name none. Raises FixInput where some are missing."""
    from ledger.wiring.hardware import OnToken

    if module is None:
        if existing or any(value is not None for value in (token, key_label, key_id, pin_file, pin_env)):
            raise FixInput("a key on a token needs --pkcs11 with the token's PKCS#11 module (docs/hardware-keys.md)")
        return None
    if token is None:
        raise FixInput("--pkcs11 needs --token, the label of the token that has the key")
    if (pin_file is None) == (pin_env is None):
        raise FixInput("--pkcs11 needs --pin-file or --pin-env, one of the two: where the token's PIN comes from")
    return OnToken(module, token, key_label, key_id, pin_file, pin_env, existing)
