"""Peaks of a plan: the fullest pass that a training meets, and what would fit."""

from __future__ import annotations

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


def test_virtual_tokens_stand_beside_the_budget() -> None:
    cell = LORA.model_copy(
        update={"method": "prompt-tuning", "options": METHODS["prompt-tuning"].options()}
    )
    plain, passed = fullest_pass(LORA, tokens_of(LORA)), fullest_pass(cell, tokens_of(cell))
    assert passed.sequences == plain.sequences
    assert passed.nodes == pytest.approx(plain.nodes + 100 * plain.sequences)
    (way, *_) = ways_to_fit(cell, "bf16", find_gpu("rtx-4090"), tokens_of(cell))
    budget = int(way.removeprefix("train.token_budget: "))
    smaller = fullest_pass(with_train(cell, token_budget=budget), tokens_of(cell))
    assert training_bytes(cell, "bf16", smaller) <= 24e9


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
