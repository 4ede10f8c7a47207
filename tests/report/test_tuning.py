"""How tuning is reported: responses, edges, the budget's worth, tuned beside published."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.analysis.tuning import Tuning
from harness.grid.tuned_methods import Trial
from harness.report import build_report
from harness.report.contents import drawings, table_files, terminal_text
from harness.report.tuning import (
    choice_table,
    edge_sentences,
    trial_records,
    tuned_records,
    tuned_tables,
)
from tests.fixtures.results import GridResults, answers_of

RATES = [1e-3, 3e-3, 1e-2, 3e-2]


def trial(number: int, settings: Mapping[str, Any], *values: float | None, **fields: Any) -> Trial:
    """Returns a trial with a value of each seed."""
    by_seed = {1_000_000 + n: value for n, value in enumerate(values)}
    stated = {"status": "done", "seconds": 10.0 * len(values)} | fields
    return Trial(number, settings, by_seed, cells=(), **stated)


def tuning(method: str = "lora", losses=(1.5, 1.0, 1.2, 9.0), **fields: Any) -> Tuning:
    """Returns the tuning of a learning rate, with the best trial chosen."""
    trials = tuple(
        trial(n, {"learning_rate": rate}, loss)
        for n, (rate, loss) in enumerate(zip(RATES, losses, strict=True))
    )
    stated: dict[str, Any] = {
        "model": "tiny", "method": method, "method_title": method, "data": None, "fraction": 1.0,
        "on": "validation loss", "lower_is_better": True, "num_trials": len(trials),
        "space": {"learning_rate": RATES}, "sampler": "grid", "trials": trials,
        "chosen": min(range(len(losses)), key=lambda n: losses[n]), "unit": "nats per token",
        "published": {"learning_rate": 3e-3},
    }  # fmt: skip
    return Tuning(**(stated | fields))


def grid() -> GridResults:
    """Returns a method at its published recipe and tuned, on two seeds."""
    results = GridResults()
    results.add("base", None, answers_of("1000"))
    for seed in (0, 1):
        results.add("lora", seed, answers_of("1100"))
        results.add("lora", seed, answers_of("1110"), label="lora[tuned]")
        results.add("full", seed, answers_of("1010"))
    return results


def texts_of(table) -> list[list[str]]:
    """Returns what stands in a table's rows."""
    return [[entry.text for entry in line.entries] for line in table.rows]


def test_without_tuning_nothing_is_said_of_it() -> None:
    findings = grid().findings()
    assert choice_table(findings) == []
    assert tuned_tables(findings) == []
    assert not any(one.name.startswith("tuning") for one in drawings(findings))
    assert not any(name.startswith("tun") for name, _ in table_files(findings))


def test_the_published_recipe_stands_beside_the_tuned_one() -> None:
    findings = grid().findings(tunings=(tuning(),))
    (table,) = tuned_tables(findings)
    rows = {line[2]: line for line in texts_of(table)}
    assert rows["ARC-e"][3:6] == ["50.00", "75.00", "+25.00"]
    # The interval and p are those of the report's comparisons, not others of the same pair.
    (entry,) = [
        entry
        for entries in findings.comparisons.values()
        for entry in entries
        if entry.left == "lora[tuned]" and entry.column == "Average"
    ]
    (record,) = [one for one in tuned_records(findings) if one["column"] == "Average"]
    assert record["difference_points"] == pytest.approx(100 * entry.estimate.value)
    assert record["low_points"] == pytest.approx(100 * entry.estimate.interval[0])
    assert record["p"] == entry.p_value
    assert (record["published_recipe_percent"], record["tuned_percent"]) == (50.0, 75.0)


def test_a_difference_is_paired() -> None:
    results = grid()
    findings = results.findings(tunings=(tuning(),))
    (record,) = [one for one in tuned_records(findings) if one["column"] == "ARC-e"]
    # One of four items differs, the same with both seeds.
    differences = pd.Series([0.0, 0.0, 1.0, 0.0])
    assert record["difference_points"] == pytest.approx(100 * differences.mean())
    assert record["stderr_points"] == pytest.approx(100 * differences.sem())


def test_a_difference_of_one_seed_is_marked_as_of_two_models() -> None:
    results = GridResults()
    results.add("lora", 0, answers_of("1100"))
    results.add("lora", 0, answers_of("1110"), label="lora[tuned]")
    (table,) = tuned_tables(results.findings(tunings=(tuning(),)))
    assert {line[5] for line in texts_of(table)} == {"+25.00°"}
    assert {line[7] for line in texts_of(table)} == {"–"}
    assert any("These two trained models, not the methods" in text for text in table.caption)


def test_a_winner_that_is_the_published_recipe_is_told_as_that() -> None:
    results = grid()
    tuned, own = ("tiny-lora[tuned]-1.0-{}", "tiny-lora-1.0-{}")
    for record in (*results.cells, *results.scores):
        for seed in (0, 1):
            if record["cell_id"] == tuned.format(seed):
                record["cell_id"] = own.format(seed)
    findings = results.findings(tunings=(tuning(),))
    (table,) = tuned_tables(findings)
    assert {line[5] for line in texts_of(table)} == {"the same"}
    assert "The winner is the published recipe: tiny, lora." in table.caption
    assert "(the published recipe)" in texts_of(choice_table(findings)[0])[0][2]


def test_the_chosen_value_is_no_result() -> None:
    """It is in the response's figure and in the list of trials alone: it is biased upwards."""
    findings = grid().findings(tunings=(tuning(losses=(1.5, 1.0397, 1.2, 9.0)),))
    files = {name: text for name, text in table_files(findings) if name != "tuning.csv"}
    assert "tuning.md" in files
    assert not any("1.0397" in text or "1.04" in text for text in files.values())
    assert "1.04" not in terminal_text(findings)
    assert any("is no result" in text for text in choice_table(findings)[0].caption)
    trials = trial_records(findings)
    assert [one["validation_value"] for one in trials if one["is_chosen"]] == [1.0397]


def test_the_budget_is_told_with_what_was_lost() -> None:
    lost = (
        *tuning().trials[:2],
        trial(2, {"learning_rate": 1e-2}, None, status="failed", note="loss is nan"),
        trial(3, {"learning_rate": 3e-2}, 9.0, status="pruned", note="stopped at epoch 1"),
    )
    alike = grid().findings(tunings=(tuning(trials=lost), tuning("full")))
    (table,) = choice_table(alike)
    assert texts_of(table)[0][4:7] == ["4 of 4", "1", "1"]
    assert "Every method had 4 trials." in table.caption[0]
    assert "2 of the trials failed or were stopped early" in table.caption[0]
    unlike = grid().findings(tunings=(tuning(), tuning("full", num_trials=9)))
    (table,) = choice_table(unlike)
    assert "lora 4, full 9): not at equal cost" in table.caption[0]
    assert texts_of(table)[1][4] == "4 of 9"


def test_what_a_tuning_took_stands_beside_one_training() -> None:
    trials = tuple(replace(one, seconds=5000.0) for one in tuning().trials)
    (table,) = choice_table(grid().findings(tunings=(tuning(trials=trials),)))
    assert table.header[-3:] == ("Tuning", "One training", "Times")
    assert "took one after the other (on CPU)" in table.caption[0]
    assert texts_of(table)[0][-3:] == ["5.6 h", "66.7 min", "5.0"]


def test_a_tie_and_what_is_not_counted_are_told() -> None:
    plain = choice_table(grid().findings(tunings=(tuning(),)))[0]
    assert "tied" not in str(plain.rows)
    assert "but for" not in plain.caption[0]
    one = tuning(losses=(1.0, 1.5, 1.0, 1.0))
    lost = replace(one.trials[1], status="failed", seconds=None)
    one = replace(one, trials=(one.trials[0], lost, *one.trials[2:]))
    told = choice_table(grid().findings(tunings=(one,)))[0]
    assert "learning_rate 0.001 (tied with 2 others)" in str(told.rows)
    assert "but for 1 that failed or stopped early" in told.caption[0]


def test_an_edge_is_told_in_the_terminal_with_what_to_do() -> None:
    at_edge = tuning("full", losses=(3.0, 2.0, 1.4, 1.1))
    (line,) = edge_sentences([tuning(), at_edge])
    assert "full: the chosen learning_rate 0.03 is the largest of its list (0.001 to 0.03)" in line
    assert "widen `tune.space.full.learning_rate`, such as to 0.09" in line
    findings = grid().findings(tunings=(tuning(), at_edge))
    terminal = " ".join(terminal_text(findings).split())
    assert terminal.count("At the edge") == 1
    assert line in terminal


def test_edges_are_told_before_any_score() -> None:
    results = GridResults()
    results.add("lora", 0, None, status="missing", losses=(2.0, 1.0))
    findings = results.findings(tunings=(tuning("full", losses=(3.0, 2.0, 1.4, 1.1)),))
    assert "At the edge" in terminal_text(findings)


@pytest.mark.parametrize("count", [1, 2, 200])
def test_any_number_of_trials_is_drawn(count: int) -> None:
    trials = tuple(
        trial(n, {"learning_rate": 1e-4 * 1.03**n, "dropout": n / 1000}, 1 + (n - count / 2) ** 2)
        for n in range(count)
    )
    found = drawings(grid().findings(tunings=(tuning(trials=trials, chosen=0),)))
    names = [one.name for one in found if one.name.startswith("tuning")]
    assert names == (["tuning-response-tiny", "tuning-budget-tiny"] if count > 1 else [])
    for one in found:
        if one.name in names:
            assert one.render("png").startswith(b"\x89PNG")


def test_the_figures_name_what_is_marked() -> None:
    trials = (
        *tuning().trials,
        trial(4, {"learning_rate": 0.1}, None, status="failed"),
        trial(5, {"learning_rate": 0.2}, None, status="pruned"),
    )
    found = {
        one.name: one
        for one in drawings(grid().findings(tunings=(tuning(trials=trials),)))
        if one.name.startswith("tuning")
    }
    svg = found["tuning-response-tiny"].render("svg").decode()
    for text in ("chosen", "published recipe", "failed", "stopped early", "learning_rate"):
        assert text in svg
    assert "better than it would be again" in found["tuning-response-tiny"].caption


def test_a_benchmark_is_drawn_in_percent_and_by_its_name() -> None:
    one = tuning(
        losses=(0.5, 0.75, 0.25, 0.125), on="piqa acc", lower_is_better=False, unit=None, chosen=1
    )
    found = [d for d in drawings(grid().findings(tunings=(one,))) if d.name.startswith("tuning")]
    assert len(found) == 2
    for drawing in found:
        assert "piqa acc (%)" in drawing.render("svg").decode()
        assert "piqa acc" in drawing.caption
    assert "higher is better" in found[0].caption


def test_trials_that_all_failed_are_no_curve() -> None:
    trials = tuple(replace(one, status="failed", values={0: None}) for one in tuning().trials)
    findings = grid().findings(tunings=(tuning(trials=trials, chosen=None),))
    assert not any(one.name.startswith("tuning") for one in drawings(findings))
    assert texts_of(choice_table(findings)[0])[0][2] == "not chosen yet"


def test_the_page_has_a_section_and_files(tmp_path: Path) -> None:
    report = build_report(grid().input(tunings=(tuning(),)), tmp_path)
    names = {path.name for path in report.files}
    assert {"tuned.md", "tuned.tex", "tuned.csv", "tuning.md", "tuning.tex", "tuning.csv"} <= names
    assert {"tuning-response-tiny.svg", "tuning-budget-tiny.png"} <= names
    page = report.page.read_text(encoding="utf-8")
    assert 'id="tuning"' in page
    trials = pd.read_csv(io.StringIO((tmp_path / "tuning.csv").read_text()))
    assert trials["trial"].tolist() == [0, 1, 2, 3]


def test_figures_are_drawn_again_when_a_trial_changes(tmp_path: Path) -> None:
    build_report(grid().input(tunings=(tuning(),)), tmp_path)
    before = (tmp_path / "tuning-response-tiny.png").read_bytes()
    build_report(grid().input(tunings=(tuning(losses=(1.5, 1.0, 1.2, 2.0)),)), tmp_path)
    assert (tmp_path / "tuning-response-tiny.png").read_bytes() != before
