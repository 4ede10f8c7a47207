"""Tables that are too wide or too long: nothing is lost, and every part fits."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness.analysis.compare import Comparison, ScoreRow
from harness.analysis.differences import Difference
from harness.analysis.sides import Pairs, Side, Sides
from harness.commands.compare import print_comparison
from harness.commands.display import print_cells
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.tasks import TaskSpec
from harness.report.latex import to_latex
from harness.report.page import html
from harness.report.parts import divided, long_parts, pieces, stacked
from harness.report.render import Entry, Table, row
from harness.report.text import to_text

LABEL = "lora-r8,alpha=16,target=[q_proj,k_proj,v_proj,o_proj],lr=0.0003,warmup=0.03,more"
NASTY = ("a_b & 50% #1 $x$ {y} ~ ^ \\ <b> | [c](d)", '"q" `c` *s* __i__ -- ?` ,,', "[first]",
         "*star", "模型 модель é ß Łódź ngườ 🌿 \x1b[31m", "x" * 80, LABEL)  # fmt: skip


def wide(number: int, *, names: tuple[str, ...] = (LABEL,), num_rows: int = 3) -> Table:
    header = [f"{names[i % len(names)]} {i}" for i in range(number)]
    rows = [
        row(
            names[0] if i == 0 else "",
            names[i % len(names)],
            *(Entry(f"{i}{j}.00", "± 0.11", bold=j == 1) for j in range(number)),
            starts_block=i == 0,
        )
        for i in range(num_rows)
    ]
    text = " ".join(names)
    return Table(
        "t", text, ("Model", "Method", *header), tuple(rows), (text,), text, (text,),
        num_text_columns=2,
    )  # fmt: skip


def joined(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_pieces_are_short_and_lose_nothing() -> None:
    for word in (*LABEL.split(), "x" * 80, "short", "", *NASTY):
        assert "".join(pieces(word)) == word
        assert all(len(piece) <= 14 for piece in pieces(word))
        assert joined("".join(stacked(word))) == joined(word)
        assert all(len(line) <= 14 for line in stacked(word))


def test_columns_are_divided_evenly_and_each_stands_once() -> None:
    assert divided([10] * 12, 100) == [list(range(6)), list(range(6, 12))]
    assert divided([500, 1], 100) == [[0], [1]]
    assert divided([5, 5], 100) == [[0, 1]]
    assert divided([], 100) == [[]]
    # Where even parts would not fit, each is as full as may be.
    assert divided([10, 10, 10, 85, 80, 5], 90) == [[0, 1, 2], [3], [4, 5]]


@pytest.mark.parametrize("number", [1, 7, 12, 30])
@pytest.mark.parametrize("width", [80, 120])
def test_text_keeps_to_any_width_and_loses_no_column(number: int, width: int) -> None:
    text = to_text(wide(number), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for column in range(number):
        assert f"2{column}.00±0.11" in text
    assert text.count("(part 1 of") == (number > 1)


@pytest.mark.parametrize("number", [5, 12, 30])
def test_the_page_has_all_columns_in_parts_no_wider_than_itself(number: int) -> None:
    text = html("tables", [wide(number)])
    tables = text.split("<table>")[1:]
    assert len(tables) == 1 if number == 5 else len(tables) > 1
    assert all(table.count("<th") <= 11 for table in tables)
    for column in range(number):
        assert f"2{column}.00" in text
    assert text.count("<figcaption><p>") == 1


@pytest.mark.parametrize("number", [1, 7, 12, 30])
def test_latex_has_all_columns_and_rows_in_parts_that_shrink_to_the_page(number: int) -> None:
    text = to_latex(wide(number, num_rows=60))
    bodies = text.split("\\begin{tabular}")[1:]
    for column in range(number):
        for line in range(60):
            assert f"{line}{column}.00" in text
    assert all(len(body.splitlines()) < 60 for body in bodies)
    assert text.count("\\resizebox{\\ifdim\\width>\\linewidth") == len(bodies)
    labels = re.findall(r"\\label\{(.*)\}", text)
    assert len(set(labels)) == len(labels) == len(bodies)


def test_a_part_of_rows_names_the_block_that_it_goes_on_with() -> None:
    first, second, *_ = long_parts(wide(1, num_rows=9), 4, lambda line: 1)
    assert len(first.rows) == 4
    assert second.rows[0].entries[0].text == LABEL
    assert second.caption == ()
    assert second.title.endswith("(part 2 of 3)")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
def test_latex_prints_any_text_and_fits(tmp_path, columns: str) -> None:
    tables = [wide(n, names=NASTY, num_rows=40) for n in (1, 9)] + [wide(3, names=("a",))]
    body = "\n".join(to_latex(table) for table in tables)
    head = f"\\documentclass[{columns}]{{article}}\\usepackage{{booktabs,array,graphicx}}"
    text = f"{head}\\extrafloats{{99}}\\begin{{document}}\n{body}\\end{{document}}"
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-draftmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    log = done.stdout.decode(errors="replace")
    assert "\n!" not in log, log[log.index("\n!") :][:500]
    assert "Overfull \\hbox" not in log


def test_markup_of_latex_is_text() -> None:
    text = to_latex(wide(1, names=NASTY, num_rows=len(NASTY)))
    for piece in (r"\char34{}", r"\char96{}", r"{[}first{]}", r"\textbar{}", r"{\scriptsize U+#2}",
                  r"\L{}\'{o}d\'{z}", r"\othercharacter{模}{6A21}", "-{}-"):  # fmt: skip
        assert piece in text
    assert re.search(r"& \{\*\}star", text)  # a row's end would take the star, or the bracket


def printed(width: int, show: Any) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    show(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("number", [1, 12])
def test_the_closing_table_shows_every_number_beside_long_labels(width: int, number: int) -> None:
    tasks = [TaskSpec(name=name) for name in list(BENCHMARKS)[:number]]
    scores = [
        SimpleNamespace(benchmark=task.name, task=task.name, value=index / 100,
                        metric=BENCHMARKS[task.name].primary_metric)
        for index, task in enumerate(tasks)
    ]  # fmt: skip
    result = SimpleNamespace(train=SimpleNamespace(epoch_losses=[1.25], note=None), scores=scores)
    cell = SimpleNamespace(label=f"m/{LABEL}/100%/seed0", tasks=tasks)
    state: Any = SimpleNamespace(cell=cell, result=result, shown=result, status="done", fault=None)
    text = printed(width, lambda console: print_cells(console, [state]))
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for shown in ("1.250", *(f"{index}.0" for index in range(number))):
        assert re.search(rf"\s{re.escape(shown)}\s", text)
    if number == 1:
        assert LABEL in joined(re.sub(r"\s[10]\.\d+(?=\s)", "", text))


@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_cuts_no_name_and_no_number(width: int) -> None:
    def score(benchmark: str) -> Any:
        return SimpleNamespace(
            benchmark=benchmark, metric="acc_norm", value=1.0, stderr=0.0123, n=14042,
            unit=None, higher_is_better=True,
        )  # fmt: skip

    names = ("demo_paper_truthfulqa_shuffled", "x" * 80)
    row_of = {name: score(name) for name in names}
    rows = tuple(
        ScoreRow(
            name,
            "acc_norm",
            (one,),
            (one,),
            errors=(0.0123, 0.0123),
            interval=(-0.12, 0.34),
            p_value=1e-4,
            num_items=9,
        )  # fmt: skip
        for name, one in row_of.items()
    )
    side = Side("a", "b", SimpleNamespace(cell_id="0123"), lambda *_: None)  # type: ignore[arg-type]
    differences = (Difference("cell", "what", LABEL, "[b] \x1b[31m"),)
    sides, pairs = Sides("a", (side,)), Pairs(((side, side),))
    found = Comparison(sides, sides, pairs, differences, (), rows, (), ())
    text = printed(width, lambda console: print_comparison(console, found))
    assert "…" not in text
    assert "\x1b" not in text
    assert text.count("100.00") == 4
    assert text.count("< 0.001") == 2
    first = "".join(line[:30].split("  ")[0] for line in text.splitlines())
    assert "xxxxxxxxxxxx" in first
