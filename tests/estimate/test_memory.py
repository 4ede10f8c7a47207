"""Peaks of a plan: the fullest pass, what would fit, and the model against tracked peaks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cell.memory_model import WORKER_BYTES
from harness.estimate.gpus import find_gpu
from harness.estimate.lengths import TrainingTokens
from harness.estimate.memory import fullest_pass, host_bytes, training_bytes, ways_to_fit
from harness.estimate.tokens import known_training_tokens
from harness.grid.schema import Cell
from harness.methods import METHODS
from tests.estimate.conftest import cells_of

CELLS = cells_of("paper-7b")
LINEAR = CELLS["llama-7b/zero-init-linear/100%/seed0"]
LORA = CELLS["llama-7b/lora/100%/seed0"]
FULL = CELLS["llama-7b/full/100%/seed0"]
THIRTEEN = cells_of("paper-13b")["llama-13b/zero-init-linear/100%/seed0"]
ROOT = Path(__file__).resolve().parents[2]


def tokens_of(cell: Cell) -> TrainingTokens:
    assert cell.train is not None
    known = known_training_tokens(
        "tatsu-lab/alpaca", cell.model.shape, 52002, cell.train.max_length
    )
    assert known is not None
    return known


def with_train(cell: Cell, **settings: Any) -> Cell:
    assert cell.train is not None
    return cell.model_copy(update={"train": cell.train.model_copy(update=settings)})


def test_some_batch_of_alpaca_fills_the_budget() -> None:
    passed = fullest_pass(LINEAR, tokens_of(LINEAR))
    assert passed.nodes == pytest.approx(8192, rel=0.15)
    assert passed.slots == pytest.approx(1.35 * passed.nodes, rel=0.01)
    two = fullest_pass(LORA, tokens_of(LORA))
    assert (two.nodes, two.slots, two.several) == (8192, 8192, True)


def test_ranks_divide_a_batch() -> None:
    one, eight = (fullest_pass(LORA, tokens_of(LORA), ranks) for ranks in (1, 8))
    assert one.several
    assert not eight.several
    assert 128 * 123.9 / 8 < eight.nodes < 3200


def test_a_set_budget_and_a_sequence_bound_the_pass() -> None:
    small = with_train(LORA, token_budget=1024)
    assert fullest_pass(small, tokens_of(small)).nodes == 1024
    single = with_train(LORA, batch_size=1)
    assert fullest_pass(single, tokens_of(single)).nodes == pytest.approx(256, rel=0.01)


def test_what_fits_is_told_from_the_cheapest_on() -> None:
    ways = list(ways_to_fit(LORA, "bf16", find_gpu("rtx-4090"), tokens_of(LORA)))
    assert ways[0].startswith("train.token_budget: ")
    assert ways[1].startswith("train.gradient_checkpointing: true")
    assert ways[2].startswith("train.base_quantization: int8")
    budget = int(ways[0].split()[-1])
    assert budget >= 256
    fitting = with_train(LORA, token_budget=budget)
    passed = fullest_pass(fitting, tokens_of(fitting))
    assert training_bytes(fitting, "bf16", passed) <= 24e9


def test_full_fine_tuning_fits_on_more_gpus() -> None:
    cell = FULL.model_copy(update={"gpus_per_cell": 1})
    ways = list(ways_to_fit(cell, "bf16", find_gpu("a100-80"), tokens_of(cell)))
    assert [way.split(":")[0] for way in ways] == ["gpus_per_cell"]
    assert not list(ways_to_fit(cell, "bf16", find_gpu("t4"), tokens_of(cell)))


def test_an_explicit_way_is_not_told_twice() -> None:
    quantised = with_train(LINEAR, base_quantization="int8", gradient_checkpointing=True)
    ways = list(ways_to_fit(quantised, "bf16", find_gpu("t4"), tokens_of(quantised)))
    assert not any("checkpointing" in way or "int8" in way for way in ways)


def test_the_host_holds_a_checkpoint_of_what_is_trained() -> None:
    trained = FULL.model.shape.num_parameters
    assert host_bytes(LINEAR) < 1.1 * WORKER_BYTES
    assert (host_bytes(FULL) - 4 * WORKER_BYTES) % (12 * trained) == 0
    assert host_bytes(FULL, trained=True) == WORKER_BYTES


def rehearse(*arguments: str) -> list[dict[str, Any]]:
    """Returns what `tests.gpu_rehearsal.memory` tracked, in a process of its own."""
    if shutil.which("g++") is None:
        pytest.skip("a rehearsal needs a C++ compiler")
    command = [sys.executable, "-m", "tests.gpu_rehearsal.memory", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def assert_holds(row: dict[str, Any]) -> None:
    """Asserts that the tracked peak <= the plan <= 1.1 x the tracked peak + 2 GB."""
    said = {key: row[key] for key in ("method", "size", "ranks", "nodes", "tracked", "planned")}
    assert row["tracked"] <= row["planned"] <= 1.1 * row["tracked"] + 2e9, said


@pytest.mark.timeout(600)
def test_planned_peaks_hold_the_tracked_ones() -> None:
    rows = rehearse("zero-init-linear", "lora", "--layers", "4")
    rows += rehearse("full", "--layers", "4", "--ranks", "1,4")
    assert len(rows) == 4
    for row in rows:
        assert_holds(row)
        # Nothing goes backward through the first layer's projections: 3 % of four layers.
        assert row["flops"] == pytest.approx(row["planned_flops"], rel=0.04), row["method"]


TRAINED = [name for name, one in METHODS.items() if one.trains and name not in ("peft", "adapter")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", ["7b", "13b"])
@pytest.mark.parametrize("method", TRAINED)
def test_planned_peaks_hold_at_full_depth(method: str, size: str) -> None:
    for row in rehearse(method, "--sizes", size, "--ranks", "1,2,4,8", "--fullest", "100"):
        assert_holds(row)
        assert row["flops"] == pytest.approx(row["planned_flops"], rel=0.02), row["method"]
