"""Operations per token against what is worked out on paper for LLaMA-7B and Alpaca."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.estimate.flops import computed_tokens, scoring_flops, shares_opening, training_flops
from harness.estimate.tokens import ScoringTokens, TrainingTokens, known_training_tokens
from harness.methods import METHODS
from harness.methods.lora import LoraOptions
from harness.methods.zero_init.options import PromptOptions
from harness.models.shape import ModelShape


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
    whole = replace(alpaca, opening=0)
    flops = training_flops(method, METHODS[method].options(), shape_7b, whole)
    assert flops / whole.tokens / 1e9 == pytest.approx(gigaflop, abs=0.05)


def test_the_shared_opening_saves_a_quarter(shape_7b: ModelShape, alpaca: TrainingTokens) -> None:
    flops = training_flops("zero-init-linear", PromptOptions(), shape_7b, alpaca)
    assert flops / alpaca.tokens / 1e9 == pytest.approx(19, abs=0.1)
    saved = 1 - computed_tokens("zero-init-linear", PromptOptions(), alpaca) / alpaca.tokens
    assert saved == pytest.approx(0.26, abs=0.005)


def test_dropout_and_virtual_words_keep_openings_apart() -> None:
    assert not shares_opening("lora", LoraOptions())
    assert shares_opening("lora", LoraOptions(dropout=0))
    assert shares_opening("full", METHODS["full"].options())
    assert not shares_opening("prompt-tuning", METHODS["prompt-tuning"].options())


def test_below_the_first_adapted_layer_nothing_goes_backward(
    shape_7b: ModelShape, alpaca: TrainingTokens
) -> None:
    few = training_flops("random-init", PromptOptions(num_layers=10), shape_7b, alpaca)
    many = training_flops("random-init", PromptOptions(num_layers=20), shape_7b, alpaca)
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    tokens = alpaca.tokens - alpaca.opening
    linear = 10 * 2 * layer * tokens
    assert many - few == pytest.approx(linear, rel=0.02)  # and attention's part
    assert many - few > linear


def test_scoring_is_a_forward_pass(shape_7b: ModelShape) -> None:
    tokens = ScoringTokens(items=1, tokens=1000, scored=10, pairs=0)
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert scoring_flops(shape_7b, tokens) == 2 * layers * 1000 + 2 * 32000 * 4096 * 10
