"""agent.toml: what is written down of each setting is what the agent takes, and a mistake is named without its value."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ledger.agent.settings import (
    DicomSource,
    FolderSource,
    HealthPart,
    OrthancSource,
    PacsDestination,
    Settings,
    SpoolPart,
    _Source,
    read_settings,
)
from ledger.core.errors import FixInput
from ledger.wiring.assembly_agent import template

DOCS = Path(__file__).parents[2] / "docs" / "agent.md"
EVERY = set(_Source.model_fields) | {"kind"}
SECTIONS: dict[str, tuple[type[BaseModel], set[str]]] = {
    "at the top": (Settings, {"spool", "health", "source", "destination"}),
    "[spool]": (SpoolPart, set()),
    "[health]": (HealthPart, set()),
    '[[source]] with kind = "dicom"': (DicomSource, EVERY),
    '[[source]] with kind = "folder"': (FolderSource, EVERY),
    '[[source]] with kind = "orthanc"': (OrthancSource, EVERY),
    "[[destination]]": (PacsDestination, set()),
}
GOOD = """
[[source]]
kind = "dicom"
name = "ct"
role = "acquire"
device = "ct1"
port = 11112
allow = [{ ae_title = "CT1", address = "192.0.2.10" }]
destination = "pacs"

[[destination]]
name = "pacs"
host = "192.0.2.20"
port = 104
"""


def rows(section: str) -> dict[str, str]:
    """Setting -> default, as a section of the manual has them."""
    text = DOCS.read_text().partition(f"### {section}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    return {name: default.strip() for name, default in re.findall(r"^\| `(\w+)` \|([^|]*)\|", text, re.MULTILINE)}


def shown(default: Any) -> str:
    if default is PydanticUndefined or default is None:
        return ""
    if isinstance(default, tuple):
        return str(list(default))
    return str(default).lower() if isinstance(default, bool) else str(default)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_manual_has_every_setting_with_its_default_and_no_other(section: str):
    model, elsewhere = SECTIONS[section]
    fields = {name: shown(field.default) for name, field in model.model_fields.items() if name not in elsewhere}
    assert rows(section) == fields


def test_the_manual_has_what_every_source_has():
    assert set(rows("[[source]], every kind")) == EVERY


@pytest.mark.parametrize("section", SECTIONS)
def test_the_settings_to_begin_with_have_every_setting_with_its_default(section: str):
    model, elsewhere = SECTIONS[section]
    for name, field in model.model_fields.items():
        if name not in elsewhere:
            given = re.findall(rf"^#?{name} = (.*)$", template(), re.MULTILINE)
            default = shown(field.default)
            assert given, name
            assert not default or default == "[]" or any(one.strip('"') == default for one in given), name
    assert files("ledger.agent").joinpath("agent.toml").is_file()


def test_settings_are_read_and_the_environment_goes_before_them(tmp_path, monkeypatch):
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    monkeypatch.setenv("SCANSEAL_AGENT_SPOOL__KEEP_S", "60")
    monkeypatch.setenv("SCANSEAL_AGENT_ANCHOR", "false")
    read = read_settings(path)
    assert (read.spool.keep_s, read.spool.min_free_mb, read.anchor, read.source[0].name) == (60, 1024, False, "ct")


@pytest.mark.parametrize(
    ("good", "wrong", "says"),
    [
        ('kind = "dicom"', 'kind = "Xqmüller"', "its kind is one of"),
        ('role = "acquire"', 'role = "Xqmüller"', "source.0.dicom.role: Input should be 'acquire' or 'gateway'"),
        ('name = "ct"', 'name = "Xqmüller^a"', "source.0.dicom.name"),
        ("port = 11112", 'port = "Xqmüller"', "source.0.dicom.port"),
        ("port = 11112", "port = 11112\nXqmüller = 1", "not a TOML file (at line"),
        ("port = 11112", "port = 11112\nportt = 1", "source.0.dicom.portt"),
        ('address = "192.0.2.10"', 'address = "Xqmüller"', "an address is written in numbers"),
        ('ae_title = "CT1", ', "", "an acquiring source names in `allow`"),
        ("allow = [", "#allow = [", "what anybody may send is nobody's acquisition"),
        ('device = "ct1"', "", "names the `device` whose output it is"),
        ('destination = "pacs"', 'destination = "pax"', "there is no [[destination]] named pax"),
        ('role = "acquire"', 'role = "gateway"', "names its `gateway` key, and no device"),
        ("[[source]]", "][", "not a TOML file (at line 2"),
        (GOOD, "", "nothing would arrive"),
        (GOOD, GOOD + GOOD, "two sources have one name"),
    ],
)
def test_a_mistake_is_named_by_its_place_and_not_by_its_value(tmp_path, good: str, wrong: str, says: str):
    path = tmp_path / "agent.toml"
    path.write_text(GOOD.replace(good, wrong))
    with pytest.raises(FixInput, match=re.escape(says)) as raised:
        read_settings(path)
    assert "Xqmüller" not in str(raised.value)
