"""The report as PDF, A4: the blocks of the HTML page in the same order, with Roboto embedded, bookmarks and page numbers.

Equal documents give equal bytes. A character that the font lacks is written by its Unicode number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import IO, Any, Final, cast
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, CondPageBreak, Flowable, Frame, LongTable, PageTemplate, Spacer, TableStyle
from reportlab.platypus import Paragraph as Text

from ledger.audit.report import drawing
from ledger.audit.report.document import (
    Banner,
    Block,
    Column,
    Document,
    Figures,
    Heading,
    Items,
    Paragraph,
    Table,
    Tone,
    tone,
)
from ledger.audit.report.text import cut

_FONT, _BOLD = "Roboto", "Roboto-Bold"
_FILES: Final = {_FONT: "Roboto-Regular.ttf", _BOLD: "Roboto-Bold.ttf"}
_MARGIN: Final = 16 * mm
_WIDTH: Final = A4[0] - 2 * _MARGIN
_HEADED: Final = 120.0
"""Points that a heading needs below it, so that it does not stand alone at a page's end."""
_HEAD_SHOWN, _CELL_SHOWN = 160, 900
"""Characters of one line of a cell: whatever the values, a row is no higher than a page."""
_INK, _SOFT, _LINE, _SHADE = HexColor("#1b1f24"), HexColor("#4c5661"), HexColor("#c9d1d9"), HexColor("#f3f5f7")
_TONES: Final[dict[Tone, tuple[str, str]]] = {
    "good": ("#0f5a2b", "#e4f4e9"),
    "bad": ("#9b1c1c", "#fdeaea"),
    "open": ("#6b4700", "#fdf3dc"),
}
_STROKES: Final[dict[drawing.Role, tuple[str, float, tuple[int, ...]]]] = {
    "axis": ("#c9d1d9", 1, ()),
    "grid": ("#c9d1d9", 1, (2, 4)),
    "bracket": ("#1f5fa8", 2.5, ()),
    "open": ("#1f5fa8", 2.5, (5, 4)),
    "finding": ("#9b1c1c", 2.5, ()),
}
_FILLS: Final[dict[drawing.Role, tuple[str, str | None]]] = {
    "bracket": ("#1f5fa8", None),
    "claimed": ("#c2410c", "#ffffff"),
    "band": ("#fdeaea", "#9b1c1c"),
}
_LETTERS: Final[dict[drawing.TextRole, tuple[str, float, str]]] = {
    "strong": (_BOLD, 13, "#1b1f24"),
    "plain": (_FONT, 13, "#1b1f24"),
    "small": (_FONT, 12, "#4c5661"),
    "finding": (_BOLD, 13, "#9b1c1c"),
}


def write(document: Document, file: IO[bytes]) -> None:
    """Writes the document as PDF 1.4 or later, with title and language among its metadata."""
    _fonts()
    template = _Template(document, file)
    story: list[Flowable] = [Text(_markup(document.heading), _style("title"))]
    for place, block in enumerate(document.blocks):
        if isinstance(block, Heading):
            story.append(CondPageBreak(_needed(document.blocks[place + 1 :])))
        story += _WRITERS[type(block)](block)
    template.build(story)


def _needed(blocks: Sequence[Block]) -> float:
    """The height that a heading needs with what must not be parted from it: some lines, or all up to a picture's end."""
    for place, block in enumerate(blocks):
        if isinstance(block, drawing.Drawing):
            return block.height * _WIDTH / drawing.WIDTH + _HEADED * (1 + place) / 2
        if isinstance(block, (Heading, Table)):
            break
    return _HEADED


@lru_cache
def _fonts() -> frozenset[int]:
    """Registers the fonts, and gives the characters that both have."""
    folder = resources.files("font_roboto").joinpath("files")
    characters: list[frozenset[int]] = []
    for name, file in _FILES.items():
        with resources.as_file(folder.joinpath(file)) as path:
            font = TTFont(name, str(path))
        pdfmetrics.registerFont(font)
        characters.append(frozenset(font.face.charToGlyph))
    pdfmetrics.registerFontFamily(_FONT, normal=_FONT, bold=_BOLD, italic=_FONT, boldItalic=_BOLD)
    return characters[0] & characters[1]


class _Template(BaseDocTemplate):
    """A4 portrait; the title is above every page and its number below."""

    def __init__(self, document: Document, file: IO[bytes]) -> None:
        super().__init__(
            file,
            pagesize=A4,
            leftMargin=_MARGIN,
            rightMargin=_MARGIN,
            topMargin=_MARGIN + 4 * mm,
            bottomMargin=_MARGIN,
            title=_printable(document.title),
            author=_printable(document.software),
            creator=_printable(document.software),
            subject=document.heading,
            lang=document.lang,
            displayDocTitle=True,
            invariant=True,
        )
        self._document = document
        frame = Frame(self.leftMargin, self.bottomMargin, self.width, self.height, 0, 0, 0, 0)
        self.addPageTemplates(PageTemplate("page", [frame], onPage=self._decorate))

    def _decorate(self, canvas: Canvas, _: Any) -> None:
        if canvas.getPageNumber() == 1:
            _date(canvas, self._document.time)
        canvas.saveState()
        canvas.setFillColor(_SOFT)
        canvas.setFont(_FONT, 8)
        canvas.drawString(_MARGIN, A4[1] - _MARGIN + 1 * mm, _fitting(self._document.title, _WIDTH, 8))
        canvas.drawRightString(A4[0] - _MARGIN, _MARGIN - 6 * mm, f"{self._document.page} {canvas.getPageNumber()}")
        canvas.restoreState()

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802 - reportlab's name
        if isinstance(flowable, _Title):
            heading = flowable.heading
            self.canv.bookmarkPage(heading.anchor)
            self.canv.addOutlineEntry(_printable(heading.text), heading.anchor, level=heading.level - 2)


def _date(canvas: Canvas, time: int) -> None:
    """Makes the end of the audit the date of the file: reportlab's reproducible output would say 2000-01-01."""
    stamp = cast(Any, canvas)._doc._timeStamp
    stamp.t = time
    stamp.lt = datetime.fromtimestamp(time, UTC).timetuple()
    stamp.YMDhms = tuple(stamp.lt)[:6]


# ---- blocks ------------------------------------------------------------------------------------------------------------------


def _heading(block: Heading) -> Iterator[Flowable]:
    yield _Title(block)


class _Title(Text):
    """A heading that becomes a bookmark."""

    def __init__(self, heading: Heading) -> None:
        super().__init__(_markup(heading.text), _style("h2" if heading.level == 2 else "h3"))
        self.heading = heading


def _paragraph(block: Paragraph) -> Iterator[Flowable]:
    lead = f"<b>{_markup(block.lead)}</b> " if block.lead else ""
    yield Text(lead + _markup(block.text), _style(block.kind))


def _items(block: Items) -> Iterator[Flowable]:
    for place, text in enumerate(block.texts):
        markup = _markup(text)
        if block.anchors:
            markup = f'<a href="#{block.anchors[place]}" color="#0b4f9c">{markup}</a>'
        yield Text(markup, _style("item"), bulletText="\u2022")
    yield Spacer(1, 4)


def _banner(block: Banner) -> Iterator[Flowable]:
    ink, paper = _TONES[tone(block.token)]
    cells = [
        [Text(_markup(block.token), _style("verdict", textColor=HexColor(ink)))],
        [Text(_markup(block.subject), _style("aside"))],
        [Text(f"<b>{_markup(block.means[0])}</b> {_markup(block.means[1])}", _style("plain"))],
        [Text(f"<b>{_markup(block.means_not[0])}</b> {_markup(block.means_not[1])}", _style("plain"))],
    ]
    style: list[Any] = [
        ("BACKGROUND", (0, 0), (-1, -1), HexColor(paper)),
        ("BOX", (0, 0), (-1, -1), 1, HexColor(ink)),
        ("LINEBEFORE", (0, 0), (0, -1), 7, HexColor(ink), "butt"),
        ("LEFTPADDING", (0, 0), (-1, -1), 14),
        ("RIGHTPADDING", (0, 0), (-1, -1), 10),
        ("BOTTOMPADDING", (0, -1), (-1, -1), 8),
    ]
    yield LongTable(cells, colWidths=[_WIDTH], style=TableStyle(style))
    yield Spacer(1, 6)


def _figures(block: Figures) -> Iterator[Flowable]:
    cells = [
        [Text(_markup(number), _style("figure")) for _, number in block.pairs],
        [Text(_markup(label), _style("figure_label")) for label, _ in block.pairs],
    ]
    style: list[Any] = [("INNERGRID", (0, 0), (-1, -1), 0, HexColor("#ffffff")), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    style += [("BOX", (place, 0), (place, 1), 0.6, _LINE) for place in range(len(block.pairs))]
    yield Spacer(1, 4)
    yield LongTable(cells, colWidths=[_WIDTH / len(block.pairs)] * len(block.pairs), style=TableStyle(style))
    yield Spacer(1, 8)


def _table(block: Table) -> Iterator[Flowable]:
    head = [Text(_markup(column.label, _HEAD_SHOWN), _style("head", alignment=_alignment(column))) for column in block.columns]
    rows = [
        [_cell(text, block.columns[place], is_header=place == block.header) for place, text in enumerate(row)]
        for row in block.rows
    ]
    style: list[Any] = [
        ("BACKGROUND", (0, 0), (-1, 0), _SHADE),
        ("LINEBELOW", (0, 0), (-1, -1), 0.5, _LINE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 4),
        ("RIGHTPADDING", (0, 0), (-1, -1), 4),
        ("TOPPADDING", (0, 0), (-1, -1), 3),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
    ]
    numbers = [place for place, column in enumerate(block.columns) if column.kind == "number"]
    style += [("RIGHTPADDING", (place, 0), (place, -1), 9) for place in numbers]
    share = _WIDTH / sum(column.weight for column in block.columns)
    widths = [column.weight * share for column in block.columns]
    if not block.is_spoken:
        yield Text(_markup(block.caption), _style("caption"))
    yield LongTable([head, *rows], colWidths=widths, repeatRows=1, style=TableStyle(style), splitByRow=1, splitInRow=0)
    yield Spacer(1, 8)


def _cell(text: str, column: Column, *, is_header: bool) -> Text:
    lines = [_markup(line, _CELL_SHOWN) for line in text.split("\n")]
    if column.kind == "token" and text.split("\n")[0].isupper():
        lines[0] = f'<font color="{_TONES[tone(text.split(chr(10))[0])][0]}"><b>{lines[0]}</b></font>'
    style = _style("bold_cell" if is_header else "cell", alignment=_alignment(column))
    return Text("<br/>".join(lines), style)


def _alignment(column: Column) -> int:
    return 2 if column.kind == "number" else 0


def _drawing(block: drawing.Drawing) -> Iterator[Flowable]:
    yield _Picture(block)
    yield Spacer(1, 8)


_WRITERS: Final[dict[type, Callable[[Any], Iterator[Flowable]]]] = {
    Heading: _heading,
    Paragraph: _paragraph,
    Items: _items,
    Banner: _banner,
    Figures: _figures,
    Table: _table,
    drawing.Drawing: _drawing,
}


class _Picture(Flowable):
    """A drawing at the page's width."""

    def __init__(self, picture: drawing.Drawing) -> None:
        super().__init__()
        self._picture, self._scale = picture, _WIDTH / drawing.WIDTH

    def wrap(self, *_: float) -> tuple[float, float]:
        return _WIDTH, self._picture.height * self._scale

    def draw(self) -> None:
        canvas = self.canv
        canvas.saveState()
        canvas.translate(0, self._picture.height * self._scale)
        canvas.scale(self._scale, -self._scale)
        for shape in self._picture.shapes:
            _draw(canvas, shape)
        canvas.restoreState()


def _draw(canvas: Canvas, shape: drawing.Shape) -> None:
    if isinstance(shape, drawing.Label):
        font, size, colour = _LETTERS[shape.role]
        text = _printable(shape.text)
        width = pdfmetrics.stringWidth(text, font, size)
        canvas.saveState()
        canvas.translate(shape.x - {"start": 0.0, "middle": width / 2, "end": width}[shape.anchor], shape.y)
        canvas.scale(1, -1)
        canvas.setFillColor(HexColor(colour))
        canvas.setFont(font, size)
        canvas.drawString(0, 0, text)
        canvas.restoreState()
        return
    path = canvas.beginPath()
    path.moveTo(*shape.points[0])
    for point in shape.points[1:]:
        path.lineTo(*point)
    if isinstance(shape, drawing.Area):
        fill, stroke = _FILLS[shape.role]
        path.close()
        canvas.setFillColor(HexColor(fill))
        canvas.setDash()
        canvas.setLineWidth(1)
        if stroke:
            canvas.setStrokeColor(HexColor(stroke))
        canvas.drawPath(path, stroke=int(stroke is not None), fill=1)
    else:
        colour, line_width, dashes = _STROKES[shape.role]
        canvas.setStrokeColor(HexColor(colour))
        canvas.setLineWidth(line_width)
        canvas.setDash(list(dashes))
        canvas.drawPath(path, stroke=1, fill=0)


# ---- text --------------------------------------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    """The text in characters that the font has: others are written by number."""
    known = _fonts()
    return "".join(character if ord(character) in known else f"[U+{ord(character):04X}]" for character in text)


def _markup(text: str, limit: int = 10_000) -> str:
    """The text as a paragraph's markup, at most so many characters when printed: nothing in it is a tag."""
    return escape(cut(_printable(text), limit))


def _fitting(text: str, width: float, size: float) -> str:
    """The beginning of the text that is no wider than `width` points."""
    text = _printable(text)
    if pdfmetrics.stringWidth(text, _FONT, size) <= width:
        return text
    while text and pdfmetrics.stringWidth(text + "…", _FONT, size) > width:
        text = text[:-1]
    return text + "…"


_STYLES: Final[dict[str, dict[str, Any]]] = {
    "title": {"fontName": _BOLD, "fontSize": 20, "leading": 24, "spaceAfter": 2},
    "h2": {"fontName": _BOLD, "fontSize": 14.5, "leading": 18, "spaceBefore": 14, "spaceAfter": 6},
    "h3": {"fontName": _BOLD, "fontSize": 11, "leading": 14, "spaceBefore": 10, "spaceAfter": 3},
    "plain": {"fontSize": 9.5, "leading": 13, "spaceAfter": 4},
    "aside": {"fontSize": 8.5, "leading": 11.5, "spaceAfter": 4, "textColor": _SOFT},
    "note": {
        "fontSize": 9.5,
        "leading": 13,
        "spaceBefore": 4,
        "spaceAfter": 6,
        "backColor": _SHADE,
        "borderPadding": 5,
        "leftIndent": 5,
        "rightIndent": 5,
    },
    "item": {"fontSize": 9.5, "leading": 13, "spaceAfter": 2, "leftIndent": 12, "bulletIndent": 2},
    "verdict": {"fontName": _BOLD, "fontSize": 26, "leading": 31},
    "figure": {"fontName": _BOLD, "fontSize": 15, "leading": 18},
    "figure_label": {"fontSize": 8.5, "leading": 10.5, "textColor": _SOFT},
    "caption": {"fontName": _BOLD, "fontSize": 9, "leading": 12, "spaceBefore": 4, "spaceAfter": 3},
    "head": {"fontName": _BOLD, "fontSize": 8, "leading": 10},
    "cell": {"fontSize": 8, "leading": 10.5},
    "bold_cell": {"fontName": _BOLD, "fontSize": 8, "leading": 10.5},
}


def _style(name: str, **changes: Any) -> ParagraphStyle:
    values: dict[str, Any] = {"fontName": _FONT, "textColor": _INK, "splitLongWords": 1} | _STYLES[name] | changes
    return ParagraphStyle(name, **values)
