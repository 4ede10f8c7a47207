"""A table as plain text, for terminals and logs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from harness.errors import printable
from harness.report.parts import longest_piece, stacked, wide_parts
from harness.report.render import Entry, Table

LONGEST_TEXT = 28
"""Characters that a column of texts may take before it is broken into lines for others' sake."""


def to_text(table: Table, width: int = 120) -> str:
    """Table as plain text without its caption, in `width` columns.

    Long names wrap, and columns that do not fit stand in a table of their own. A first column
    "Model" becomes a line above each block, and errors are glued to their values.
    """
    parts = wide_parts(table, width, _column_width)
    texts = [_text(replace(part, notes=()), width) for part in parts]
    notes = [_wrapped(note, width) for note in table.notes]
    return "\n".join(texts) + "".join(notes)


def _column_width(table: Table, index: int) -> float:
    first = _first_column(table)
    if index < first:
        return 0
    if index >= table.num_text_columns:
        return max(map(len, [*stacked(table.header[index]), *_texts(table, index)])) + 1
    texts = [table.header[index], *_texts(table, index)]
    needed = max(map(longest_piece, texts))
    return max(needed, min(LONGEST_TEXT, max(map(len, texts)))) + 1


def _first_column(table: Table) -> int:
    return 1 if table.header[0] == "Model" else 0


def _texts(table: Table, index: int) -> list[str]:
    return [_glued(line.entries[index]) for line in table.rows]


def _glued(entry: Entry) -> str:
    return printable(f"{entry.text}{entry.error.replace(' ', '')}")


def _text(table: Table, width: int) -> str:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    first = _first_column(table)
    grid = Grid(box=box.HORIZONTALS, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
    for index, name in enumerate(table.header[first:], first):
        is_text = index < table.num_text_columns
        head = name if is_text else "\n".join(stacked(name))
        grid.add_column(
            Text(printable(head)),
            justify="left" if is_text else "right",
            no_wrap=not is_text,
            overflow="fold",
        )
    for line in table.rows:
        texts = [_glued(entry) for entry in line.entries[first:]]
        if line.starts_block:
            grid.add_section()
        elif line.is_reference:
            texts[0] = f"  {texts[0]}"
        if first and line.entries[0].text:
            grid.add_row(Text(printable(line.entries[0].text)))
        grid.add_row(*map(Text, texts))
    heads = [printable(text) for text in (table.title, table.subtitle) if text]
    return "".join(_wrapped(text, width) for text in heads) + _printed([grid], width)


def _wrapped(text: str, width: int) -> str:
    from rich.text import Text

    return _printed([Text(printable(text), overflow="fold")], width)


def _printed(parts: Sequence[object], width: int) -> str:
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(*parts, sep="\n")
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"
