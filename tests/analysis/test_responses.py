"""Response flags and the order of options: counted over seeds, paired by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from harness.analysis.findings import Findings
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.paper.matching import RESPONSE_FLAGS
from harness.evaluation.protocols import PAPER
from harness.report.listings import flag_tables, order_table, score_records
from harness.report.render import to_markdown

GIVEN = replace(
    BENCHMARKS["truthfulqa_mc1"], name="gen", title="Generated", protocol=PAPER, chance=None
)
SHUFFLED = replace(GIVEN, name="gen_shuffled", title="Generated, shuffled", column=None)
ALONE = {"gen": GIVEN, "gen_shuffled": SHUFFLED}


def find(results) -> Findings:
    return results.findings(ALONE, tables=())


def add(
    results,
    seed: int,
    answers: str,
    shuffled: str | None = None,
    flags: Sequence[str] = RESPONSE_FLAGS,
    **counts: int,
) -> None:
    results.add("lora", seed)
    head = {key: results.cells[-1][key] for key in ("cell_id", "model", "method", "method_name")}
    head |= {key: results.cells[-1][key] for key in ("label", "method_title", "fraction", "seed")}
    for name, values in (("gen", answers), ("gen_shuffled", shuffled)):
        if values is not None:
            results.score(
                head,
                name,
                [float(each) for each in values],
                protocol="paper",
                temperature=0.1,
                response_flags=dict.fromkeys(flags, 0) | counts,
            )


def cells_of(table) -> list[list[str]]:
    return [[entry.text for entry in line.entries] for line in table.rows]


def test_counts_add_up_over_the_seeds(results) -> None:
    add(results, 0, "1100", several_named=1, gold_first=4)
    add(results, 1, "1000", several_named=2, gold_first=4, empty=1)
    (table,) = flag_tables(find(results))
    expected = ["tiny", "LoRA", "TruthfulQA", "8", "37.5", "37.5", "12.5", "0.0", "100.0"]
    assert cells_of(table) == [expected]
    assert table.name == "responses-paper"


def test_without_generated_responses_there_is_no_table(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    findings = results.findings()
    assert flag_tables(findings) == order_table(findings) == []


def test_the_order_is_compared_question_by_question(results) -> None:
    add(results, 0, "1111", "1000")
    add(results, 1, "1110", "1000")
    (table,) = order_table(find(results))
    (line,) = cells_of(table)
    assert line[:5] == ["tiny", "LoRA", "Generated, shuffled", "87.5", "25.0"]
    # Differences by question: 0, 1, 1, 1 and 0, 1, 1, 0.
    assert line[5].startswith("+62.5 (")


def test_a_cell_without_the_shuffled_run_is_left_out(results) -> None:
    add(results, 0, "1111")
    assert order_table(find(results)) == []


def test_without_records_the_difference_is_missing(results) -> None:
    add(results, 0, "1111", "1000")
    results.items.clear()
    assert cells_of(order_table(find(results))[0])[0][5] == "–"


def test_the_csv_has_a_column_for_each_count(results, answer) -> None:
    add(results, 0, "1100", empty=3)
    results.add("base", None, answer("1100", ["arc_easy"]))
    records = score_records(results.findings())
    assert [record["responses_empty"] for record in records] == [3, None]
    assert all("response_flags" not in record for record in records)


def test_the_page_and_the_files_hold_them(results, tmp_path, monkeypatch) -> None:
    from harness.evaluation import benchmarks
    from harness.report import build_report

    monkeypatch.setattr(benchmarks, "BENCHMARKS", ALONE)
    add(results, 0, "1100", "1000", several_named=2)
    report = build_report(results.input(), tmp_path)
    names = {path.name for path in report.files}
    assert "responses.md" in names
    text = (tmp_path / "responses.md").read_text(encoding="utf-8")
    assert "| Names several | Empty |" in text
    assert "What the order of the options does" in report.page.read_text(encoding="utf-8")
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert list(scores["responses_several_named"]) == [2, 2]


def test_markdown_names_the_protocol(results) -> None:
    add(results, 0, "1100")
    (table,) = flag_tables(find(results))
    assert "paper protocol" in to_markdown(table)


def test_scienceqa_s_flag_is_counted_alone(results) -> None:
    add(results, 0, "1100", flags=("not_extracted",), not_extracted=1)
    (table,) = flag_tables(find(results))
    assert table.header[-2:] == ("Score", "Not extracted")
    assert cells_of(table)[0][-2:] == ["50.0", "25.0"]
    assert "is wrong here, where the official scoring draws one" in table.caption[0]
    assert "Names several" not in table.caption[0]
    assert score_records(find(results))[0]["responses_not_extracted"] == 1


def test_the_paper_s_records_have_its_flags_alone(results) -> None:
    add(results, 0, "1100")
    told = [name for name in score_records(find(results))[0] if name.startswith("responses_")]
    assert told == [f"responses_{name}" for name in RESPONSE_FLAGS]


def test_shuffled_pictures_are_no_order_of_options(results) -> None:
    add(results, 0, "1100", "1000")
    known = {name: replace(one, picture_column="image") for name, one in ALONE.items()}
    assert results.findings(known, tables=()).orders == ()
