"""Vectors of custody records' statements, and what these vectors and others state."""

from __future__ import annotations

import json
from typing import Any

from ledger.core import content, deidentification
from ledger.core.custody import OPERATIONS, Statement, transferred
from ledger.core.deidentification import Option
from ledger.core.errors import FixInput
from ledger.core.strict import to_b64

Case = dict[str, Any]
CHANGED = ("PatientName", "PatientID", "SOPInstanceUID")
DEIDENTIFY = Statement("de-identified", {"profile": "ps3.15-basic", "options": [], "changed": list(CHANGED)})
NEW_PIXELS = ("PixelData", "SOPInstanceUID")
ORDER = {name: position for position, name in enumerate(content.ITEMS)}
SALTS = {"salts": to_b64(b"\3" * 32)}
EXTRA: dict[str, dict[str, Any]] = {
    "lossy-compression": {"maximum_error": 3, "mean_error": "0.250000"},
    "crop": {"x": 0, "y": 64},
    "correction": {"reason": "wrong accession number"},
}


def derived(operation: str, *changed: str, **more: Any) -> Statement:
    """A derivation by this operation, with what else it must say."""
    members = {"operation": operation, "changed": sorted(changed, key=ORDER.__getitem__)}
    return Statement("derived", members | EXTRA.get(operation, {}) | more)


def statements() -> list[Case]:
    """Statements as records have them: what each names as changed, and what its action may change; or `custody`: none."""
    cases: list[Case] = []

    def add(name: str, action: str, members: Any, *, parents: int = 1, valid: bool = True) -> None:
        text = members if isinstance(members, str) else json.dumps(members, separators=(",", ":"))
        expect: Any = "custody"
        if valid:
            statement = Statement(action, json.loads(text))
            allowed = sorted(statement.allowed, key=ORDER.__getitem__)
            expect = {"changed": " ".join(statement.changed), "allowed": " ".join(allowed)}
        ids = ["0x" + bytes([number] * 32).hex() for number in range(1, parents + 1)]
        cases.append({"name": name, "expect": expect, "action": action, "parents": ids, "statement": text})

    for action in ("received", "stored", "exported", "read"):
        add(action, action, {})
    add("transferred", "transferred", dict(transferred(b"\2" * 32).members))
    add(
        "transcoded, with a tool",
        "transcoded",
        {"transfer_syntax": "1.2.840.10008.1.2.4.90", "tool": "gdcm 3.0 \u00e9\U0001f600"},
    )
    add("stored, with the salts of an image of its own", "stored", SALTS)
    for operation in OPERATIONS:
        add(operation, "derived", dict(derived(operation, *NEW_PIXELS, **SALTS).members))
    for name in ("ai-result", "secondary-capture"):
        add(f"{name} of 64", "derived", dict(derived(name, **SALTS).members), parents=64)
    basic: Case = {"profile": "ps3.15-basic", "options": [], "changed": list(CHANGED)} | SALTS
    impossible = [option for option in Option if _is_impossible(option)]
    for option in sorted(Option):
        add(f"option {option}", "de-identified", basic | {"options": [str(option)]}, valid=option not in impossible)
    every = [str(one) for one in sorted(Option) if one not in impossible and one != Option.RETAIN_LONGITUDINAL_MODIFIED_DATES]
    add("no option", "de-identified", basic)
    add("every option", "de-identified", basic | {"options": every})
    cases += _wrong_statements(basic)
    return cases


def _is_impossible(option: Option) -> bool:
    try:
        deidentification.refuse_impossible(frozenset((option,)))
    except FixInput:
        return True
    return False


def _wrong_statements(basic: Case) -> list[Case]:
    crop, lossy, correction, result = (
        dict(derived(operation, **SALTS).members) for operation in ("crop", "lossy-compression", "correction", "ai-result")
    )
    to = {"to": to_b64(b"\2" * 32)}
    full, modified = str(Option.RETAIN_LONGITUDINAL_FULL_DATES), str(Option.RETAIN_LONGITUDINAL_MODIFIED_DATES)
    wrong: dict[str, tuple[str, Any, int]] = {
        "an unknown action": ("forwarded", {}, 1),
        "an action's name in capitals": ("Stored", {}, 1),
        "a member of another action": ("stored", to, 1),
        "no `to`": ("transferred", {}, 1),
        "`to` of 31 bytes": ("transferred", {"to": to_b64(b"\2" * 31)}, 1),
        "`to` with padding": ("transferred", {"to": to["to"] + "="}, 1),
        "no UID": ("transcoded", {"transfer_syntax": "1.2."}, 1),
        "a UID of 65 characters": ("transcoded", {"transfer_syntax": "1." + "2" * 63}, 1),
        "no parents": ("stored", {}, 0),
        "two parents": ("stored", {}, 2),
        "two parents of a crop": ("derived", crop, 2),
        "65 parents": ("derived", result, 65),
        "no salts": ("derived", {name: value for name, value in crop.items() if name != "salts"}, 1),
        "no salts of a de-identified image": ("de-identified", {n: value for n, value in basic.items() if n != "salts"}, 1),
        "salts of 31 bytes": ("derived", crop | {"salts": to_b64(b"\3" * 31)}, 1),
        "an unknown operation": ("derived", crop | {"operation": "sharpen"}, 1),
        "no operation": ("derived", SALTS | {"changed": []}, 1),
        "an operation that is a list": ("derived", SALTS | {"operation": ["crop"], "changed": []}, 1),
        "an operation for an action": ("crop", crop, 1),
        "a crop without y": ("derived", {name: value for name, value in crop.items() if name != "y"}, 1),
        "a fraction": ("derived", json.dumps(crop).replace('"x": 0', '"x": 0.0'), 1),
        "a negative number": ("derived", crop | {"x": -1}, 1),
        "a number over 64 bits": ("derived", crop | {"x": 1 << 64}, 1),
        "true as a number": ("derived", crop | {"x": True}, 1),
        "a number as text": ("derived", crop | {"x": "0"}, 1),
        "a mean with five digits": ("derived", lossy | {"mean_error": "0.25000"}, 1),
        "a mean with a leading zero": ("derived", lossy | {"mean_error": "00.250000"}, 1),
        "a mean as a number": ("derived", json.dumps(lossy).replace('"0.250000"', "0.250000"), 1),
        "an item that is none": ("derived", crop | {"changed": ["Rows"]}, 1),
        "an item twice": ("derived", crop | {"changed": ["PixelData", "PixelData"]}, 1),
        "items in another order": ("derived", crop | {"changed": ["SOPInstanceUID", "PixelData"]}, 1),
        "items as text": ("derived", crop | {"changed": "PixelData"}, 1),
        "an empty tool": ("stored", {"tool": ""}, 1),
        "a tool of 1025 characters": ("stored", {"tool": "x" * 1025}, 1),
        "a tool with a line feed": ("stored", {"tool": "a\nb"}, 1),
        "a tool with a no-break space": ("stored", {"tool": "a\u00a0b"}, 1),
        "an empty reason": ("derived", correction | {"reason": ""}, 1),
        "another profile": ("de-identified", basic | {"profile": "ps3.15-full"}, 1),
        "an option that is none": ("de-identified", basic | {"options": ["retain-everything"]}, 1),
        "options in another order": ("de-identified", basic | {"options": ["retain-uids", "clean-graphics"]}, 1),
        "an option twice": ("de-identified", basic | {"options": ["retain-uids", "retain-uids"]}, 1),
        "full and modified dates": ("de-identified", basic | {"options": [full, modified]}, 1),
        "no options": ("de-identified", {name: value for name, value in basic.items() if name != "options"}, 1),
        "a list": ("stored", "[]", 1),
        "nothing": ("stored", "", 1),
        "null": ("stored", "null", 1),
        "a member twice": ("stored", '{"tool":"a","tool":"a"}', 1),
        "something after it": ("stored", "{}{}", 1),
        "half a surrogate pair": ("stored", '{"tool":"\\ud800"}', 1),
        "over 65,536 bytes": ("stored", "{}" + " " * 65_535, 1),
    }
    cases = []
    for name, (action, members, parents) in wrong.items():
        text = members if isinstance(members, str) else json.dumps(members, separators=(",", ":"))
        ids = ["0x" + bytes([number] * 32).hex() for number in range(1, parents + 1)]
        cases.append({"name": name, "expect": "custody", "action": action, "parents": ids, "statement": text})
    twice = {"name": "a parent twice", "expect": "custody", "action": "derived", "parents": ["0x" + "01" * 32] * 2}
    return [*cases, {**twice, "statement": json.dumps(result)}]
