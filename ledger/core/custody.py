"""What a custody record states, and what each action may change. FORMAT.md §3.1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

from ledger.core import content, deidentification
from ledger.core.attributes import GROUPS
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.records import CUSTODY_ROLES, CustodyRecord
from ledger.core.strict import from_b64, strict_json, to_b64

STATEMENT_LIMIT: Final = 65_536
PARENT_LIMIT: Final = 64
DEIDENTIFIED: Final = "de-identified"
DERIVED: Final = "derived"
PS3_15_BASIC: Final = "ps3.15-basic"
TEXT_LIMIT: Final = 1024

_PIXEL_ITEMS: Final = frozenset((content.PIXELS, content.DECODED))
_NEW_INSTANCE: Final = _PIXEL_ITEMS | {"SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber", "ImageType"}
_ATTRIBUTES: Final = frozenset(content.ITEMS) - _PIXEL_ITEMS
_OTHER_THAN_PATIENT: Final = _PIXEL_ITEMS | _ATTRIBUTES - frozenset(GROUPS["patient"])

OPERATIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "lossy-compression": _NEW_INSTANCE,
        "crop": _NEW_INSTANCE | {"ImagePositionPatient", "SequenceOfUltrasoundRegions", "FunctionalGroups"},
        "burn-in": _NEW_INSTANCE,
        "window": _NEW_INSTANCE | frozenset(GROUPS["rescale"]),
        "correction": _ATTRIBUTES,
        "ai-result": _OTHER_THAN_PATIENT,
        "secondary-capture": _OTHER_THAN_PATIENT,
    }
)
"""The operations of action `derived`, and the items that each may change."""
SEVERAL_PARENTS: Final = frozenset(("ai-result", "secondary-capture"))
SAME_CONTENT: Final = frozenset(CUSTODY_ROLES) - {DEIDENTIFIED, DERIVED}
"""The actions that leave an image as it is."""

_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "transferred": ("to",),
        "transcoded": ("transfer_syntax",),
        DEIDENTIFIED: ("profile", "options", "changed"),
        "lossy-compression": ("operation", "changed", "maximum_error", "mean_error"),
        "crop": ("operation", "changed", "x", "y"),
        "correction": ("operation", "changed", "reason"),
        "burn-in": ("operation", "changed"),
        "window": ("operation", "changed"),
        "ai-result": ("operation", "changed"),
        "secondary-capture": ("operation", "changed"),
    }
)
_OPTIONAL: Final = frozenset(("tool", "salts"))
_MEAN = re.compile(r"(0|[1-9][0-9]{0,17})\.[0-9]{6}")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Statement:
    """A custody record's statement. `members` are those of FORMAT.md §3.1, `changed` the items that need not be the
    parent's; the `salts` of an image with content of its own may be missing while a statement is drafted, not in a record."""

    action: str
    members: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self.action, self.members)
        if self.action == DEIDENTIFIED:
            deidentification.refuse_impossible(self.options)

    @property
    def changed(self) -> tuple[str, ...]:
        return tuple(self.members.get("changed", ()))

    @property
    def has_own_content(self) -> bool:
        """Whether the action makes an image with leaves and salts of its own."""
        return self.action not in SAME_CONTENT

    def with_salts(self, image_key: bytes, kept: bytes) -> Statement:
        """The statement that is bound to what opens the image: damaged salts then show as damage of the evidence, not as a
        difference of the image."""
        return Statement(self.action, {**self.members, "salts": to_b64(content.salts_hash(image_key, kept))})

    def is_opened_by(self, image_key: bytes, kept: bytes | None) -> bool:
        """Whether these are the salts that the statement is bound to: without `salts` to none, and none are kept."""
        if kept is None or "salts" not in self.members:
            return kept is None and "salts" not in self.members
        return from_b64(self.members["salts"]) == content.salts_hash(image_key, kept)

    @property
    def options(self) -> frozenset[deidentification.Option]:
        return frozenset(deidentification.Option(name) for name in self.members.get("options", ()))

    @property
    def operation(self) -> str:
        """What was done, in a word: the action, or the operation of a derivation."""
        return str(self.members.get("operation", self.action))

    @property
    def recipient(self) -> bytes | None:
        """The key that a transfer names as the next holder."""
        return from_b64(self.members["to"]) if "to" in self.members else None

    @property
    def allowed(self) -> frozenset[str]:
        """The items that this action may change at all."""
        if self.action == DEIDENTIFIED:
            return deidentification.may_change(self.options)
        return OPERATIONS.get(self.operation, frozenset())

    def text(self) -> str:
        """The JSON that is signed."""
        import json

        return json.dumps(self.members, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @classmethod
    def of(cls, record: CustodyRecord) -> Statement:
        """What a record states. Raises EvidenceInvalid (step custody) where it is not of FORMAT.md §3.1."""
        if not 1 <= len(record.parents) <= PARENT_LIMIT:
            raise EvidenceInvalid(f"a custody record has 1 to {PARENT_LIMIT} parents, not {len(record.parents)}", "custody")
        try:
            text = record.statement.encode()
            if len(text) > STATEMENT_LIMIT:
                raise FixInput(f"{len(text)} bytes, at most {STATEMENT_LIMIT} are read")
            statement = cls(record.action, strict_json(text))
            if statement.has_own_content and "salts" not in statement.members:
                raise FixInput("salts missing")
        except (FixInput, UnicodeEncodeError) as error:
            raise EvidenceInvalid(f"a custody record's statement: {error}", "custody") from error
        if len(record.parents) > 1 and statement.operation not in SEVERAL_PARENTS:
            raise EvidenceInvalid(f"{statement.operation} has one parent, this record {len(record.parents)}", "custody")
        if len(set(record.parents)) != len(record.parents):
            raise EvidenceInvalid("a custody record names a parent twice", "custody")
        return statement


def transferred(to: bytes) -> Statement:
    """The statement of a hand-over to the holder of key `to` (32 bytes)."""
    return Statement("transferred", {"to": to_b64(to)})


def _check(action: str, members: Mapping[str, Any]) -> None:
    """Raises FixInput where the members are not those of the action."""
    if action not in CUSTODY_ROLES:
        raise FixInput(f"action {action!r} is none of {', '.join(CUSTODY_ROLES)}")
    name = members.get("operation") if action == DERIVED else action
    if action == DERIVED and (not isinstance(name, str) or name not in OPERATIONS):
        raise FixInput(f"operation is none of {', '.join(OPERATIONS)}")
    required = _REQUIRED.get(str(name), ())
    missing = [member for member in required if member not in members]
    unknown = members.keys() - {*required, *_OPTIONAL}
    if missing or unknown:
        raise FixInput(f"{name}: {', '.join([*missing, *sorted(unknown)])} missing or unknown")
    for member, value in members.items():
        if not _VALID[member](value):
            raise FixInput(f"{name}: {member} is not what belongs there")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= TEXT_LIMIT and value.isprintable()


def _is_ordered(value: object, of: Mapping[str, int]) -> bool:
    """Whether a list names some of these, each once, in their order."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one in of for one in value):
        return False
    places = [of[one] for one in value]
    return all(one < other for one, other in pairwise(places))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def _is_word(value: object) -> bool:
    try:
        return len(from_b64(value)) == 32
    except ValueError:
        return False


def _is_mean(value: object) -> bool:
    return isinstance(value, str) and bool(_MEAN.fullmatch(value))


_ITEM_ORDER: Final = {name: position for position, name in enumerate(content.ITEMS)}
_OPTION_ORDER: Final = {str(name): position for position, name in enumerate(sorted(deidentification.Option))}
_VALID: Final = MappingProxyType(
    {
        "tool": _is_text,
        "reason": _is_text,
        "to": _is_word,
        "salts": _is_word,
        "transfer_syntax": lambda value: _is_text(value) and len(value) <= 64 and bool(_UID.fullmatch(value)),
        "profile": lambda value: value == PS3_15_BASIC,
        "options": lambda value: _is_ordered(value, _OPTION_ORDER),
        "changed": lambda value: _is_ordered(value, _ITEM_ORDER),
        "operation": lambda value: value in OPERATIONS,
        "maximum_error": _is_count,
        "mean_error": _is_mean,
        "x": _is_count,
        "y": _is_count,
    }
)
