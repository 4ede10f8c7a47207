"""The page: one HTML file that holds tables, figures, protocol, grid, costs and their meaning.

Nothing is loaded from outside: styles are inline, and figures are SVG inside the file. The HTML is
in the templates, which escape all text.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from harness.report.figures import INK, Drawing

if TYPE_CHECKING:
    from jinja2 import Environment

DARK_INK = "#e6e9ed"
"""Colour of the figures' text where the reader's system is set to dark."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an entry in the contents."""

    anchor: str
    title: str
    body: str
    """HTML."""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("harness.report", "")
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader, cache_size=2
    )


def html(macro: str, *arguments: object) -> str:
    """What a macro of `macros.html.j2`, which escapes all text, makes of its arguments."""
    return str(getattr(_environment().get_template("macros.html.j2").module, macro)(*arguments))


def render_page(**parts: object) -> str:
    """The page as HTML.

    Args:
        parts: `grid_name`, `heading`, `status`, `lead` (sentences at the top), `sections` and
            `figures_key` (what the figures were drawn from, see `harness.report.reuse`).
    """
    return _environment().get_template("page.html.j2").render(parts)


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
