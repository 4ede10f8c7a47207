"""`plan` and `status` tell how far a tuning is, what it chose, and what waits for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.commands.plan import plan_command
from harness.commands.status import status_command
from harness.commands.tuning import stand_in_line, tuning_lines, tuning_records, waiting_lines
from harness.grid.folders import cell_folder
from harness.grid.workspace import OpenGrid
from harness.records.results import write_result
from tests.commands.test_rounds import DIVERGED, opened
from tests.grid.test_trials import done, failed


def with_trials(folder: Path, *losses: float | None) -> OpenGrid:
    """The grid with so many trials that have ended; None of one that diverged."""
    grid = opened(folder)
    for trial, loss in zip(grid.tunings[0].trials, losses, strict=False):
        cell = trial.cells[0]
        result = failed(cell, DIVERGED) if loss is None else done(cell, loss)
        write_result(cell_folder(grid.runs_dir, cell), replace(result, cell=cell.record()))
    return grid.unfolded()


def test_the_lines_say_how_far_it_is(tmp_path: Path) -> None:
    grid = with_trials(tmp_path, 1.0)
    (line,) = tuning_lines(grid)
    assert line == ("tiny-llama/lora: 1 of 3 trials have ended, to be compared on validation loss")
    assert waiting_lines(grid) == ["waits:   tiny-llama/lora[tuned]: 1 cell (waits for 2 trials)"]
    assert stand_in_line(grid)[0].startswith("1 cell waits for a tuning, and is counted")
    grid = with_trials(tmp_path, 1.0, None, 2.0)
    (line,) = tuning_lines(grid)
    assert line == (
        "tiny-llama/lora: trial 0 of 3 chosen on validation loss: learning_rate 0.0001; 1 failed "
        f"and counts as the worst (learning_rate 0.001: {DIVERGED})"
    )
    assert waiting_lines(grid) == stand_in_line(grid) == []
    (record,) = tuning_records(grid)
    assert (record["chosen"], record["settings"]) == (0, {"learning_rate": 1e-4})
    assert [trial["value"] for trial in record["trials"]] == [1.0, None, 2.0]


def test_the_plan_lists_what_is_not_known_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = with_trials(tmp_path, None)
    assert plan_command(grid, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["label"].split("/")[1]: row for row in told["cells"]}
    assert (rows["lora[tuned]"]["cell_id"], rows["lora[tuned]"]["status"]) == (
        None,
        "waits for 2 trials",
    )
    assert rows["lora[trial-0]"]["status"] == "diverged"
    assert rows["lora[trial-1]"]["status"] == rows["lora"]["status"] == "to do"
    assert rows["lora[trial-1]"]["learning_rate"] == 1e-3
    assert [len(one["trials"]) for one in told["tunings"]] == [3]
    left = {state.cell.label.split("/")[1] for state in grid.left}
    assert left == set(rows) - {"lora[trial-0]"}


def test_the_status_lists_what_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_command(with_trials(tmp_path, 1.0), as_json=False) == 0
    told = capsys.readouterr().out
    assert "5 cells: 1 done, 0 running, 0 failed, 4 to do" in told
    assert "waits:   tiny-llama/lora[tuned]: 1 cell (waits for 2 trials)" in told
    assert "tuning:  tiny-llama/lora: 1 of 3 trials have ended" in told
