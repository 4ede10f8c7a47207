"""The losses on validation rows, in the figure and in a table; nothing where none are held out."""

from __future__ import annotations

import math

from harness.report.contents import drawings
from harness.report.validation import validation_table
from tests.fixtures.results import GridResults, answers_of, make_small_grid


def grid_with_validation() -> GridResults:
    results = GridResults()
    results.add("base", None, answers_of("1000"))
    for seed, (losses, kept) in enumerate((((1.5, 1.2, 1.4), 1), ((1.6, 1.1, 1.3), 1))):
        results.add("lora", seed, answers_of("1110"), losses=(2.0, 1.0, 0.5))
        for record in results.losses[-3:]:
            epoch = record["epoch"]
            record |= {"validation_loss": losses[epoch], "is_kept": epoch == kept}
    results.add("full", 0, answers_of("1100"), losses=(2.0, 1.0, 0.9))
    for record in results.losses[-3:]:
        record |= {"validation_loss": math.nan, "is_kept": None}
    return results


def test_the_table_has_the_means_and_the_kept_epochs() -> None:
    (table,) = validation_table(grid_with_validation().findings())
    (line,) = table.rows
    texts = [entry.text for entry in line.entries]
    assert texts[1:] == ["LoRA", "100%", "1, 1", "1.5500", "1.3500", "1.1500", "1"]


def test_the_figure_shows_them_dashed() -> None:
    found = drawings(grid_with_validation().findings())
    (losses,) = [one for one in found if one.name.startswith("training-loss")]
    assert "loss on the validation rows" in losses.caption
    assert b"LoRA, validation" in losses.render("svg", panel=losses.panels[0])


def test_without_validation_nothing_is_said_of_it() -> None:
    findings = make_small_grid().findings()
    assert validation_table(findings) == []
    captions = [one.caption for one in drawings(findings) if one.name.startswith("training-loss")]
    assert captions
    assert not any("validation" in caption for caption in captions)
