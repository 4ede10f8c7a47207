"""A grid's estimate on a GPU, as a whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.estimate.costs import (
    CellEstimate,
    GridEstimate,
    assumptions,
    estimate_grid,
    training_flops,
)
from harness.estimate.gpus import find_gpu
from harness.estimate.tokens import token_counter
from harness.grid.status import CellState
from harness.records.results import CellResult, TrainResult
from tests.estimate.conftest import cells_of, to_do

CELLS = cells_of("paper-7b")


def estimate(
    states: list[CellState], gpu: str, folder: Path, price: float | None = None
) -> GridEstimate:
    return estimate_grid(
        states, gpu, price_per_hour=price, runs_dir=folder, data_root=None, num_rows={None: 52002}
    )


def test_the_papers_cell_takes_21_minutes_on_an_h200(tmp_path: Path) -> None:
    cell = CELLS["llama-7b/zero-init-linear/100%/seed0"]
    (h200,) = estimate([to_do(cell, tmp_path)], "h200", tmp_path).cells
    assert h200.training_tokens == 5 * 6_600_133
    assert h200.training_seconds == pytest.approx(20.8 * 60, rel=0.03)
    assert h200.fits
    (a100,) = estimate([to_do(cell, tmp_path)], "a100-80", tmp_path).cells
    assert a100.training_seconds == pytest.approx(51.8 * 60, rel=0.03)
    (small,) = estimate([to_do(cell, tmp_path)], "t4", tmp_path).cells
    assert small.precision == "fp16"
    assert small.fits is False
    assert "has 16: fits with train.gradient_checkpointing: true and" in str(small.note)


def test_a_report_counts_the_operations_that_a_plan_does(tmp_path: Path) -> None:
    cell = CELLS["llama-7b/lora/100%/seed0"]
    (planned,) = estimate([to_do(cell, tmp_path)], "h200", tmp_path).cells
    tokens_of = token_counter(runs_dir=tmp_path, data_root=None, num_rows={None: 52_002})
    assert training_flops(cell, tokens_of) == planned.training_flops
    unknown = token_counter(runs_dir=tmp_path, data_root=None, num_rows={None: None})
    assert training_flops(cell, unknown) is None


def test_a_length_in_steps_is_paid_by_its_rows(tmp_path: Path) -> None:
    cell = CELLS["llama-7b/zero-init-linear/100%/seed0"]
    assert cell.train is not None
    per_epoch = cell.train.steps_per_epoch(52_002)

    def of(**length: object) -> CellEstimate:
        assert cell.train is not None
        train = cell.train.model_copy(update=length)
        state = to_do(cell.model_copy(update={"train": train}), tmp_path)
        return estimate([state], "h200", tmp_path).cells[0]

    whole = of(epochs=2)
    assert of(epochs=None, max_steps=2 * per_epoch).training_flops == whole.training_flops
    half = of(epochs=None, max_steps=per_epoch // 2)
    rows = per_epoch // 2 * cell.train.batch_size
    assert half.training_tokens == pytest.approx(6_600_133 * rows / 52_002, abs=1)


def test_what_is_done_is_not_paid_again(tmp_path: Path) -> None:
    cell = CELLS["llama-7b/zero-init-linear/100%/seed0"]
    fresh = to_do(cell, tmp_path)
    train = TrainResult(
        steps=1, examples=1, tokens=1, epoch_losses=(1.0,), trainable_parameters=1,
        total_parameters=1, seconds=100.0, tokens_per_second=1.0, peak_memory_bytes=1,
        peak_learning_rate=1.0, precision="bf16", device="cuda", data_sha256="",
    )  # fmt: skip
    result = CellResult(
        cell={}, cell_id=cell.id, train=train, evaluation_seconds={"arc_easy": 20.0}
    )
    half = replace(fresh, result=result, missing=cell.tasks[:1])
    whole = replace(half, status="done", missing=())
    found = estimate([half, whole], "h200", tmp_path)
    (only,) = found.cells
    assert (only.training_tokens, only.training_seconds) == (0, 0)
    assert only.scoring_tokens == 100640
    assert (found.done_cells, found.done_seconds) == (1, 240.0)


def test_money_is_hours_times_price_and_never_made_up(tmp_path: Path) -> None:
    states = [to_do(cell, tmp_path) for cell in CELLS.values()]
    free = estimate(states, "h200", tmp_path)
    assert free.money(free.gpu_hours) is None
    paid = estimate(states, "h200", tmp_path, price=3.0)
    assert paid.gpu_hours is not None
    assert paid.money(paid.gpu_hours) == pytest.approx(3 * paid.gpu_hours)
    record = json.loads(json.dumps(paid.record()))
    assert record["cost"] == pytest.approx(sum(cell["cost"] for cell in record["cells"]))


def test_unknown_data_is_no_number(tmp_path: Path) -> None:
    cell = CELLS["llama-7b/lora/100%/seed0"]
    data = cell.data.model_copy(update={"source": "someone/else", "path": None})
    other = cell.model_copy(update={"data": data})
    found = estimate([to_do(other, tmp_path)], "h200", tmp_path)
    assert found.cells[0].training_seconds is None
    assert found.gpu_hours is None
    assert "training data is unknown" in str(found.cells[0].note)


def test_full_fine_tuning_needs_smaller_passes_or_a_larger_gpu(tmp_path: Path) -> None:
    cell = CELLS["llama-7b/full/100%/seed0"].model_copy(update={"gpus_per_cell": 1})
    state = to_do(cell, tmp_path)
    (a100,) = estimate([state], "a100-80", tmp_path).cells
    assert a100.fits is False
    (h200,) = estimate([state], "h200", tmp_path).cells
    assert h200.fits


def test_what_a_cell_would_refuse_does_not_fit(tmp_path: Path) -> None:
    cell = CELLS["llama-7b/lora/100%/seed0"]
    assert cell.train is not None
    half = cell.model_copy(update={"train": cell.train.model_copy(update={"precision": "bf16"})})
    (t4,) = estimate([to_do(half, tmp_path)], "t4", tmp_path).cells
    assert (t4.fits, t4.note) == (False, "NVIDIA T4 does not compute in bf16")
    short = cell.train.model_copy(update={"token_budget": 10})
    (h200,) = estimate(
        [to_do(cell.model_copy(update={"train": short}), tmp_path)], "h200", tmp_path
    ).cells
    assert str(h200.note).startswith("train.token_budget 10 is less than max_length 256")


def test_a_cell_that_trains_and_cannot_be_scored_says_so(tmp_path: Path) -> None:
    (l4,) = estimate([to_do(CELLS["llama-7b/full/100%/seed0"], tmp_path)], "l4", tmp_path).cells
    assert l4.fits is False
    assert str(l4.note).endswith("does not fit, for one GPU scores it and holds 27 GB of weights")


def test_every_assumption_is_named() -> None:
    said = assumptions(find_gpu("a100-80"))
    for part in (
        "80% of that",
        "80% of 2 TB/s",
        "60%",
        "32 answers",
        "8 µs",
        "15 s",
        "1 GB a second",
    ):
        assert part in said
