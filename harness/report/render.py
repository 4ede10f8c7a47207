"""A table as Markdown, LaTeX (booktabs) and plain text; the page's templates make it HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.report.numbers import MISSING


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table."""

    text: str = MISSING
    error: str = ""
    """Printed smaller after `text`, such as `± 1.2`."""
    bold: bool = False


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


def _md(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")
    return escaped.replace("<", "&lt;").replace("\n", " ")


def _md_entry(entry: Entry, is_reference: bool) -> str:
    text = _md(f"{entry.text} {entry.error}".strip())
    if entry.bold:
        text = f"**{_md(entry.text)}** {_md(entry.error)}".strip()
    return f"*{text}*" if is_reference and text and text != MISSING else text


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "Σ": r"$\Sigma$",
    "²": r"$^2$",
    "√": r"$\surd$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "…": r"\ldots{}",
    "\n": " ",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(table: Table) -> str:
    """LaTeX `table` environment; the document needs `\\usepackage{booktabs}`."""
    texts = table.num_text_columns
    columns = "l" * texts + "r" * (len(table.header) - texts)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}[t]",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{escape_latex(_latex_caption(table))}}}",
        f"\\label{{tab:{table.name}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(escape_latex(name) for name in table.header) + r" \\",
        "\\midrule",
    ]
    for index, line in enumerate(table.rows):
        if line.starts_block and index:
            lines.append("\\midrule")
        cells = [_latex_entry(entry, line.is_reference) for entry in line.entries]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _latex_caption(table: Table) -> str:
    title = f"{table.title} ({table.subtitle})." if table.subtitle else f"{table.title}."
    # The document numbers its tables itself.
    return " ".join((re.sub(r"^Table \d+\. ", "", title), *table.notes, *table.caption))


def _latex_entry(entry: Entry, is_reference: bool) -> str:
    text = escape_latex(entry.text)
    if entry.bold:
        text = f"\\textbf{{{text}}}"
    if entry.error:
        text += f" {{\\scriptsize {escape_latex(entry.error)}}}"
    return f"\\textit{{{text}}}" if is_reference and entry.text not in ("", MISSING) else text


def to_text(table: Table, width: int = 120) -> str:
    """Table as plain text without its caption; long names wrap to keep to `width` columns.

    A first column "Model" becomes a line above each block, and errors are glued to their values.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    first = 1 if table.header[0] == "Model" else 0
    grid = Grid(box=box.HORIZONTALS, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
    for index, name in enumerate(table.header[first:], first):
        is_text = index < table.num_text_columns
        grid.add_column(Text(name), justify="left" if is_text else "right", no_wrap=not is_text)
    for line in table.rows:
        texts = [f"{entry.text}{entry.error.replace(' ', '')}" for entry in line.entries[first:]]
        if line.starts_block:
            grid.add_section()
        elif line.is_reference:
            texts[0] = f"  {texts[0]}"
        if first and line.entries[0].text:
            grid.add_row(Text(line.entries[0].text))
        grid.add_row(*map(Text, texts))
    console = Console(width=width, file=io.StringIO(), color_system=None)
    parts = [Text(table.title), Text(table.subtitle), grid, *map(Text, table.notes)]
    console.print(*(part for part in parts if part), sep="\n")
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"
