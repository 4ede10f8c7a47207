"""The tables of noise, and the mark of differences that are no larger than it."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import pytest

from harness.analysis.findings import find
from harness.report import build_report
from harness.report.comparisons import OF_MODELS
from harness.report.contents import TABLES, terminal_text
from harness.report.latex import to_latex
from harness.report.noise import (
    BELOW,
    floor_records,
    floor_table,
    noise_sentences,
)
from harness.report.render import to_markdown


def noisy(results, answer):
    """LoRA and two methods a little better and much better than it; a repeat moves LoRA by 2/8."""
    results.add("lora", 0, answer("11100000"))
    results.add("full", 0, answer("11110000"))
    results.add("zero-init-linear", 0, answer("11111110"))
    results.add("lora", 0, answer("11111000"), further={"noise": "repeat"})
    results.add("lora", 1, answer("11110000"), further={"noise": "seed"})
    return results


@pytest.fixture
def input_of(results, answer):
    return noisy(results, answer).input(tables=(), claims=(), compare="lora")


def test_a_difference_below_the_floor_is_grey_and_has_a_sign_everywhere(input_of, tmp_path) -> None:
    report = build_report(input_of, tmp_path)
    page = report.page.read_text(encoding="utf-8")
    assert f'<span class="grey">+12.50{BELOW}</span>' in page
    # Grey is that mark's alone.
    assert re.findall(r"^(.*)\{ color: var\(--faint\); \}", page, re.MULTILINE) == ["td .grey "]
    assert "+50.00</td>" in page or "+50.00 <small>" in page
    assert f"+50.00{BELOW}" not in page
    texts = {path.name: path.read_text(encoding="utf-8") for path in report.files
             if path.suffix in (".md", ".tex", ".csv")}  # fmt: skip
    assert f"+12.50{BELOW}" in texts["comparisons.md"]
    assert r"+12.50$\parallel$" in texts["comparisons.tex"]
    # Another sign than that of a difference which speaks of two models alone.
    assert OF_MODELS != BELOW
    assert f"+12.5{BELOW}" in report.terminal
    for text in (page, texts["comparisons.md"], report.terminal):
        assert "Below the noise floor" in " ".join(text.split())
    rows = list(csv.DictReader(texts["comparisons.csv"].splitlines()))
    marked = {row["left"] for row in rows if row["is_below_noise"] == "True"}
    assert marked == {"Full fine-tuning"}


def test_the_table_of_the_floor_has_the_numbers_of_its_csv(input_of, results) -> None:
    findings = results.findings(tables=(), claims=(), compare="lora")
    (table,) = floor_table(findings)
    first = [entry.text for entry in table.rows[0].entries]
    assert first[2:] == ["ARC-e", "2", "25.00", "17.68", "12.50", "25.00"]
    record = floor_records(findings)[0]
    assert record["same_seed_largest_difference"] == record["floor"] == 0.25
    assert (record["other_seed_difference"], record["num_trainings"]) == (0.125, 2)


def test_a_grid_without_noise_has_no_mark_no_column_and_no_table(small_grid) -> None:
    findings = small_grid.findings()
    assert floor_table(findings) == []
    kinds = [kind for kind in TABLES if kind.section in ("noise", "comparisons")]
    for table in [table for kind in kinds for table in kind.tables(findings)]:
        assert not any(entry.grey for line in table.rows for entry in line.entries)
        assert BELOW not in to_markdown(table) + to_latex(table)
    records = [row for kind in kinds if kind.records for row in kind.records(findings)]
    assert not any("is_below_noise" in row for row in records)
    assert "noise floor" not in terminal_text(findings)


def test_one_draw_per_item_is_said_to_tell_nothing_apart(results, answer) -> None:
    pattern = {"paper_arc_easy": answer("11100110", ["x"])["x"]}
    results.add("lora", 0, pattern, protocol="paper", temperature=0.1)
    (line,) = noise_sentences(results.findings(tables=(), claims=()))
    assert "one draw per item" in line


@pytest.mark.parametrize(("hashes", "said"), [("aa", "the same bits"), ("ab", "other bits")])
def test_the_table_says_whether_repeats_have_the_same_bits(results, answer, hashes, said) -> None:
    data = noisy(results, answer).input(tables=(), claims=())
    known = dict(zip(("tiny-lora-1.0-0", "tiny-lora-1.0-0-repeat"), hashes, strict=True))
    weights = [known.get(cell) for cell in data.cells["cell_id"]]
    (table,) = floor_table(find(replace(data, cells=data.cells.assign(weights_sha256=weights))))
    (note,) = table.notes
    assert said in note
