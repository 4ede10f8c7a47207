"""The page: one HTML file that holds tables, figures, protocol, grid, costs and their meaning.

Nothing is loaded from outside: styles are inline, and figures are SVG inside the file. The HTML is
in the templates, which escape all text.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.report.figures import INK, Drawing
from harness.report.render import Table

if TYPE_CHECKING:
    from jinja2 import Environment

DARK_INK = "#e6e9ed"
"""Of the figures' text where the reader's system is set to dark."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an entry in the contents."""

    anchor: str
    title: str
    body: str
    """HTML."""


@dataclass(frozen=True)
class Page:
    """What the template prints."""

    grid_name: str
    heading: str
    status: str
    lead: tuple[str, ...]
    """Sentences at the top."""
    sections: tuple[Section, ...]
    figures_key: str = ""
    """What the figures were drawn from, see `harness.report.reuse`."""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("harness.report", "")
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader, cache_size=2
    )


def _macros() -> Any:
    return _environment().get_template("macros.html.j2").module


def render_page(page: Page) -> str:
    """Page as HTML."""
    return _environment().get_template("page.html.j2").render(page=page)


def tables_html(tables: Sequence[Table]) -> str:
    """Tables one below the other, each scrolling sideways in a narrow window."""
    return str(_macros().tables(tables))


def folded_html(title: str, body: str) -> str:
    """Something long (HTML) behind a line to click on."""
    from markupsafe import Markup

    return str(_macros().folded(title, Markup(body)))


def paragraphs_html(lines: Sequence[str]) -> str:
    """One paragraph per line."""
    return str(_macros().paragraphs(lines))


def list_html(lines: Sequence[str]) -> str:
    """Bullet list."""
    return str(_macros().bullets(lines))


def text_html(text: str) -> str:
    """Text as it is, in a box."""
    return str(_macros().text(text))


def drawing_html(drawing: Drawing, images: Sequence[str] = ()) -> str:
    """Figure, each panel an image of its own, so that a narrow window stacks them.

    Args:
        drawing: the figure.
        images: its panels as `panel_images` makes them, where they are at hand.
    """
    return str(_macros().drawing(drawing, images or panel_images(drawing)))


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
