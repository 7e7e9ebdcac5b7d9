"""What every JSON of ScanSeal obeys (FORMAT.md §7): one object, UTF-8, nothing repeated, bounded; base64url in its one form."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from ledger.core.errors import EvidenceInvalid

SIZE_LIMIT = 1 << 30
"""Bytes of a bundle: more is refused unread."""
DEPTH_LIMIT = 12


def to_b64(data: bytes) -> str:
    """Base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_b64(text: object) -> bytes:
    """The bytes of unpadded base64url in its one canonical form. Raises ValueError for anything else."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise ValueError("not a base64url string")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url") from error
    if to_b64(data) != text:
        raise ValueError("not canonical base64url")
    return data


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _depth(value: object) -> int:
    """Levels of nesting, counted without recursion."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        if deepest > DEPTH_LIMIT:
            break
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return deepest


def strict_json(data: bytes) -> Mapping[str, Any]:
    """A JSON object: UTF-8, no repeated member, no NaN, bounded depth and size, nothing after it. Raises EvidenceInvalid."""
    if len(data) > SIZE_LIMIT:
        raise EvidenceInvalid(f"{len(data)} bytes: at most {SIZE_LIMIT} are read")
    try:
        # This parser bounds its depth by itself; the next one would follow any depth down the C stack.
        from_json(data, allow_inf_nan=False)
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EvidenceInvalid("it is not strict JSON in UTF-8, or nested too deeply: ask for a fresh copy") from error
    if not isinstance(value, dict):
        raise EvidenceInvalid("it is not a JSON object")
    if _depth(value) > DEPTH_LIMIT:
        raise EvidenceInvalid("it is nested too deeply")
    return value
