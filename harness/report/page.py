"""The page: one HTML file that holds tables, figures, protocol, grid, costs and their meaning.

Nothing is loaded from outside: styles are inline, and figures are SVG inside the file. The HTML is
in the templates, which escape all text; that of the rows of tables, of which there may be tens of
thousands, is made here.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from harness.errors import printable
from harness.report.figures import INK, Drawing
from harness.report.parts import longest_piece, pieces, wide_parts
from harness.report.render import Entry, Table

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

DARK_INK = "#e6e9ed"
"""Colour of the figures' text where the reader's system is set to dark."""
ROOM = 1176.0
"""Pixels that a table has in a window of 1280."""
CHARACTER, GAP = 8.3, 13.0
"""Pixels of a character in a table, and around an entry."""
SECOND = 144.0
"""Pixels that the page gives a second column of texts at least: names of methods."""
WHOLE = 16
"""Characters of a text that is never broken."""
LONGEST_NUMBER = 18
"""Characters of a number that is never broken."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an entry in the contents."""

    anchor: str
    title: str
    body: str
    """HTML."""


@cache
def environment(package: str = "harness.report") -> Environment:
    """Templates of a package's folder, as pages are made of: they escape all text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader(package, "")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        loader=loader,
        cache_size=2,
        finalize=_plain,
    )
    environment.filters |= {"breakable": _breakable, "parts": _parts, "body": _body}
    return environment


def _plain(value: object) -> object:
    """Text without characters that steer a terminal or turn the direction of writing."""
    return printable(value) if type(value) is str else value


def _breakable(text: str) -> Markup:
    """A text whose long words the browser may break."""
    from markupsafe import Markup, escape

    if len(text) <= WHOLE:
        return escape(printable(text))
    words = (Markup("<wbr>").join(map(escape, pieces(word))) for word in printable(text).split(" "))
    return Markup(" ").join(words)


def _body(table: Table) -> Markup:
    """The rows of a table."""
    from markupsafe import Markup

    lines, texts = [], table.num_text_columns
    for line in table.rows:
        names = ["block"] * line.starts_block + ["reference"] * line.is_reference
        shown = f' class="{" ".join(names)}"' if names else ""
        cells = [_cell(entry, index >= texts) for index, entry in enumerate(line.entries)]
        lines.append(f"<tr{shown}>{''.join(cells)}</tr>\n")
    return Markup("".join(lines))


@lru_cache(maxsize=2**16)  # of most entries there are many
def _cell(entry: Entry, is_number: bool) -> str:
    """The HTML of an entry of a table; a short number is not broken."""
    from markupsafe import escape

    text, kind = entry.text, ""
    if is_number:
        kind = ' class="n"'
        text = text.replace(" ", "\u00a0") if len(text) <= LONGEST_NUMBER else text
    elif len(text) <= WHOLE:
        kind = ' class="k"'
    shown = str(_breakable(text))
    if entry.grey:
        shown = f'<span class="grey">{shown}</span>'
    elif entry.bold:
        shown = f"<b>{shown}</b>"
    error = f" <small>{escape(printable(entry.error))}</small>" if entry.error else ""
    return f"<td{kind}>{shown}{error}</td>"


def _parts(tables: Sequence[Table]) -> list[Table]:
    """Tables no wider than the page."""
    return [part for table in tables for part in wide_parts(table, ROOM, _column_width)]


def _column_width(table: Table, index: int) -> float:
    """The most pixels that a column needs where all of its text is broken into lines."""
    entries = [line.entries[index] for line in table.rows]
    pieces = [longest_piece(text) for entry in entries for text in (entry.text, entry.error)]
    if index >= table.num_text_columns:
        pieces = [max(len(entry.text), len(entry.error)) for entry in entries]
    least = SECOND if index == 1 < table.num_text_columns else 0.0
    return max(least, CHARACTER * max([longest_piece(table.header[index]), *pieces]) + GAP)


def html(macro: str, *arguments: object) -> str:
    """What a macro of `macros.html.j2`, which escapes all text, makes of its arguments."""
    return str(getattr(environment().get_template("macros.html.j2").module, macro)(*arguments))


def render_page(**parts: object) -> str:
    """The page as HTML.

    Args:
        parts: `grid_name`, `heading`, `status`, `box` (HTML before all else), `lead` (sentences
            at the top), `sections`, `figures_key` (what the figures were drawn from, see
            `harness.report.reuse`), and `style`, where a page has rules of its own.
    """
    return environment().get_template("page.html.j2").render(parts)


def panel_images(drawing: Drawing) -> list[str]:
    """Panels as base64 of SVG, for addresses of kind `data:`."""
    return [
        base64.b64encode(_adapt(drawing.render("svg", panel=panel))).decode("ascii")
        for panel in drawing.panels
    ]


def _adapt(svg: bytes) -> bytes:
    """An SVG whose text and axes follow the reader's light or dark setting."""
    text = svg.decode("utf-8")
    start = text.index("<svg")
    end = text.index(">", start) + 1
    style = (
        f"<style>svg{{color:{INK}}}"
        f"@media (prefers-color-scheme: dark){{svg{{color:{DARK_INK}}}}}</style>"
    )
    # The XML declaration and the DOCTYPE name an address; the image needs neither.
    return (text[start:end] + style + text[end:].replace(INK, "currentColor")).encode("utf-8")
