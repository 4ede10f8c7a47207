"""PEFT's published comparison: the rows that ship, and what their items tell apart."""

from __future__ import annotations

import math

import pytest
from scipy.stats import fisher_exact

from harness.analysis.peft_suite import (
    other_than_published,
    published_cost,
    ranks_told_apart,
    suite_table,
    told_apart,
)
from harness.grid.loader import load_grid
from harness.grid.schema import expand


def test_the_rows_that_ship() -> None:
    table = suite_table()
    assert (len(table.rows), table.num_items) == (63, 1319)
    assert len({row.label for row in table.rows}) == 63
    assert sum(row.adapter is None for row in table.rows) == 1
    lora = table.row("lora-rank32")
    assert lora is not None
    assert lora.accuracy == pytest.approx(631 / 1319)
    assert lora.training["optimizer_kwargs"] == {"lr": 0.0001, "weight_decay": 0.1}
    assert table.row("lora") is None
    assert all(abs(row.accuracy * 1319 - round(row.accuracy * 1319)) < 1e-9 for row in table.rows)
    assert all(round(50 * row.validation_accuracy, 6).is_integer() for row in table.rows)
    assert "5d602fd" in table.source


def test_the_items_alone_tell_four_of_sixty_two_neighbours_apart() -> None:
    table = suite_table()
    assert ranks_told_apart(table.rows, table.num_items) == [51, 56, 57, 58]
    assert len(table.rows) - 1 == 62


def test_neighbours_are_told_apart_by_fishers_exact_test() -> None:
    counts, n = [640, 600, 590, 75, 16, 6, 0, 0], 1319
    found = told_apart([count / n for count in counts], n)
    expected = [
        fisher_exact([[a, n - a], [b, n - b]]).pvalue < 0.05
        for a, b in zip(counts, counts[1:], strict=False)
    ]
    assert found == expected == [False, False, True, True, False, True, False]


def test_the_error_is_the_binomial_one() -> None:
    row = suite_table().rows[0]
    expected = math.sqrt(row.accuracy * (1 - row.accuracy) / 1319)
    assert row.stderr(1319) == pytest.approx(expected)


def test_what_the_published_runs_took_is_told_where_they_are_named() -> None:
    (line,) = published_cost("peft-suite")
    assert "steps of 63 trainings took 15.0 hours on one NVIDIA L40S, 24.3 with the scoring" in line
    assert published_cost(None) == []


def test_only_the_same_model_rows_and_steps_are_the_published_runs() -> None:
    cells = expand(load_grid("peft-suite"))
    assert other_than_published(cells) is None
    trained = cells[1]
    assert trained.train is not None
    for part, change, said in (
        ("model", {"source": "x/other"}, "the model is x/other, not meta-llama/Llama-3.2-3B"),
        ("data", {"source": "x/rows"}, "the training rows are those of x/rows"),
        ("train", {"max_steps": 10}, "max_steps is 10, not 5000"),
        ("train", {"batch_size": 8}, "batch_size is 8, not 4"),
        ("train", {"max_length": 512}, "max_length is 512, not 768"),
        ("train", {"learning_rate": 1e-3}, "adalora-rank32's learning rate is 0.001, not 0.0001"),
        ("train", {"weight_decay": 0.0}, "adalora-rank32's weight_decay is 0.0, not 0.1"),
    ):
        other = getattr(trained, part).model_copy(update=change)
        assert other_than_published([trained.model_copy(update={part: other})]) == said
    fewer = trained.model_copy(update={"fraction": 0.1})
    assert other_than_published([fewer]) == "cells are trained on 10% of the rows too"
    limited = trained.tasks[0].model_copy(update={"limit": 10})
    some = trained.model_copy(update={"tasks": (limited,)})
    assert other_than_published([some]) == "the benchmark is scored on some of its items alone"
