"""The report as one HTML page: no script, no network, nothing beside it. Its own style is allowed by its hash, and no other."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ledger.audit.report import drawing
from ledger.audit.report.document import Block, Column, Document, Table, tone
from ledger.audit.report.words import words

_TEMPLATES: Final = "templates"


def page(document: Document) -> str:
    """The page, UTF-8 when encoded. Every text of the document is escaped; a style element's content needs no escaping, and is
    ours."""
    environment = Environment(
        loader=PackageLoader("ledger.audit.report", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.globals.update(kind=_kind, tone=tone, points=_points, share=_share, width=drawing.WIDTH)
    style = resources.files("ledger.audit.report").joinpath(_TEMPLATES, "report.css").read_text("utf-8")
    tables = (block for block in document.blocks if isinstance(block, Table))
    shares = sorted({_share(column, table) for table in tables for column in table.columns})
    style += "".join(f".share-{share} {{ width: {share}%; }}\n" for share in shares)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        document=document,
        contents=words(document.lang)("title.contents"),
        style=Markup(style),  # noqa: S704
        style_hash=f"sha256-{digest}",
    )


def _kind(block: Block | drawing.Shape) -> str:
    return type(block).__name__.lower()


def _share(column: Column, table: Table) -> int:
    """A column's width in per cent."""
    return round(100 * column.weight / sum(one.weight for one in table.columns))


def _points(shape: drawing.Line | drawing.Area) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
