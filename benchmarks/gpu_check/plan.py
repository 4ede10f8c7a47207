"""Check 9: what checks 3 and 5 measured beside what `zbench plan` says for this card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.rows import Row
from benchmarks.gpu_check.scoring import METHOD as SCORED
from benchmarks.gpu_check.steps import METHODS
from harness.estimate.costs import CellEstimate, estimate_cell
from harness.estimate.gpus import Gpu, gpu_of_device
from harness.estimate.tokens import NEW_TOKENS, scoring_tokens, token_counter
from harness.evaluation.tasks import TaskSpec
from harness.grid.loader import load_grid
from harness.grid.schema import expand
from harness.grid.status import CellState

GRID = "paper-7b"
ROWS = 52002


def beside_the_plan(bench: Bench) -> Iterator[Row]:
    """Of training, scoring and generation at full depth; a first measurement has no verdict."""
    name = "NVIDIA H200" if bench.tiny else torch.cuda.get_device_name()
    known = gpu_of_device(name)
    if known is None:
        yield Row(9, "tokens/s beside `plan`", "skipped", note=f"`plan` does not know {name}")
        return
    for method in METHODS:
        figures = seen(bench, 3, method, "tokens_per_second")
        planned = planned_rate(bench, method, known[1])
        yield beside(bench, f"{method}: training tokens/s", figures, planned)
    for task, key, of_item in (("arc_easy", "items", 1), ("paper_arc_easy", "tokens", NEW_TOKENS)):
        figures = seen(bench, 5, SCORED, key)
        seconds = planned_item_seconds(bench, SCORED, task, known[1])
        what = "items scored/s" if of_item == 1 else "generated tokens/s"
        yield beside(bench, f"{SCORED}: {what}", figures, of_item / seconds if seconds else None)


def seen(bench: Bench, check: int, method: str, key: str) -> Mapping[str, Any]:
    """The figures of an earlier row; empty where there is none."""
    rows = (row.figures for row in bench.seen if row.check == check and row.name.startswith(method))
    return next((figures for figures in rows if key in figures), {})


def beside(bench: Bench, name: str, figures: Mapping[str, Any], planned: float | None) -> Row:
    """A measured rate and the planned one; the plan speaks of full depth alone."""
    if not figures or (figures["size"] != "7B" and not bench.tiny):
        return Row(9, name, "skipped", note="not measured at full depth, of which `plan` speaks")
    done = figures.get("tokens", figures.get("items"))
    rate = done / figures["seconds"]
    return Row(
        9,
        name,
        "measured",
        found=f"{rate:,.0f}",
        expected=f"plan {planned:,.0f}" if planned else "plan says nothing",
        source=f"zbench plan {GRID}",
        figures={"rate": rate, "planned": planned, "ratio": rate / planned if planned else None},
    )


def planned_rate(bench: Bench, method: str, gpu: Gpu) -> float | None:
    """Training tokens per second of a cell of the shipped 7B grid, by the plan."""
    estimate = planned_cell(bench, method, gpu)
    if not estimate.training_tokens or not estimate.training_seconds:
        return None
    return estimate.training_tokens / estimate.training_seconds


def planned_item_seconds(bench: Bench, method: str, task: str, gpu: Gpu) -> float | None:
    """Seconds of an item of a benchmark by the plan."""
    spec = TaskSpec(name=task)
    estimate = planned_cell(bench, method, gpu, tasks=(spec,))
    counted = scoring_tokens([spec], shape_of_grid())
    if counted is None or not estimate.scoring_seconds:
        return None
    return estimate.scoring_seconds / counted.items


def shape_of_grid() -> Any:
    """The shape of the grid's model."""
    return expand(load_grid(GRID))[0].model.shape


def planned_cell(bench: Bench, method: str, gpu: Gpu, **changes: Any) -> CellEstimate:
    """The plan of a method's first cell on all of Alpaca."""
    cells = [one for one in expand(load_grid(GRID)) if one.method == method and one.fraction == 1]
    cell = cells[0].model_copy(update=changes)
    state = CellState(cell, bench.folder, None, "pending", cell.tasks)
    tokens = token_counter(
        runs_dir=bench.folder, data_root=None, num_rows={cell.data_name: ROWS}, read_only=True
    )
    return estimate_cell(state, gpu, tokens)
