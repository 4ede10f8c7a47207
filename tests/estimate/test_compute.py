"""Operations and disk space against what is worked out on paper for LLaMA-7B and Alpaca."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.estimate.compute import (
    checkpoint_bytes,
    computed_tokens,
    result_bytes,
    scoring_flops,
    training_flops,
)
from harness.estimate.lengths import TrainingTokens
from harness.estimate.tokens import ScoringTokens, known_training_tokens
from harness.methods import METHODS, ModelShape, Workload
from tests.estimate.conftest import cells_of

CELLS = cells_of("paper-7b")
FULL = CELLS["llama-7b/full/100%/seed0"].model_copy(update={"gpus_per_cell": 1})
P = 6_738_415_616


def work_of(method: str, shape: ModelShape, **options: object) -> Workload:
    return METHODS[method].workload_on(shape, METHODS[method].options(**options))


@pytest.fixture
def alpaca(shape_7b: ModelShape) -> TrainingTokens:
    found = known_training_tokens("tatsu-lab/alpaca", shape_7b, 52002, 512)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("method", "gigaflop"),
    [
        ("random-init", 25.5),
        ("zero-init-linear", 25.5),
        ("zero-init-nonlinear", 25.5),
        ("lora", 26.3),
        ("full", 39.4),
    ],
)
def test_a_token_of_7b_costs_what_it_does_on_paper(
    method: str, gigaflop: float, shape_7b: ModelShape, alpaca: TrainingTokens
) -> None:
    whole = replace(alpaca, shared_prefix=0)
    flops = training_flops(work_of(method, shape_7b), shape_7b, whole)
    assert flops / whole.tokens / 1e9 == pytest.approx(gigaflop, abs=0.05)


def test_the_shared_prefix_saves_a_quarter(shape_7b: ModelShape, alpaca: TrainingTokens) -> None:
    work = work_of("zero-init-linear", shape_7b)
    flops = training_flops(work, shape_7b, alpaca)
    assert flops / alpaca.tokens / 1e9 == pytest.approx(19, abs=0.1)
    saved = 1 - computed_tokens(work, alpaca) / alpaca.tokens
    assert saved == pytest.approx(0.26, abs=0.005)


def test_dropout_and_virtual_tokens_keep_prefixes_apart(
    shape_7b: ModelShape, alpaca: TrainingTokens
) -> None:
    assert not work_of("lora", shape_7b).shares_prefix
    assert work_of("lora", shape_7b, dropout=0).shares_prefix
    assert work_of("full", shape_7b).shares_prefix
    assert not work_of("prefix-tuning", shape_7b).shares_prefix
    passed = computed_tokens(work_of("prompt-tuning", shape_7b), alpaca, padding=0.5)
    assert passed == alpaca.tokens + round(0.5 * alpaca.tokens) + 100 * alpaca.rows
    packed = work_of("lora", shape_7b)
    assert computed_tokens(packed, alpaca, padding=0.5) == alpaca.tokens


def test_a_method_that_tells_nothing_is_judged_by_its_parameters(shape_7b: ModelShape) -> None:
    silent = {name: replace(METHODS[name], workload=None) for name in ("full", "lora", "base")}
    work = {name: one.workload_on(shape_7b, one.options()) for name, one in silent.items()}
    assert work["full"] == Workload(trains_base=True)
    assert work["lora"] == Workload(shares_prefix=False)
    assert work["base"] == Workload()


def test_below_the_first_adapted_layer_nothing_goes_backward(
    shape_7b: ModelShape, alpaca: TrainingTokens
) -> None:
    few, many = (
        training_flops(work_of("random-init", shape_7b, num_layers=count), shape_7b, alpaca)
        for count in (10, 20)
    )
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    tokens = alpaca.tokens - alpaca.shared_prefix
    linear = 10 * 2 * layer * tokens
    assert many - few == pytest.approx(linear, rel=0.02)  # and attention's part
    assert many - few > linear


def test_scoring_is_a_forward_pass(shape_7b: ModelShape) -> None:
    tokens = ScoringTokens(items=1, tokens=1000, scored=10, pairs=0)
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert scoring_flops(shape_7b, tokens) == 2 * layers * 1000 + 2 * 32000 * 4096 * 10


def test_full_fine_tuning_keeps_its_weights_and_three_checkpoints() -> None:
    assert checkpoint_bytes(FULL) == 3 * 12 * P
    assert result_bytes(FULL, 0) == 4 * P
