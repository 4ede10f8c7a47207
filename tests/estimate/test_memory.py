"""Memory against what is worked out on paper for LLaMA-7B."""

from __future__ import annotations

import pytest

from harness.estimate.memory import (
    activation_bytes,
    checkpoint_bytes,
    kept_bytes,
    scoring_bytes,
    training_bytes,
)
from tests.estimate.conftest import cells_of

CELLS = cells_of("paper-7b")
LINEAR = CELLS["llama-7b/zero-init-linear/100%/seed0"]
FULL = CELLS["llama-7b/full/100%/seed0"].model_copy(update={"gpus_per_cell": 1})
P = 6_738_415_616


def test_a_token_keeps_4_megabytes() -> None:
    assert activation_bytes(LINEAR, "bf16") == pytest.approx(4.2e6, rel=0.02)
    assert activation_bytes(LINEAR, "fp32") == pytest.approx(8.4e6, rel=0.02)


def test_a_whole_batch_of_64_fits_80_gigabytes() -> None:
    assert 40e9 < training_bytes(LINEAR, "bf16", 8123) < 80e9


def test_full_fine_tuning_keeps_16_bytes_of_each_weight() -> None:
    small = training_bytes(FULL, "fp32", 0)
    assert small == pytest.approx(16 * P + 1.0e9, rel=0.01)
    assert small > 80e9
    assert checkpoint_bytes(FULL) == 3 * 12 * P
    assert kept_bytes(FULL, 0) == 4 * P


def test_cards_share_what_is_trained() -> None:
    assert FULL.gpus_per_cell == 1
    cell = FULL.model_copy(update={"gpus_per_cell": 4})
    shared = training_bytes(cell, "bf16", 0)
    assert 27e9 < shared < 33e9


def test_scoring_needs_weights_and_one_pass() -> None:
    assert 2 * P < scoring_bytes(LINEAR, "bf16") < 2 * P + 6e9
    assert scoring_bytes(LINEAR, "fp32") > 4 * P
