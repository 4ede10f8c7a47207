"""The verdicts on the page, in the terminal and in their files."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from harness.analysis.earlier_verdicts import VERDICTS_FILE, EarlierVerdict, read_earlier_verdicts
from harness.analysis.findings import find
from harness.grid.resolver import SHIPPED, resolve_grid
from harness.report import build_report, contents
from harness.report.latex import to_latex
from harness.report.verdict_words import MARKS, open_sentence
from harness.report.verdicts import claim_records, verdict_files, verdict_table
from tests.fixtures.claims import LINEAR, NONLINEAR, RANDOM, claim, claimed_grid
from tests.report.test_report import parse_text

DOCS = Path(__file__).parent.parent.parent / "docs"
SHARES = {RANDOM: 0.5, LINEAR: 0.62, NONLINEAR: 0.621}
CLAIMS = (
    claim(),
    claim(RANDOM, NONLINEAR),
    claim(NONLINEAR, LINEAR, margin=4),
    claim(NONLINEAR, LINEAR, on="TruthfulQA", margin=0.01),
)
KINDS = ("reproduced", "contradicted", "underpowered", "compatible")
"""In the order of the columns: TruthfulQA stands before the Average."""


@pytest.fixture(scope="module")
def data():
    return claimed_grid(SHARES).input(claims=CLAIMS, date="2026-01-02T03:04:05+00:00")


@pytest.fixture(scope="module")
def built(data, tmp_path_factory: pytest.TempPathFactory):
    return build_report(data, tmp_path_factory.mktemp("verdicts"))


def page_of(report) -> str:
    return report.page.read_text(encoding="utf-8")


def test_the_page_opens_with_the_verdicts_then_tables_then_notes(built) -> None:
    page = page_of(built)
    places = [page.index(text) for text in ("<h1>", 'class="verdicts"', "<nav ", 'id="tables"',
                                            'id="reading"', "A line of the grid.")]  # fmt: skip
    assert places == sorted(places)
    assert page.count("A line of the grid.") == 1
    shown = parse_text(page)
    assert shown.tags == []


def test_each_verdict_is_told_by_a_word_and_a_sign(built) -> None:
    text = " ".join(parse_text(page_of(built)).text)
    for kind in KINDS:
        assert f"{MARKS[kind]} {kind}" in text
    assert len(set(MARKS.values())) == len(MARKS)
    assert "The rule. A claim is" in text
    assert "after Holm's correction over the 4 verdicts" in text


def test_the_page_has_colours_for_both_settings_and_none_in_print(built) -> None:
    style = page_of(built).split("</style>")[0]
    for kind in KINDS:
        assert style.count(f".{kind}") == 3
    assert "prefers-color-scheme: dark" in style


def test_the_terminal_says_the_verdicts_first(built) -> None:
    lines = built.terminal.splitlines()
    assert lines[0].startswith("A tiny grid: ")
    heads = [line for line in lines if re.match(r"\S [A-Z]+: ", line)]
    assert heads == [
        "✓ REPRODUCED: Zero-init + linear better than Random-init, Average",
        "✗ CONTRADICTED: Random-init better than Zero-init + non-linear, Average",
        "? UNDERPOWERED: Zero-init + non-linear better than Zero-init + linear, TruthfulQA",
        "≈ COMPATIBLE: Zero-init + non-linear better than Zero-init + linear, Average",
    ]
    assert built.terminal.index("The rule.") < built.terminal.index("Table 1.")
    assert max(map(len, lines)) <= 120


def test_the_sentences_are_those_of_their_verdicts(built) -> None:
    won, lost, open_, same = (one["sentence"] for one in built.verdicts)
    assert won.startswith("Zero-init + linear is better than Random-init by ")
    assert lost.startswith("The opposite of the claim: Zero-init + non-linear is better than ")
    assert same.startswith("No difference that counts: ")
    assert "whether there is a smaller one is not told" in same
    assert open_.startswith("Not decided: ")
    assert "one time in twenty" not in same + open_


def test_an_interval_without_0_that_decides_nothing_says_why() -> None:
    assert "not after the correction for the number of verdicts" in open_sentence((-0.06, -0.01))
    assert "not after the correction" in open_sentence((0.01, 0.06))
    assert "leave open whether it is better, worse or the same" in open_sentence((-0.01, 0.06))


def test_the_file_holds_what_was_found(built) -> None:
    record = json.loads((built.page.parent / VERDICTS_FILE).read_text(encoding="utf-8"))
    assert [one["verdict"] for one in record["verdicts"]] == list(KINDS)
    first = record["verdicts"][0]
    assert (first["better"], first["than"], first["column"]) == (
        *("Zero-init + linear", "Random-init", "Average"),
    )
    assert first["low"] < first["difference"] < first["high"]
    assert first["seeds"] == first["planned"] == [0, 1, 2]
    assert first["p"] < 0.05
    assert record["verdicts"][3]["margin"] == 4
    assert record["verdicts"][3]["p_margin"] < 0.05
    assert first["power"]["num_items"] == 1500
    (one,) = first["history"]
    assert one["date"] == "2026-01-02T03:04:05+00:00"
    assert one["verdict"] == "reproduced"
    assert {"verdicts.md", "verdicts.tex", "verdicts.csv", VERDICTS_FILE} <= {
        path.name for path in built.files
    }


def test_the_csv_has_a_row_for_each_verdict(built) -> None:
    text = (built.page.parent / "verdicts.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["verdict"] for row in rows] == list(KINDS)
    assert float(rows[0]["detects_smallest"]) > 0
    for row, one in zip(rows, built.verdicts, strict=True):
        assert float(row["difference"]) == pytest.approx(one["difference"])


def test_latex_and_markdown_hold_the_table_with_the_rule(built) -> None:
    for name in ("verdicts.tex", "verdicts.md"):
        text = (built.page.parent / name).read_text(encoding="utf-8")
        assert all(kind in text for kind in KINDS)
        assert "The rule. A claim is" in text
    tex = (built.page.parent / "verdicts.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") >= 1


def test_a_grid_without_claims_has_no_box() -> None:
    findings = claimed_grid(SHARES, seeds=(0, 1)).findings(claims=())
    assert 'class="verdicts"' not in contents.page_html(findings, [], [], figures_key="")
    assert "The rule." not in contents.terminal_text(findings)
    assert list(claim_records(findings)) == []
    assert not [name for name, _ in contents.table_files(findings) if name.startswith("verdicts")]


def test_a_claim_without_rows_stands_in_the_box_as_not_tested() -> None:
    findings = claimed_grid(SHARES).findings(claims=(claim("lora", LINEAR), claim(LINEAR, "lora")))
    assert findings.claims == ()
    results = claimed_grid(SHARES)
    results.add("lora", 0, status="missing")
    findings = results.findings(claims=(claim("lora", LINEAR, on="none"),))
    page = contents.page_html(findings, [], [], figures_key="")
    assert "not tested" in page


def test_names_are_text() -> None:
    results = claimed_grid({RANDOM: 0.5})
    for seed in (0, 1, 2):
        cell = claimed_grid({LINEAR: 0.6}, seeds=(seed,))
        cell.cells[0]["method_title"] = "<script>$x_1$</script>"
        for score in cell.scores:
            score["method_title"] = "<script>$x_1$</script>"
        results.cells += cell.cells
        results.scores += cell.scores
        results.items |= cell.items
    findings = results.findings(claims=(claim(),))
    assert "<script>$x" not in contents.page_html(findings, [], [], figures_key="")
    tex = to_latex(verdict_table(findings)[0])
    assert "x_1" not in tex
    assert r"\_1\$" in tex.replace(r"\allowbreak{}", "")


def report_of(data, folder: Path) -> SimpleNamespace:
    """Writes what keeps the verdicts, and returns what is said of them; draws nothing."""
    findings = find(data)
    folder.mkdir(exist_ok=True)
    for name, text in verdict_files(findings):
        (folder / name).write_text(text, encoding="utf-8")
    page = contents.page_html(findings, [], [], figures_key="")
    return SimpleNamespace(
        verdicts=list(claim_records(findings)),
        page=" ".join(parse_text(page).text),
        terminal=" ".join(contents.terminal_text(findings).split()),
        table=to_latex(verdict_table(findings)[0]),
    )


def later_data(folder: Path, seeds=(0, 1, 2, 3)):
    """Returns a grid with these seeds, and with what a report in the folder said before."""
    verdicts, said = read_earlier_verdicts(folder)
    assert said is None
    results = claimed_grid(SHARES, seeds=seeds)
    return results.input(claims=CLAIMS, earlier_verdicts=verdicts, date="2026-02-03T00:00:00+00:00")


def test_seeds_added_after_a_report_are_told(data, tmp_path: Path) -> None:
    report_of(data, tmp_path)
    later = report_of(later_data(tmp_path), tmp_path)
    said = "Seed 3 was added after a report of 2026-01-02 that said underpowered"
    assert said in later.page
    assert said in later.terminal
    assert said in later.table
    assert any(said in line for line in later.verdicts[2]["told"])
    # It stays told, whatever is reported again.
    again = report_of(later_data(tmp_path), tmp_path)
    assert again.verdicts == later.verdicts
    record = json.loads((tmp_path / VERDICTS_FILE).read_text(encoding="utf-8"))
    assert [one["seeds"] for one in record["verdicts"][0]["history"]] == [[0, 1, 2], [0, 1, 2, 3]]


def test_seeds_that_were_planned_are_not_told(tmp_path: Path) -> None:
    results = claimed_grid(SHARES, seeds=(0, 1))
    for method in SHARES:
        for seed in (2, 3):
            results.add(method, seed, status="missing")
    first = report_of(results.input(claims=CLAIMS), tmp_path)
    assert first.verdicts[0]["planned"] == [0, 1, 2, 3]
    later = report_of(later_data(tmp_path), tmp_path)
    assert [one["told"] for one in later.verdicts] == [[]] * 4


def test_seeds_that_are_gone_are_told(data, tmp_path: Path) -> None:
    report_of(data, tmp_path)
    later = report_of(later_data(tmp_path, seeds=(1, 2)), tmp_path)
    (line,) = later.verdicts[0]["told"]
    assert line.startswith("Seed 0 was part of a report of 2026-01-02 that said reproduced")


def test_a_margin_chosen_after_a_report_is_told(data, tmp_path: Path) -> None:
    report_of(data, tmp_path)
    verdicts, _ = read_earlier_verdicts(tmp_path)
    claims = (*CLAIMS[:2], claim(NONLINEAR, LINEAR, margin=9), CLAIMS[3])
    later = report_of(replace(data, claims=claims, earlier_verdicts=verdicts), tmp_path)
    told = {one["column"]: one["told"] for one in later.verdicts[2:]}
    assert told["TruthfulQA"] == []
    (line,) = told["Average"]
    assert line.startswith("Its margin was ±4 points in a report of 2026-01-02")


def test_another_folder_begins_another_history(data, tmp_path: Path) -> None:
    report_of(data, tmp_path / "one")
    later = report_of(later_data(tmp_path / "two"), tmp_path / "two")
    assert [one["told"] for one in later.verdicts] == [[]] * 4


def test_a_claim_that_is_dropped_keeps_its_history(data, tmp_path: Path) -> None:
    report_of(data, tmp_path)
    before, _ = read_earlier_verdicts(tmp_path)
    report_of(replace(later_data(tmp_path), claims=CLAIMS[:1]), tmp_path)
    after, _ = read_earlier_verdicts(tmp_path)
    assert before.keys() == after.keys()
    assert all(isinstance(one, EarlierVerdict) for verdicts in after.values() for one in verdicts)


def test_the_fragment_of_the_document_is_a_part_of_a_grid() -> None:
    document = (DOCS / "verdicts.md").read_text(encoding="utf-8")
    (fragment,) = re.findall(r"^```yaml\n(.*?)^```$", document, flags=re.S | re.M)
    raw = yaml.safe_load((SHIPPED / "paper-7b.yaml").read_text(encoding="utf-8"))
    grid = resolve_grid(raw | yaml.safe_load(fragment), place="verdicts.md")
    assert grid.claims[0].margin == 2
    assert grid.seed_sd.every.points == 1.2
