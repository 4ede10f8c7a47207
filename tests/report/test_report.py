"""The whole report: files, one self-contained page, same bytes, half-done grids, light imports."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import ReportError
from harness.report import build_report

TABLES = ["verdicts.json", "verdicts.md", "verdicts.tex", "verdicts.csv"]
TABLES += ["table1.md", "table1.tex", "table1.csv", "table2.md", "table2.tex", "table2.csv"]
TABLES += ["comparisons.md", "comparisons.tex", "comparisons.csv"]
TABLES += ["aggregates.md", "aggregates.tex", "aggregates.csv", "variance.md", "variance.csv"]
TABLES += ["scores.md", "scores.csv"]
FIGURES = [
    f"{name}.{suffix}"
    for name in ("sample-efficiency-tiny", "sample-efficiency-tiny-each", "training-loss-tiny")
    for suffix in ("png", "svg", "pdf")
]
VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}


class PageParser(HTMLParser):
    """Collects the addresses that a page would load or link to, and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.anchors: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.seen: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.seen.add(tag)
        if tag not in VOID:
            self.tags.append(tag)
        names = ("src", "href", "srcset", "data", "action")
        self.addresses += [values[name] for name in names if name in values]
        if "id" in values:
            assert values["id"] not in self.anchors
            self.anchors.add(values["id"])
        if tag == "img":
            self.images.append(values)

    def handle_endtag(self, tag) -> None:
        assert self.tags.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)


def parse_text(page: str) -> PageParser:
    parser = PageParser()
    parser.feed(page)
    return parser


def parse(page: Path) -> PageParser:
    return parse_text(page.read_text(encoding="utf-8"))


def test_every_file_is_written_and_the_page_holds_it_all(small_report) -> None:
    report = small_report
    assert [path.name for path in report.files] == [*TABLES, *FIGURES, "index.html"]
    assert {path.name for path in report.page.parent.iterdir()} == {p.name for p in report.files}
    page = parse(report.page)
    assert page.tags == []
    # Nothing from outside: images are inside the file, links lead to its own sections.
    for address in page.addresses:
        assert address.startswith(("data:image/svg+xml;base64,", "#"))
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= page.anchors
    assert not page.seen & {"link", "iframe", "object", "embed"}
    text = report.page.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    assert len(page.images) == 9
    assert all(image["alt"] for image in page.images)
    shown = " ".join(page.text)
    for phrase in (
        "15 of 17 cells done, 1 failed, 1 missing",
        "A line of the grid.",
        "TrainingError: step 3: <nan> more",
        "name: tiny-grid",
        "versions.torch",
        "What may be read from this",
        "lm-eval protocol · 0-shot, HellaSwag 10-shot · all items",
    ):
        assert phrase in shown


def test_images_on_the_page_load_nothing_either(small_report) -> None:
    page = parse(small_report.page)
    for image in page.images:
        svg = base64.b64decode(image["src"].split(",", 1)[1]).decode()
        assert svg.startswith("<svg")
        assert "prefers-color-scheme: dark" in svg
        assert "currentColor" in svg
        loads = [part.split('"')[1] for part in svg.split("href=")[1:]]
        assert all(address.startswith("#") for address in loads)


def test_same_input_same_bytes(small_grid, small_report, tmp_path) -> None:
    first, second = small_report, build_report(small_grid.input(), tmp_path)
    assert first.terminal == second.terminal
    for one, two in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_terminal_text_keeps_to_120_columns(small_report) -> None:
    terminal = small_report.terminal
    assert terminal.startswith("A tiny grid: 15 of 17 cells done, 1 failed, 1 missing\n")
    assert max(map(len, terminal.splitlines())) <= 120
    for title in ("Table 1.", "Table 2.", "Paired differences"):
        assert title in terminal


def test_csv_files_are_tidy(small_grid, small_report) -> None:
    folder = small_report.page.parent
    table = pd.read_csv(io.StringIO((folder / "table2.csv").read_text()))
    assert len(table) == 5 * 7
    linear = table[(table["method"] == "zero-init-linear") & (table["column"] == "ARC-e")]
    assert linear["value_percent"].item() == pytest.approx(62.5)
    assert linear["num_seeds"].item() == 2
    scores = pd.read_csv(io.StringIO((folder / "scores.csv").read_text()))
    assert len(scores) == len(small_grid.scores)
    assert scores["value"].max() <= 1


def test_a_half_done_grid_shows_dashes(results, answer, tmp_path) -> None:
    results.add("base", None, answer("1000", ["arc_easy"]))
    results.add("zero-init-linear", 0, status="missing")
    report = build_report(results.input(), tmp_path)
    assert "1 of 2 cells done, 1 missing" in report.terminal
    line = next(x for x in report.terminal.splitlines() if x.startswith("Zero-init + linear"))
    assert line.split()[-8:] == ["–"] * 8
    assert not any(path.suffix == ".png" for path in report.files)
    assert "Nothing to draw" in report.page.read_text(encoding="utf-8")


def test_latex_needs_no_unicode_of_ours(results, answer, tmp_path) -> None:
    answers = answer("1100" * 5, ["hellaswag"])
    results.add("base", None, answers, model="llama-7b", note="a sample", limit=20)
    results.items.clear()
    build_report(results.input(), tmp_path)
    for path in tmp_path.glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert text.isascii(), {c for c in text if not c.isascii()}
        assert "\\begin{tabular}" in text


def test_two_limits_give_two_tables_in_one_file(results, answer, tmp_path) -> None:
    results.add("zero-init-linear", 0, answer("1100"), limit=4)
    results.add("zero-init-linear", 1, answer("110000"))
    report = build_report(results.input(), tmp_path)
    text = (tmp_path / "table1.md").read_text(encoding="utf-8")
    assert text.count("**Table 1.") == 2
    assert "all items" in text.split("**Table 1.")[1]
    assert "limit 4" in text.split("**Table 1.")[2]
    names = [path.name for path in report.files]
    assert "sample-efficiency-tiny.svg" in names
    assert "sample-efficiency-tiny-2.svg" in names
    labels = (tmp_path / "table1.tex").read_text(encoding="utf-8")
    assert "\\label{tab:table1}" in labels
    assert "\\label{tab:table1-2}" in labels


def test_nothing_to_report_says_what_to_run(results, tmp_path) -> None:
    results.add("lora", 0, status="missing")
    with pytest.raises(ReportError, match=r"zbench run-grid tiny-grid"):
        build_report(results.input(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_grids_text_cannot_break_the_page(results, answer, tmp_path) -> None:
    nasty = "<script>alert(1)</script> & </pre>"
    results.add("base", None, answer("10"))
    report = build_report(
        results.input(grid_yaml=nasty, grid_title=nasty, notes=(nasty,)), tmp_path
    )
    page = parse(report.page)
    assert "script" not in page.seen
    assert nasty in "".join(page.text)


def test_reporting_imports_nothing_heavy() -> None:
    code = (
        "import sys; import harness.report, harness.report.contents; "
        "heavy = {'torch', 'transformers', 'peft', 'lm_eval', 'mlflow', 'datasets', 'matplotlib', "
        "'pandas', 'scipy', 'jinja2'} & set(sys.modules); print(heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
