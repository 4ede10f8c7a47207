"""What `zbench plan` prints, from records."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.commands.display import cell_text, new_table, print_table
from harness.commands.plan import ESTIMATE_COLUMNS, _print_estimate, _print_plan
from harness.estimate.costs import GridEstimate, estimate_grid
from harness.estimate.plan import PlanRow, plan_rows
from tests.estimate.conftest import cells_of, to_do


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=160)


def lines_of(screen: Console) -> list[str]:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


def estimate(folder: Path, label: str, gpu: str, price: float | None = None) -> GridEstimate:
    return estimate_grid(
        [to_do(cells_of("paper-7b")[label], folder)],
        gpu,
        price_per_hour=price,
        runs_dir=folder,
        data_root=None,
        num_rows={None: 52002},
    )


def test_every_field_with_a_head_is_a_column(screen: Console, tmp_path: Path) -> None:
    cells = cells_of("paper-7b")
    states = [
        to_do(cells[name], tmp_path) for name in ("llama-7b/base", "llama-7b/full/100%/seed0")
    ]
    _print_plan(screen, "mine", plan_rows(states, {None: 52002}))
    head, base, full, total = lines_of(screen)
    fields = {field.name: field.metadata.get("head") for field in dataclasses.fields(PlanRow)}
    assert head.split() == " ".join(filter(None, fields.values())).split()
    assert base.split()[1:] == ["llama-7b/base", "to", "do", "–", "–", "–", "0"]
    assert full.split()[4:] == ["52,002", "1,221", "2e-05", "6,738,415,616"]
    assert total == "mine: 2 cells, 2 to do, 1,221 optimizer steps"


def test_a_price_makes_a_column(screen: Console, tmp_path: Path) -> None:
    label = "llama-7b/zero-init-linear/100%/seed0"
    _print_estimate(screen, "mine", estimate(tmp_path, label, "h200", price=2.0))
    head, cell, total, *_ = lines_of(screen)
    assert head.split("  ")[0] == "cell"
    assert "cost" in head.split()
    assert cell.split()[:3] == [label, "~", "33.00"]
    assert total.endswith("at 2 per hour")
    free = Console(file=io.StringIO(), width=160)
    _print_estimate(free, "mine", estimate(tmp_path, label, "h200"))
    assert lines_of(free)[0].split() == [
        word for name in ESTIMATE_COLUMNS if name != "cost" for word in name.split()
    ]
    assert "--price-per-hour" in lines_of(free)[2]


def test_what_cannot_be_told_is_a_dash_and_what_does_not_fit_is_said(
    screen: Console, tmp_path: Path
) -> None:
    found = estimate(tmp_path, "llama-7b/zero-init-linear/100%/seed0", "t4")
    (cell,) = found.cells
    unknown = dataclasses.replace(cell, training_seconds=None, note="nobody knows")
    _print_estimate(screen, "mine", dataclasses.replace(found, cells=(unknown,)))
    _, row, total, *rest = lines_of(screen)
    assert row.split()[-1] == "NO"
    assert row.count("–") == 2  # training, GPU hours
    assert "more than 0.0 GPU hours (not all can be estimated)" in total
    assert f"warning: {cell.label}: nobody knows" in rest
    assert "  model huggyllama/llama-7b@main, 13 GB" in rest


def test_a_precision_that_a_gpu_has_not_is_named(screen: Console, tmp_path: Path) -> None:
    found = estimate(tmp_path, "llama-7b/zero-init-linear/100%/seed0", "t4")
    (cell,) = found.cells
    asked = dataclasses.replace(cell, precision="bf16")
    _print_estimate(screen, "mine", dataclasses.replace(found, cells=(asked,)))
    assert lines_of(screen)[3].startswith("NVIDIA T4, 16 GB: no bf16 by its data sheet")


def test_a_long_table_is_written_as_rich_would(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["a/b", "1,000", "–"], ["漢字 é", "2", "~ 3"], ["", "", "x"]]
    for width in (40, 8):  # the narrow one is left to rich
        table = new_table(["cell"], ["steps", "much longer"], no_wrap=True)
        print_table(Console(width=width), table, rows)
        mine = capsys.readouterr().out
        theirs = new_table(["cell"], ["steps", "much longer"], no_wrap=True)
        for row in rows:
            theirs.add_row(*map(cell_text, row))
        Console(width=width).print(theirs)
        assert mine == capsys.readouterr().out
