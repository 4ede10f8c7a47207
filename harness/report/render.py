"""A table, and what it is as Markdown.

LaTeX and plain text are made in files of their own, HTML by the page's templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeVar

from harness.errors import printable
from harness.report.numbers import MISSING

if TYPE_CHECKING:
    from harness.analysis.columns import Group


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table."""

    text: str = MISSING
    error: str = ""
    """Printed smaller after `text`, such as `± 1.2`."""
    bold: bool = False
    grey: bool = False
    """Whether it is no more than noise; `text` has a sign that says so where there is no grey."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    entries: tuple[Entry, ...]
    starts_block: bool = False
    """Whether a rule stands above."""
    is_reference: bool = False
    """Whether it is not ours (a published value, chance), printed dimmer."""


@dataclass(frozen=True)
class Table:
    """A table to print; the first `num_text_columns` columns are text, the others numbers."""

    name: str
    """Name of its files."""
    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...] = ()
    """Sentences below the table."""
    subtitle: str = ""
    """How its columns were measured, in one line."""
    notes: tuple[str, ...] = ()
    """Deviations, printed below the table everywhere, in the terminal too."""
    num_text_columns: int = 1


def row(*entries: str | Entry, starts_block: bool = False, is_reference: bool = False) -> Row:
    """Row of entries, plain ones given as text."""
    made = (Entry(entry) if isinstance(entry, str) else entry for entry in entries)
    return Row(tuple(made), starts_block, is_reference)


def blocks(lines: Iterable[Sequence[str | Entry]], num_keys: int = 1) -> tuple[Row, ...]:
    """Rows in blocks of equal first `num_keys` entries, which the first row of each shows alone."""
    rows, previous = [], None
    for line in lines:
        starts = line[:num_keys] != previous
        previous = line[:num_keys]
        head = previous if starts else [""] * num_keys
        rows.append(row(*head, *line[num_keys:], starts_block=starts))
    return tuple(rows)


class Grouped(Protocol):
    """What was measured in the columns of one group."""

    @property
    def group(self) -> Group:
        """The group."""


Line = TypeVar("Line", bound=Grouped)


def by_group(lines: Iterable[Line]) -> dict[Group, list[Line]]:
    """Lines by their group, in the order of their first ones: a table for each."""
    found: dict[Group, list[Line]] = {}
    for line in lines:
        found.setdefault(line.group, []).append(line)
    return found


def to_markdown(table: Table) -> str:
    """Table with its title and caption as GitHub-flavoured Markdown."""
    rule = ["---" if i < table.num_text_columns else "---:" for i in range(len(table.header))]
    lines = [f"**{_md(table.title)}**"]
    lines += ["", _md(table.subtitle), ""] if table.subtitle else [""]
    lines += [_md_line([_md(name) for name in table.header]), _md_line(rule)]
    for line in table.rows:
        lines.append(_md_line([_md_entry(entry, line.is_reference) for entry in line.entries]))
    below = [f"{_md(text)}\n" for text in (*table.notes, *table.caption)]
    return "\n".join([*lines, "", *below]).rstrip() + "\n"


def _md_line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


_MARKUP = re.compile(
    r"[\\|*`$~\[\]]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside a word it is no markup
    r"|(?<=[A-Za-z])(?=://)|(?<=www)(?=\.)"
    r"|^(?:[#>+=-](?!\d)|\d+(?=[.)]\s))"
)


@lru_cache(maxsize=2**16)
def _md(text: str) -> str:
    """Text that stands in Markdown as it is."""
    flat = " ".join(printable(text).splitlines())
    escaped = _MARKUP.sub(_escaped, flat)
    return re.sub(r"&(?=#?\w+;)", "&amp;", escaped).replace("<", "&lt;")


def _escaped(found: re.Match[str]) -> str:
    if found[0].isdigit():
        return f"{found[0]}\\"
    return f"\\{found[0]}"


def _md_entry(entry: Entry, is_reference: bool) -> str:
    text = _md(f"{entry.text} {entry.error}".strip())
    if entry.bold:
        text = f"**{_md(entry.text)}** {_md(entry.error)}".strip()
    return f"*{text}*" if is_reference and text and text != MISSING else text
