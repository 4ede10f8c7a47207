"""A table as Markdown, LaTeX (booktabs), HTML and plain text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

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
    is_aside: bool = False
    """Whether it is a reference (a published value), printed dimmer."""


@dataclass(frozen=True)
class Table:
    """A table to print; the first `num_text_columns` columns are text, the others numbers."""

    name: str
    """Of its files."""
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


def row(*texts: str, starts_block: bool = False) -> Row:
    """Returns a row of plain entries."""
    return Row(tuple(Entry(text) for text in texts), starts_block=starts_block)


def to_markdown(table: Table) -> str:
    """Returns the table with its title and caption as GitHub-flavoured Markdown."""
    rule = ["---" if i < table.num_text_columns else "---:" for i in range(len(table.header))]
    lines = [f"**{_md(table.title)}**"]
    lines += ["", _md(table.subtitle), ""] if table.subtitle else [""]
    lines += [_md_line([_md(name) for name in table.header]), _md_line(rule)]
    for line in table.rows:
        lines.append(_md_line([_md_entry(entry, line.is_aside) for entry in line.entries]))
    below = [f"{_md(text)}\n" for text in (*table.notes, *table.caption)]
    return "\n".join([*lines, "", *below]).rstrip() + "\n"


def _md_line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _md(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")
    return escaped.replace("<", "&lt;").replace("\n", " ")


def _md_entry(entry: Entry, is_aside: bool) -> str:
    text = _md(f"{entry.text} {entry.error}".strip())
    if entry.bold:
        text = f"**{_md(entry.text)}** {_md(entry.error)}".strip()
    return f"*{text}*" if is_aside and text and text != MISSING else text


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
    """Returns text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(table: Table) -> str:
    """Returns a `table` environment; the document needs `\\usepackage{booktabs}`."""
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
        cells = [_latex_entry(entry, line.is_aside) for entry in line.entries]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _latex_caption(table: Table) -> str:
    title = f"{table.title} ({table.subtitle})." if table.subtitle else f"{table.title}."
    # The document numbers its tables itself.
    return " ".join((re.sub(r"^Table \d+\. ", "", title), *table.notes, *table.caption))


def _latex_entry(entry: Entry, is_aside: bool) -> str:
    text = escape_latex(entry.text)
    if entry.bold:
        text = f"\\textbf{{{text}}}"
    if entry.error:
        text += f" {{\\scriptsize {escape_latex(entry.error)}}}"
    return f"\\textit{{{text}}}" if is_aside and entry.text not in ("", MISSING) else text


def to_html(table: Table) -> str:
    """Returns a `figure` element that scrolls sideways in a narrow window."""
    head = "".join(
        f'<th scope="col"{_html_class(table, i)}>{escape(name)}</th>'
        for i, name in enumerate(table.header)
    )
    body = "\n".join(_html_row(table, line) for line in table.rows)
    caption = "".join(f"<p>{escape(text)}</p>" for text in (*table.notes, *table.caption))
    subtitle = f'<p class="sub">{escape(table.subtitle)}</p>' if table.subtitle else ""
    return (
        f'<figure class="table"><h3>{escape(table.title)}</h3>{subtitle}\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>\n<figcaption>{caption}</figcaption></figure>"
    )


def _html_class(table: Table, index: int) -> str:
    return "" if index < table.num_text_columns else ' class="n"'


def _html_row(table: Table, line: Row) -> str:
    names = [
        name for name, holds in (("block", line.starts_block), ("aside", line.is_aside)) if holds
    ]
    cells = "".join(
        f"<td{_html_class(table, i)}>{_html_entry(entry)}</td>"
        for i, entry in enumerate(line.entries)
    )
    return f'<tr class="{" ".join(names)}">{cells}</tr>' if names else f"<tr>{cells}</tr>"


def _html_entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.bold:
        text = f"<b>{text}</b>"
    return f"{text} <small>{escape(entry.error)}</small>" if entry.error else text


def to_text(table: Table, width: int = 120) -> str:
    """Returns the table as plain text, without its caption; long names wrap to keep to `width`.

    A first column "Model" becomes a line above each block, and errors are glued to their values.
    """
    first = 1 if table.header[0] == "Model" else 0
    texts = [[_plain(entry) for entry in line.entries[first:]] for line in table.rows]
    for line, shown in zip(table.rows, texts, strict=True):
        if line.is_aside and not line.starts_block:
            shown[0] = f"  {shown[0]}"
    header = table.header[first:]
    num_text = table.num_text_columns - first
    sizes = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    while sum(sizes) + 2 * (len(sizes) - 1) > width:
        widest = max(range(num_text), key=lambda i: sizes[i])
        if sizes[widest] <= 12:
            break
        sizes[widest] -= 1
    rule = "─" * (sum(sizes) + 2 * (len(sizes) - 1))
    lines = [*textwrap.wrap(table.title, width), *textwrap.wrap(table.subtitle, width)]
    lines += _text_lines(header, sizes, num_text)
    for index, (line, shown) in enumerate(zip(table.rows, texts, strict=True)):
        if line.starts_block or index == 0:
            lines.append(rule)
        if first and line.entries[0].text:
            lines.append(line.entries[0].text)
        lines += _text_lines(shown, sizes, num_text)
    for note in table.notes:
        lines += textwrap.wrap(note, width)
    return "\n".join(text.rstrip() for text in lines) + "\n"


def _plain(entry: Entry) -> str:
    return f"{entry.text}{entry.error.replace(' ', '')}"


def _text_lines(texts: Sequence[str], sizes: Sequence[int], num_text: int) -> list[str]:
    """Returns the printed lines of a row: text columns wrap, numbers stand in the first line."""
    wrapped = [
        (textwrap.wrap(text, size, subsequent_indent="  ", drop_whitespace=True) or [""])
        if index < num_text and len(text) > size
        else [text]
        for index, (text, size) in enumerate(zip(texts, sizes, strict=True))
    ]
    lines = []
    for depth in range(max(map(len, wrapped))):
        parts = [column[depth] if depth < len(column) else "" for column in wrapped]
        lines.append(
            "  ".join(
                part.ljust(size) if index < num_text else part.rjust(size)
                for index, (part, size) in enumerate(zip(parts, sizes, strict=True))
            )
        )
    return lines
