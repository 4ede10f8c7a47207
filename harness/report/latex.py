"""A table as LaTeX (booktabs) that fits a column or the page of any document, at least in parts."""

from __future__ import annotations

import re
import unicodedata

from harness.errors import printable
from harness.report.numbers import MISSING
from harness.report.parts import LONGEST_WORD, long_parts, pieces, stacked, wide_parts
from harness.report.render import Entry, Row, Table

COLUMN_ROOM = 225.0
"""Points of a column of a two-column page."""
PAGE_ROOM = 640.0
"""Points that are made to fit a two-column page's 469 without getting too small to be read."""
PAGE_LINES, FEWEST_LINES = 50, 10
"""Lines of a page for the rows and the caption, and those that are left to the rows at least."""
_DIGIT, _SMALL_DIGIT, _GAP = 4.3, 3.8, 8.0
_WRAPPED, _WRAPPED_WIDTH = 26, 100.0
"""A text of more characters is broken into lines of so many points."""
_LONGEST_CAPTION_WORD = 30
"""Characters of a caption's word that is not broken."""

_SIGNS = {
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
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "`": r"\char96{}",
    "[": "{[}",
    "]": "{]}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "Σ": r"$\Sigma$",
    "²": r"$^2$",
    "√": r"$\surd$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "↓": r"$\downarrow$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "°": r"$^\circ$",
    "¶": r"\P{}",
    "§": r"\S{}",
    "‖": r"$\parallel$",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "\u00a0": "~",
    "\n": " ",
    "\t": " ",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u0304": "=",
    "\u0307": ".",
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0306": "u",
    "\u0327": "c",
}
OTHER_CHARACTERS = (
    "% what pdflatex has no letter for stands with its number; XeLaTeX and LuaLaTeX print it\n"
    r"\providecommand{\othercharacter}[2]"
    r"{\ifdefined\Umathchar#1\else{\scriptsize U+#2}\allowbreak\fi}"
)


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    escaped = "".join(map(_character, unicodedata.normalize("NFC", printable(text))))
    # No dash of two hyphens, no other quotation mark: ours have characters of their own.
    escaped = re.sub(r"(?<=-)-", "{}-", escaped) if "--" in text else escaped
    return re.sub(r"(?<=[?!])(?=`)|(?<=,)(?=,)", "{}", escaped)


def _character(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    if character.isascii():
        return character
    parts = list(unicodedata.normalize("NFD", character))
    base, accent = parts[0], parts[-1]
    if base.isascii() and base.isalpha() and len(parts) == 2 and accent in _ACCENTS:
        base = {"i": r"\i", "j": r"\j"}.get(base, base)
        return f"\\{_ACCENTS[accent]}{{{base}}}"
    return f"\\othercharacter{{{character}}}{{{ord(character):04X}}}"


def to_latex(table: Table) -> str:
    """LaTeX `table` environments; the document needs booktabs, array and graphicx."""
    wide = wide_parts(table, PAGE_ROOM, column_width)
    parts = [part for each in wide for part in long_parts(each, _room(each), _lines)]
    return "\n".join(map(_environment, parts))


def _room(table: Table) -> int:
    """Lines of the page that a caption leaves; of a narrow table it is twice as long."""
    per_line = 45 if _width(table) <= COLUMN_ROOM else 95
    return max(FEWEST_LINES, PAGE_LINES - len(_caption(table)) * 5 // 4 // per_line)


def _lines(line: Row) -> int:
    texts = [entry.text for entry in line.entries]
    # A character that stands as its number takes the room of five.
    sizes = [len(text) + 4 * sum(ord(c) > 0x17F for c in text) for text in texts]
    return max([1, *(-(-size // 22) for size in sizes if size > _WRAPPED)])


def _width(table: Table) -> float:
    return sum(column_width(table, index) for index in range(len(table.header)))


def column_width(table: Table, index: int) -> float:
    """About how many points a column is wide, with the gap beside it."""
    entries = [line.entries[index] for line in table.rows]
    header = max(map(len, stacked(table.header[index])))
    if index < table.num_text_columns:
        longest = max([len(table.header[index]), *(len(entry.text) for entry in entries)])
        return (_WRAPPED_WIDTH if longest > _WRAPPED else longest * _DIGIT) + _GAP
    widths = [len(e.text) * _DIGIT + len(e.error and f" {e.error}") * _SMALL_DIGIT for e in entries]
    return max([header * _DIGIT, *widths]) + _GAP


def _environment(table: Table) -> str:
    number = len(table.header)
    name = "table" if _width(table) <= COLUMN_ROOM else "table*"
    wrapped = {index for index in range(table.num_text_columns) if _is_long(table, index)}
    columns = [_column(table, index, index in wrapped) for index in range(number)]
    lines = [
        "% needs \\usepackage{booktabs,array,graphicx}",
        f"\\begin{{{name}}}[t]",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{_broken(_caption(table), _LONGEST_CAPTION_WORD)}}}",
        f"\\label{{tab:{table.name}}}",
        "% no wider than the column or page that it stands in",
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{''.join(columns)}}}",
        "\\toprule",
        " & ".join(_head(table, index) for index in range(number)) + r" \\",
        "\\midrule",
    ]
    for index, line in enumerate(table.rows):
        if line.starts_block and index:
            lines.append("\\midrule")
        cells = [
            _entry(entry, line.is_reference, place in wrapped)
            for place, entry in enumerate(line.entries)
        ]
        lines.append(" & ".join(cells) + r" \\")
    text = "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", f"\\end{{{name}}}"]) + "\n"
    return f"{OTHER_CHARACTERS}\n{text}" if "\\othercharacter" in text else text


def _is_long(table: Table, index: int) -> bool:
    return any(len(line.entries[index].text) > _WRAPPED for line in table.rows)


def _column(table: Table, index: int, is_wrapped: bool) -> str:
    if is_wrapped:
        return f">{{\\raggedright\\arraybackslash}}p{{{_WRAPPED_WIDTH:g}pt}}"
    return "l" if index < table.num_text_columns else "r"


def _head(table: Table, index: int) -> str:
    lines = [escape_latex(line) for line in stacked(table.header[index])]
    side = "l" if index < table.num_text_columns else "r"
    text = r"\\".join(lines)
    return text if len(lines) == 1 else f"\\shortstack[{side}]{{{text}}}"


def _caption(table: Table) -> str:
    title = f"{table.title} ({table.subtitle})." if table.subtitle else f"{table.title}."
    # The document numbers its tables itself.
    return " ".join((re.sub(r"^Table \d+\. ", "", title), *table.notes, *table.caption))


def _entry(entry: Entry, is_reference: bool, is_wrapped: bool) -> str:
    text = _broken(entry.text) if is_wrapped else escape_latex(entry.text)
    if text.startswith("*"):
        text = f"{{*}}{text[1:]}"  # after the end of a row a star would be a command's
    if entry.bold:
        text = f"\\textbf{{{text}}}"
    if entry.error:
        text += f" {{\\scriptsize {escape_latex(entry.error)}}}"
    return f"\\textit{{{text}}}" if is_reference and entry.text not in ("", MISSING) else text


def _broken(text: str, longest: int = LONGEST_WORD) -> str:
    """Text whose long words may be broken."""
    words = (pieces(word, longest) for word in text.split(" "))
    return " ".join(r"\allowbreak{}".join(map(escape_latex, parts)) for parts in words)
