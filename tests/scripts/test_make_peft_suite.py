"""The grid of PEFT's published comparison: written from its data, and what it says of each row."""

from __future__ import annotations

from harness.analysis.peft_suite import SuiteRow, suite_table
from harness.grid.loader import load_grid
from harness.grid.schema import Cell, GridSpec, expand
from harness.methods import METHODS
from scripts.make_peft_suite import GRID, grid_text


def cells(grid: GridSpec) -> dict[str, Cell]:
    return {cell.method_label: cell for cell in expand(grid)}


def test_the_grid_that_ships_is_what_the_script_writes() -> None:
    assert GRID.read_text(encoding="utf-8") == grid_text()


def test_every_published_row_is_a_cell_or_left_out_with_its_reason() -> None:
    grid = load_grid("peft-suite")
    labels = {row.label for row in suite_table().rows}
    found = {choice.label for choice in grid.choices} - {"base"}
    assert found | grid.left_out.keys() == labels
    assert not found & grid.left_out.keys()
    assert {label.partition("-")[0] for label in grid.left_out} == {"lily"}
    assert len(found) == 61
    assert all("mean over all tokens" in reason for reason in grid.left_out.values())
    # What the installed PEFT does not take any more is named.
    assert "fan_in_fan_out" in grid.remarks["c3a-default"]


def test_every_cell_trains_as_many_parameters_as_were_published() -> None:
    found = cells(load_grid("peft-suite"))
    for row in suite_table().rows:
        if (cell := found.get(row.label)) is not None:
            counted = METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
            assert counted == row.trained_parameters, row.label


def test_every_cell_has_the_training_of_its_row() -> None:
    found = cells(load_grid("peft-suite"))
    for row in suite_table().rows:
        if (cell := found.get(row.label)) is None:
            continue
        train = cell.train
        assert train is not None
        assert (train.max_steps, train.epochs, train.batch_size) == (5000, None, 4)
        assert train.warmup(20_000) == 500
        assert train.peak_learning_rate == row.training["optimizer_kwargs"]["lr"]
        assert train.weight_decay == expected_decay(row)
        assert train.max_gradient_norm == row.training["grad_norm_clip"]


def expected_decay(row: SuiteRow) -> float:
    """The row's own, the suite's default, or torch's where its options replace the default's."""
    return float(row.training["optimizer_kwargs"].get("weight_decay", 0.01))


def test_rows_of_one_method_are_gathered() -> None:
    grid = load_grid("peft-suite")
    assert grid.gather["IA3"] == ["ia3-default", "ia3-lr-0.001"]
    assert len(grid.gather["PROMPT_TUNING"]) == 3
    assert set(grid.gather) == {"ADAPTION_PROMPT", "IA3", "PREFIX_TUNING", "PROMPT_TUNING"}
