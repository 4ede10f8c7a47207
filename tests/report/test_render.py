"""One table, four renderings."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from harness.report.latex import escape_latex, to_latex
from harness.report.page import html
from harness.report.render import Entry, Row, Table, row, to_markdown
from harness.report.text import to_text

NASTY = "50% of a_b & c|d {x} $y$ #1 ~ ^ <i> \\ é ± − ×"


@pytest.fixture
def table() -> Table:
    bold = Row((Entry("m"), Entry(NASTY), Entry("62.29", "± 0.99", bold=True)), starts_block=True)
    reference = Row((Entry(""), Entry("published"), Entry("76.79")), is_reference=True)
    last = row("", "x", "–")
    return Table("t", "Table 7. " + NASTY, ("Model", "Method", "ARC-e"), (bold, reference, last),
                 ("A sentence.",), "sub_title", ("A note.",), 2)  # fmt: skip


def test_markdown_keeps_its_columns(table) -> None:
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [4] * 5
    assert "| **62.29** ± 0.99 |" in lines[2]
    assert lines[3] == "|  | *published* | *76.79* |"
    assert "&lt;i>" in lines[2]


def test_latex_is_escaped_and_balanced(table) -> None:
    text = to_latex(table)
    assert escape_latex("50% a_b & {c}") == r"50\% a\_b \& \{c\}"
    plain = re.sub(r"\\[{}\\]", "", text)
    assert plain.count("{") == plain.count("}")
    assert re.findall(r"\\begin\{(\w+)\}", text) == ["table", "tabular"]
    assert re.findall(r"\\end\{(\w+)\}", text) == ["tabular", "table"]
    assert "\\textbf{62.29} {\\scriptsize $\\pm$ 0.99}" in text
    # Every line of the body has the columns of the header, and no raw special is left.
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines] == [2] * 4
    assert not re.search(r"(?<!\\)[%#_]", body)
    # The document numbers its tables itself.
    assert "\\caption{50\\%" in text


def test_html_is_escaped_and_closed(table) -> None:
    open_tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs) -> None:
            open_tags.append(tag)

        def handle_endtag(self, tag) -> None:
            assert open_tags.pop() == tag

    text = html("tables", [table])
    Parser().feed(text)
    assert open_tags == []
    assert "<i>" not in text
    assert "<b>62.29</b> <small>± 0.99</small>" in text


def test_text_keeps_to_its_width_and_loses_nothing(table) -> None:
    text = to_text(table, width=40)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 40
    assert "62.29±0.99" in text
    words = set(NASTY.split())
    assert words <= set(text.split())
    assert lines[-1] == "A note."


def test_model_is_a_heading_in_text(table) -> None:
    lines = to_text(table).splitlines()
    assert "m" in lines
    assert any(line.startswith("  published") for line in lines)
