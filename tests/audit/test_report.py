"""Reports of an audit: every format says the same, to whom may see it, and no value from outside breaks out of its place."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import tomllib
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import html5lib
import jsonschema
import pypdf
import pytest

from ledger.audit.report import FORMATS, write_report
from ledger.audit.report.drawing import Area, Label, Line, timeline
from ledger.audit.report.text import iso, moment, shown, visible
from ledger.audit.report.view import _ORDER, EXCEPTIONS_SHOWN, VISITS_SHOWN, Exceptions, group
from ledger.audit.report.words import LANGUAGES, words
from ledger.audit.result import (
    AuditResult,
    Blinded,
    Finding,
    Kind,
    Row,
    SetToken,
    Signature,
    Step,
    VisitResult,
    blinded,
)
from ledger.core.errors import FixInput, Stop
from ledger.core.verdict import FindingWord, Token

START = 1788000000
DAY = 86400
HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"


def record(number: int) -> str:
    return "0x" + hashlib.sha256(str(number).encode()).hexdigest()


WITHHELD = (
    Finding("withheld_declared", "S01-001", "WEEK 12", None, None, record(1), "Geheim: motion artefacts"),
    Finding("withheld_counter", "S01-001", "WEEK 12", detail="CT 7 signed counter 41", parameters={"counter": "41"}),
)
FINDINGS = (
    *WITHHELD,
    Finding("image_not_in_order", "S01-002", "WEEK 12", "a/IM4.dcm", "MISMATCH", record(2), "PatientID is not what was sealed"),
    Finding("image_not_in_order", "S02-001", "WEEK 12", "b/IM3.dcm", "ALTERED", record(3), "frame 1: 4 tiles differ"),
    Finding("unexpected_image", "S02-001", "BASELINE", "b/IM9.dcm", "AUTHENTIC", record(4), "no manifest lists it"),
    Finding(
        "custody",
        record_id=record(5),
        detail="received follows no transferred",
        parameters={"finding": "gap", "action": "received", "by": "Core lab", "count": "6"},
    ),
)
STEPS = (
    Step("acquired", "Axiom CT 7", "acquired", START, (START - 40, START + 300), record(6), (), 18),
    Step("de-identified", "Gateway", "de-identified", START + DAY, (START + DAY - 9, START + DAY + 60), record(7), (), 18),
    Step("correction", "Data manager", "derived", START + 9 * DAY, (START + 8 * DAY, None), record(8)),
    Step("received", "Core lab", "received", START + 30 * DAY, (None, None), record(9), (), 6, "gap", "follows no transferred"),
)


def visit(
    subject: str, name: str, token: SetToken, listed: int, withheld: int = 0, other: SetToken | None = None
) -> VisitResult:
    here = listed - withheld
    return VisitResult(subject, name, token, listed, here, here, withheld, True, blinded_token=other or token)


def audit(**changes: Any) -> AuditResult:
    visits = (
        visit("S01-001", "BASELINE", SetToken.COMPLETE, 3),
        visit("S01-001", "WEEK 12", SetToken.WITHHELD, 4, 1, SetToken.COMPLETE),
        visit("S01-002", "BASELINE", SetToken.COMPLETE, 3),
        visit("S01-002", "WEEK 12", SetToken.INCOMPLETE, 3),
        visit("S02-001", "BASELINE", SetToken.UNEXPECTED, 3),
        visit("S02-001", "WEEK 12", SetToken.INCOMPLETE, 3),
    )
    values: dict[str, Any] = {
        "trial": "LUMINA-3",
        "site": "Core lab, Basel",
        "manifest_kind": "transmittal",
        "manifest_record": record(10),
        "manifest_digest": record(11),
        "token": SetToken.WITHHELD,
        "exit_code": 5,
        "listed": 19,
        "present": 19,
        "images": {"AUTHENTIC": 1, "DERIVED": 16, "ALTERED": 1, "MISMATCH": 1},
        "visits": visits,
        "findings": FINDINGS,
        "findings_total": len(FINDINGS),
        "timeline": STEPS,
        "signatures": (
            Signature("Dr. Hélène Müller-Żak", "reviewed", START, (START - 60, START + 60), record(12)),
            Signature("Иван Παπαδόπουλος", "approved", START + 900, (START + 800, None), record(13)),
        ),
        "approvals_required": 2,
        "chain_id": 31337,
        "anchor_log": "0x" + "5f" * 20,
        "trust_as_of": START + 61 * DAY,
        "offline": True,
        "started": START + 62 * DAY,
        "finished": START + 62 * DAY + 34,
        "software": "scanseal 0.1.0",
        "blinded": Blinded(SetToken.UNEXPECTED, 1, len(FINDINGS) - len(WITHHELD)),
    }
    return AuditResult(**values | changes)


def rows(count: int = 5) -> Iterator[Row]:
    for number in range(count):
        path = f"site/IM{number:06d}.dcm"
        yield Row(path, "S01-001", "BASELINE", "DERIVED", "listed", record(100 + number), "CT 7", (START, None), ("a reason",))
    yield Row(None, "S01-001", "WEEK 12", None, "withheld", record(1), None, (None, None), ("Geheim: motion artefacts",))


def written(folder: Path, result: AuditResult | None = None, **options: Any) -> dict[str, bytes]:
    result = result or audit()
    findings = options.pop("findings", result.findings)
    files = write_report(result, options.pop("rows", rows()), findings, folder, **options)
    return {path.name: path.read_bytes() for path in files}


def tree(page: bytes) -> Any:
    return html5lib.HTMLParser(strict=True).parse(page.decode(), scripting=True)


def pdf_text(data: bytes) -> str:
    """The words of all pages, between single spaces."""
    text = " ".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(data)).pages)
    return re.sub(r"\s+", " ", text)


# ---- words -------------------------------------------------------------------------------------------------------------------


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}")
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from leaves(one, f"{path}[{place}]")
    else:
        yield path, value


def sentences(lang: str) -> dict[str, str]:
    text = resources.files("ledger.audit.report").joinpath(f"words_{lang}.toml").read_text("utf-8")
    return dict(leaves(tomllib.loads(text)))


def test_languages_have_the_same_sentences_with_the_same_placeholders() -> None:
    known = {lang: sentences(lang) for lang in LANGUAGES}
    assert all(texts.keys() == known["en"].keys() for texts in known.values())
    for key, text in known["en"].items():
        holes = sorted(re.findall(r"\{\w*\}", text))
        for lang in LANGUAGES:
            assert sorted(re.findall(r"\{\w*\}", known[lang][key])) == holes, (lang, key)
            assert known[lang][key].strip() == known[lang][key] != "", (lang, key)


def test_clauses_are_numbered_alike_and_nothing_claims_compliance() -> None:
    numbers = {
        lang: [row["clause"] for row in words(lang).rows("clauses.rows") if row["source"] != "fda"] for lang in LANGUAGES
    }
    assert numbers["en"] == numbers["fr"]
    assert {"11.10(a)", "11.10(b)", "11.10(c)", "11.10(e)", "11.10(g)", "11.50", "11.70", "4.2.2"} <= set(numbers["en"])
    for lang in LANGUAGES:
        assert not re.search(r"compl(y|ies|iant|iance)|conforme (à|aux)|conformité", " ".join(sentences(lang).values()))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_token_verdict_finding_and_kind_has_words(lang: str) -> None:
    text = words(lang)
    assert all(text.has(f"tokens.{token}.means") and text.has(f"tokens.{token}.not") for token in SetToken)
    assert all(text.has(f"verdicts.{token}") for token in Token)
    assert all(text.has(f"findings.{word}") for word in get_args(FindingWord))
    groups = {group(Finding(kind, verdict=token), text) for kind in get_args(Kind) for token in Token}
    groups |= {group(Finding("custody", parameters={"finding": word}), text) for word in get_args(FindingWord)}
    assert groups <= set(_ORDER)
    assert all(text.has(f"kinds.{name}.{part}") for name in _ORDER for part in ("title", "means", "next"))


def test_french_signs_never_start_a_line() -> None:
    assert "Cela signifie\u00a0:" in words("fr")("summary.means")
    assert words("fr").number(1234567) == "1\u00a0234\u00a0567"
    assert words("en").number(1234567) == "1,234,567"


# ---- HTML --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("audience", ["auditor", "reader"])
def test_the_page_needs_nothing_from_outside_and_runs_nothing(tmp_path: Path, lang: str, audience: str) -> None:
    page = written(tmp_path, lang=lang, audience=audience, formats=["html"])["report.html"]
    root = tree(page)
    assert root.get("lang") == lang
    for element in root.iter():
        assert element.tag not in {f"{HTML}{name}" for name in ("script", "link", "img", "iframe", "object", "base", "form")}
        for name, value in element.attrib.items():
            assert name not in ("style", "src")
            assert not name.startswith("on")
            assert name != "href" or value.startswith("#")
    text = page.decode()
    assert not re.search(r"https?://|url\(|@import", text)
    style = next(root.iter(f"{HTML}style")).text
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(meta.get("content") for meta in root.iter(f"{HTML}meta") if meta.get("http-equiv"))
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_the_page_can_be_read_without_seeing_it(tmp_path: Path) -> None:
    root = tree(written(tmp_path, formats=["html"])["report.html"])
    levels = [int(element.tag[-1]) for element in root.iter() if re.fullmatch(rf"{re.escape(HTML)}h[1-6]", str(element.tag))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for table in root.iter(f"{HTML}table"):
        assert table.find(f"{HTML}caption").text
        assert all(cell.get("scope") == "col" for cell in table.find(f"{HTML}thead").iter(f"{HTML}th"))
        assert all(cell.get("scope") == "row" for cell in table.find(f"{HTML}tbody").iter(f"{HTML}th"))
    pictures = list(root.iter(f"{SVG}svg"))
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    assert pictures
    for picture in pictures:
        assert picture.find(f"{SVG}title").text
        assert picture.get("role") == "img"
        assert set(picture.get("aria-labelledby").split()) <= ids
    assert {link.get("href")[1:] for link in root.iter(f"{HTML}a")} <= ids


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_contrast_as_wcag_asks_in_light_dark_and_print() -> None:
    style = resources.files("ledger.audit.report").joinpath("templates", "report.css").read_text("utf-8")
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(themes) == 3
    papers = {"ink": ("paper", "shade", "good-paper", "bad-paper", "open-paper", "band"), "link": ("paper",)}
    papers |= {"soft": ("paper", "shade", "good-paper", "bad-paper", "open-paper", "band"), "finding": ("paper", "band")}
    papers |= {"good": ("paper", "good-paper"), "bad": ("paper", "bad-paper"), "open": ("paper", "open-paper")}
    papers |= {"bracket": ("paper", "band"), "claimed": ("paper", "band")}
    for theme in themes:
        for ink, backs in papers.items():
            for back in backs:
                light, dark = sorted((luminance(theme[ink]), luminance(theme[back])), reverse=True)
                needed = 3 if ink in ("bracket", "claimed") else 4.5
                assert (light + 0.05) / (dark + 0.05) >= needed, (ink, back)


# ---- what it says ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_html_and_pdf_say_what_was_found_with_its_evidence(tmp_path: Path, lang: str) -> None:
    files = written(tmp_path, lang=lang)
    text = words(lang)
    page = re.sub(r"\s+", " ", "".join(tree(files["report.html"]).itertext()))
    paper = pdf_text(files["report.pdf"])
    for said in (page, paper):
        squeezed = re.sub(r"\s", "", said)
        for expected in (
            "WITHHELD",
            *(text(f"tokens.WITHHELD.{part}") for part in ("means", "not")),
            *(finding.detail for finding in FINDINGS),
            *(finding.path for finding in FINDINGS if finding.path),
            *(finding.record_id for finding in FINDINGS if finding.record_id),
            *(text(f"kinds.{name}.next") for name in ("image_ALTERED", "image_MISMATCH", "custody_gap")),
            *(f"{one.name}{one.meaning}{moment(one.time, '')}" for one in audit().signatures),
            *("GAP", "S02-001", "INCOMPLETE", "31337", moment(START + 61 * DAY, ""), record(10)),
            *text.items("not_shown.items"),
            *(row["supports"] for row in text.rows("clauses.rows")),
        ):
            assert re.sub(r"\s", "", expected) in squeezed, expected


def test_pdf_has_title_language_bookmarks_date_and_its_own_fonts(tmp_path: Path) -> None:
    reader: Any = pypdf.PdfReader(io.BytesIO(written(tmp_path, lang="fr", formats=["pdf"])["report.pdf"]))
    assert reader.metadata.title == words("fr")("title.document", trial="LUMINA-3", site="Core lab, Basel")
    assert int(reader.metadata.creation_date.timestamp()) == audit().finished
    assert reader.trailer["/Root"]["/Lang"] == "fr"
    titles = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert titles == [words("fr")(f"title.{name}") for name in SECTIONS]
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():
            assert "Roboto" in font["/BaseFont"] or font["/BaseFont"] == "/Helvetica"
            assert font["/BaseFont"] == "/Helvetica" or "/FontFile2" in font["/FontDescriptor"]


SECTIONS = ("summary", "exceptions", "visits", "timeline", "signatures", "not_shown", "about", "clauses")


def test_equal_audits_give_equal_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "one") == written(tmp_path / "two")


def test_an_audit_in_order_says_so(tmp_path: Path) -> None:
    fine = visit("S01-001", "BASELINE", SetToken.COMPLETE, 3)
    result = audit(token=SetToken.COMPLETE, visits=(fine,), findings=(), findings_total=0, timeline=(), signatures=())
    files = written(tmp_path, result)
    said = pdf_text(files["report.pdf"])
    assert "COMPLETE" in said
    assert words("en")("summary.no_exceptions") in said
    assert words("en")("signatures.none") in said
    assert words("en")("timeline.none") in said
    tree(files["report.html"])


def test_long_lists_show_their_beginning_and_say_where_the_rest_is(tmp_path: Path) -> None:
    many = tuple(Finding("missing_image", "S1", f"V{number}", None, None, record(number)) for number in range(60))
    visits = tuple(
        visit(f"S{number:04d}", "V", SetToken.OPEN if number == 899 else SetToken.COMPLETE, 1) for number in range(900)
    )
    steps = (STEPS[0],) * 70 + (STEPS[3],)
    result = audit(findings=many, findings_total=60, visits=visits, timeline=steps, listed=900)
    files = written(tmp_path, result)
    page = files["report.html"].decode()
    assert f"{EXCEPTIONS_SHOWN} of 60 are shown here; all are in findings.csv." in page
    assert f"{VISITS_SHOWN} of 900 visits are shown here" in page
    assert "S0899" in page
    assert "36 of 71 steps are shown here" in page
    assert "71. received" in page
    assert len(list(csv.reader(io.StringIO(files["findings.csv"].decode("utf-8-sig"))))) == 61
    assert len(json.loads(files["report.json"])["timeline"]) == 71


def test_the_picture_keeps_claimed_and_proven_times_apart() -> None:
    late = replace(STEPS[0], claimed=START + 900)
    (drawing,) = timeline([(1, late), (2, STEPS[3])], words("en"))
    lines = [shape for shape in drawing.shapes if isinstance(shape, Line | Area)]
    claims = [line for line in lines if line.role == "claimed"][1:]
    brackets = [line for line in lines if line.role == "bracket" and len(line.points) == 4]
    in_first_row = [one for one in brackets if abs(one.points[0][1] - claims[0].points[1][1]) < 20]
    assert len(claims) == 2
    assert max(x for one in in_first_row for x, _ in one.points) < min(x for x, _ in claims[0].points)
    assert "GAP" in [shape.text for shape in drawing.shapes if isinstance(shape, Label)]
    assert [line for line in lines if line.role == "open"]


# ---- audiences ---------------------------------------------------------------------------------------------------------------


def nothing_withheld() -> AuditResult:
    """The same audit, had the image never been made."""
    result = audit()
    visits = tuple(
        visit("S01-001", "WEEK 12", SetToken.COMPLETE, 3) if one.token is SetToken.WITHHELD else one for one in result.visits
    )
    findings = tuple(one for one in result.findings if one not in WITHHELD)
    return replace(
        result,
        token=SetToken.UNEXPECTED,
        exit_code=1,
        listed=18,
        visits=visits,
        findings=findings,
        findings_total=len(findings),
    )


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("audience", ["reader", "Reader", "", "somebody else"])
def test_a_blinded_copy_is_the_copy_of_an_audit_in_which_nothing_was_withheld(tmp_path: Path, lang: str, audience: str) -> None:
    with_it = written(tmp_path / "with", lang=lang, audience=audience)
    without = written(tmp_path / "without", nothing_withheld(), rows=list(rows())[:-1], lang=lang, audience=audience)
    assert with_it == without
    note = words(lang)("summary.blinded")
    assert note in pdf_text(with_it["report.pdf"])
    for name, data in with_it.items():
        text = pdf_text(data) if name.endswith("pdf") else data.decode()
        if name != "report.schema.json":
            assert not re.search(r"withheld|geheim|counter 41|retenue|" + record(1), text, re.IGNORECASE), name


def test_a_full_copy_warns_that_it_may_unblind(tmp_path: Path) -> None:
    said = pdf_text(written(tmp_path, formats=["pdf"])["report.pdf"])
    assert words("en")("summary.full") in said
    assert words("en")("summary.blinded") not in said


def test_the_trial_says_who_sees_what_was_withheld(tmp_path: Path) -> None:
    assert b"Geheim" in written(tmp_path, audience="monitor", seeing_withheld=("monitor",))["findings.csv"]
    assert b"Geheim" not in written(tmp_path, audience="auditor", seeing_withheld=("monitor",))["findings.csv"]


def test_a_result_that_does_not_know_its_blinded_view_is_refused(tmp_path: Path) -> None:
    for result in (audit(blinded=None), audit(visits=(replace(audit().visits[0], blinded_token=None),))):
        with pytest.raises(FixInput, match="run it again"):
            written(tmp_path, result, audience="reader")
    assert not list(tmp_path.iterdir())


def test_blinded_counts_leave_out_what_was_withheld() -> None:
    result = blinded(audit())
    assert (result.token, result.exit_code, result.listed, result.findings_total) == (SetToken.UNEXPECTED, 1, 18, 4)
    assert all(one.withheld == 0 and one.listed == 3 and one.token is not SetToken.WITHHELD for one in result.visits)


# ---- CSV and JSON ------------------------------------------------------------------------------------------------------------


def table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_csv_and_json_list_every_image_and_every_exception_alike(tmp_path: Path) -> None:
    files = written(tmp_path, formats=["csv", "json"])
    value = json.loads(files["report.json"])
    images, findings = table(files["images.csv"]), table(files["findings.csv"])
    assert [row["path"] or None for row in images] == [image["path"] for image in value["images"]]
    assert len(images) == 6
    assert images[0]["sealed_after"] == value["images"][0]["sealed_between"][0] == iso(START)
    assert images[0]["sealed_before"] == ""
    assert [row["detail"] for row in findings] == [finding["detail"] for finding in value["findings"]]
    assert [row["number"] for row in findings] == ["1", "2", "3", "4", "5", "6"]
    assert findings[5]["parameters"] == "action: received; by: Core lab; count: 6; finding: gap"


@pytest.mark.parametrize("audience", ["auditor", "reader"])
def test_json_is_what_its_schema_says(tmp_path: Path, audience: str) -> None:
    files = written(tmp_path, audience=audience, formats=["json"])
    schema = json.loads(files["report.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(files["report.json"]), schema, format_checker=jsonschema.FormatChecker())
    assert set(schema["$defs"]["finding"]["properties"]["kind"]["enum"]) == set(get_args(Kind))
    assert set(schema["$defs"]["custody_token"]["enum"]) == {*map(str, Token), None}
    assert set(schema["$defs"]["step"]["properties"]["finding"]["enum"]) == {*get_args(FindingWord), None}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", " =", "'=", '"=', "＝"])
def test_no_cell_is_a_formula(tmp_path: Path, start: str) -> None:
    evil = f"{start}HYPERLINK(1)"
    row = Row(evil, evil, evil, None, "unexpected", None, evil, (None, None), (evil,))
    files = written(tmp_path, rows=[row], formats=["csv"])
    (image,) = table(files["images.csv"])
    for cell in (image["path"], image["subject"], image["device"], image["reasons"]):
        assert cell.startswith(("'", "[U+")), cell


def test_csv_is_rfc_4180_whatever_the_separator_of_the_reader(tmp_path: Path) -> None:
    row = Row('a"b;=1,\n', "S", "V", None, "unexpected", None, None, (None, None), ())
    data = written(tmp_path, rows=[row], formats=["csv"])["images.csv"]
    assert data.startswith(b"\xef\xbb\xbf")
    lines = data.decode("utf-8-sig").split("\r\n")
    assert lines[-1] == ""
    assert lines[1].startswith('"a""b;=1,[U+000A]",')
    assert all(re.fullmatch(r'"([^"]|"")*"(,"([^"]|"")*")*', line) for line in lines[:-1])


# ---- hostile values, and large ones ------------------------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script><b onclick=x>&amp;'\"",
    "</style></title></svg><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}{trial}{0.__class__}%s",
    "<para><font size=99>&#x202e;",
    "\u202etxt.exe\u2066\u200f",
    "a\x00b\x1b[31m\r\n\t\x7f",
    "\udcff\udc80\uffff\ue000\U0001f600",
    "x" * 10_000,
    "W" * 10_000,
    "\u4e2d" * 10_000,
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 " * 100,
    "e\u0301\u0316" * 500,
    "\x00" * 2_000,
)


@pytest.mark.parametrize("evil", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("audience", ["auditor", "reader"])
def test_hostile_values_stay_text(tmp_path: Path, evil: str, audience: str) -> None:
    finding = Finding("image_not_in_order", evil, evil, evil, evil, evil, evil, {"finding": evil, evil: evil})
    custody = replace(finding, kind="custody", parameters=dict.fromkeys(("finding", "action", "by", "count"), evil))
    names = [visit(evil, evil + str(number), SetToken.COMPLETE, 1) for number in range(7)]
    step = Step(evil, evil, evil, 1 << 63, (None, -(1 << 62)), evil, (evil,), 3, None, evil)
    result = audit(
        **dict.fromkeys(
            ("trial", "site", "manifest_kind", "manifest_record", "manifest_digest", "anchor_log", "software"), evil
        ),
        visits=tuple(names),
        images={evil: 3},
        findings=(finding, custody),
        findings_total=2,
        blinded=Blinded(SetToken.INCOMPLETE, 1, 2),
        timeline=(step, replace(step, finding="gap")),
        signatures=(Signature(evil, evil, 1 << 62, (None, None), evil),),
    )
    row = Row(evil, evil, evil, evil, "unexpected", evil, evil, (None, None), (evil,))
    files = written(tmp_path, result, rows=[row], audience=audience)
    root = tree(files["report.html"])
    plain = tree(written(tmp_path / "plain", audience=audience)["report.html"])
    assert {element.tag for element in root.iter()} <= {element.tag for element in plain.iter()}
    text = "".join(root.itertext())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text)
    assert len(files["report.html"]) < 400_000
    assert len(pypdf.PdfReader(io.BytesIO(files["report.pdf"])).pages) < 30
    path = json.loads(files["report.json"])["images"][0]["path"]
    assert path == re.sub(r"[\ud800-\udfff]", lambda match: f"[U+{ord(match[0]):04X}]", evil)
    (image,) = table(files["images.csv"])
    assert visible(evil) in image["path"]


def test_invisible_characters_are_written_by_number_and_long_values_cut_in_the_middle() -> None:
    assert visible("a\u202eb\u00a0c\x00") == "a[U+202E]b[U+00A0]c[U+0000]"
    assert visible("Ελένη Żak Иван 中") == "Ελένη Żak Иван 中"
    assert shown("a" * 100 + "b" * 100, 20) == "a" * 10 + " [… 180 …] " + "b" * 10


def test_pdf_writes_what_its_font_lacks_by_number(tmp_path: Path) -> None:
    said = pdf_text(written(tmp_path, audit(site="中 Ελένη Żółć Иван"), formats=["pdf"])["report.pdf"])
    assert "[U+4E2D] Ελένη Żółć Иван" in said


def peak(folder: Path, count: int) -> int:
    findings = (Finding("missing_image", "S1", "V", None, None, record(number), "not there") for number in range(count))
    result = audit(findings=(), findings_total=count)
    tracemalloc.start()
    try:
        write_report(result, rows(count), findings, folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    few = peak(tmp_path / "warm", 500) and peak(tmp_path / "few", 500)
    many = peak(tmp_path / "many", 20_000)
    assert many - few < 1_000_000
    assert len(table((tmp_path / "many" / "images.csv").read_bytes())) == 20_001


# ---- writing -----------------------------------------------------------------------------------------------------------------


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    assert list(written(tmp_path / "new" / "folder", formats=["csv"])) == ["images.csv", "findings.csv"]
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir() if path.name.startswith(".")] == []
    everything = ["report.html", "report.pdf", "images.csv", "findings.csv", "report.json", "report.schema.json"]
    assert list(written(tmp_path, formats=FORMATS)) == everything


def test_a_report_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    before = written(tmp_path)

    def breaking() -> Iterator[Row]:
        yield from rows(2)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        written(tmp_path, audit(trial="another"), rows=breaking())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_findings_of_another_audit_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="two audits"):
        written(tmp_path, findings=FINDINGS[:-1])


@pytest.mark.parametrize("options", [{"lang": "de"}, {"formats": ["docx"]}, {"formats": []}])
def test_unknown_languages_and_formats_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(FixInput):
        written(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_exceptions_are_numbered_alike_in_every_format(tmp_path: Path) -> None:
    exceptions = Exceptions(words("en"))
    assert [exceptions.add(finding) for finding in FINDINGS] == [1, 2, 3, 4, 5, 6]
    assert exceptions.groups()[0] == "image_ALTERED"
    page = written(tmp_path, formats=["html"])["report.html"].decode()
    rows_shown = re.findall(r'<th scope="row" class="number"><bdi>(\d+)</bdi></th>', page)
    assert sorted(rows_shown) == ["1", "2", "3", "4", "5", "6"]
