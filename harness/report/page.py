"""The page: one HTML file that holds tables, figures, protocol, grid, costs and their meaning.

Nothing is loaded from outside: styles are inline, and figures are SVG inside the file.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from harness.report.figures import INK, Drawing
from harness.report.render import Table, to_html

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


def render_page(page: Page) -> str:
    """Returns the page as HTML."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template = files("harness.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    sections = [
        {"anchor": section.anchor, "title": section.title, "body": Markup(section.body)}
        for section in page.sections
    ]
    return environment.from_string(template).render(
        title=f"{page.heading} · zbench",
        grid_name=page.grid_name,
        heading=page.heading,
        status=page.status,
        lead=page.lead,
        sections=sections,
        footer="Made by zbench from the results of the grid above.",
    )


def tables_html(tables: Sequence[Table]) -> str:
    """Returns tables one below the other."""
    return "\n".join(to_html(table) for table in tables)


def folded_html(title: str, body: str) -> str:
    """Returns something long behind a line to click on."""
    return f"<details><summary>{escape(title)}</summary>\n{body}\n</details>"


def paragraphs_html(lines: Sequence[str]) -> str:
    """Returns one paragraph per line."""
    return "\n".join(f"<p>{escape(line)}</p>" for line in lines)


def list_html(lines: Sequence[str]) -> str:
    """Returns a bullet list."""
    return "<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>"


def text_html(text: str) -> str:
    """Returns text as it is, in a box."""
    return f"<pre><code>{escape(text)}</code></pre>"


def drawing_html(drawing: Drawing) -> str:
    """Returns a figure, each panel an image of its own, so that a narrow window stacks them."""
    images = []
    for panel in drawing.panels:
        text = drawing.render("svg", panel=panel).decode("utf-8")
        content = base64.b64encode(_adapt(text).encode("utf-8")).decode("ascii")
        alt = escape(f"{drawing.title}. {panel.title}")
        images.append(f'<img alt="{alt}" src="data:image/svg+xml;base64,{content}">')
    return (
        f'<figure id="{escape(drawing.name)}"><h3>{escape(drawing.title)}</h3>\n'
        f'<div class="panels{" pairs" if len(images) == 4 else ""}">{"".join(images)}</div>\n'
        f"<figcaption><p>{escape(drawing.caption)}</p></figcaption></figure>"
    )


def _adapt(svg: str) -> str:
    """Returns an SVG whose text and axes follow the reader's light or dark setting."""
    start = svg.index("<svg")
    end = svg.index(">", start) + 1
    style = (
        f"<style>svg{{color:{INK}}}"
        f"@media (prefers-color-scheme: dark){{svg{{color:{DARK_INK}}}}}</style>"
    )
    # The XML declaration and the DOCTYPE name an address; the image needs neither.
    return svg[start:end] + style + svg[end:].replace(INK, "currentColor")
