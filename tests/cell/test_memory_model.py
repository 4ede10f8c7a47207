"""The memory model's parts on paper; its sums are held to tracked peaks by tests/estimate."""

from __future__ import annotations

from typing import Any

import pytest

from harness.cell.memory_model import TokenPass, Training, gathered_bytes, scoring_peak
from harness.methods import METHODS
from harness.models.shape import ModelShape

SEVEN = ModelShape(
    num_hidden_layers=32, hidden_size=4096, intermediate_size=11008, num_attention_heads=32,
    vocab_size=32000,
)  # fmt: skip
P = SEVEN.num_parameters
NOTHING = TokenPass(0, 0, 0)


def training_of(method: str, shape: ModelShape = SEVEN, **settings: Any) -> Training:
    """Returns the training of a method with its default options."""
    entry = METHODS[method]
    options = entry.options()
    work, trained = entry.workload_on(shape, options), entry.count_parameters(shape, options)
    return Training(shape, work, trained, **settings)


def test_a_frozen_weight_takes_two_bytes_and_a_trained_one_sixteen() -> None:
    lora = training_of("lora")
    assert lora.weights_and_optimizer() == 2 * (P - lora.trained) + 16 * lora.trained
    assert training_of("full").weights_and_optimizer() == 16 * P
    assert training_of("full", optimizer={"name": "SGD"}).weights_and_optimizer() == 8 * P


def test_a_base_in_fp32_takes_four_bytes() -> None:
    lora = training_of("lora", precision="fp32")
    assert lora.weights_and_optimizer() == 4 * (P - lora.trained) + 16 * lora.trained


@pytest.mark.parametrize(("quantization", "each"), [("int8", 1.0), ("nf4", 0.5625)])
def test_a_quantised_base_keeps_embeddings_and_head_in_half_precision(
    quantization: str, each: float
) -> None:
    lora = training_of("lora", quantization=quantization)
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    others = P - lora.trained - matrices
    assert lora.frozen_bytes() == each * matrices + 2 * others
    assert others > 2 * 32000 * 4096 - lora.trained


def test_full_fine_tuning_is_divided_among_the_gpus() -> None:
    for ranks in (2, 4, 8):
        assert training_of("full", ranks=ranks).weights_and_optimizer() == 16 * P / ranks
    # Until they are divided every GPU holds all weights in half precision.
    assert 2 * P < training_of("full", ranks=8).loading_bytes() < 2.6 * P
    assert training_of("full").loading_bytes() > 4 * P


def test_adapters_and_their_base_are_not_divided_and_ddp_adds_buckets() -> None:
    one, four = training_of("lora"), training_of("lora", ranks=4)
    assert four.weights_and_optimizer() == one.weights_and_optimizer() + 4 * one.trained


def test_below_the_first_adapted_layer_nothing_is_kept() -> None:
    few, many = training_of("random-init"), training_of("zero-init-linear")
    tokens = TokenPass(1000, 1300, 500, 8)
    assert few.work.adapted_layers == 30
    layer = many.layer_bytes(tokens)
    outputs = 30 * 2 * 4096 * 1000
    ends = 2 * 2 * 4096 * 1000
    assert many.activation_bytes(tokens) == 30 * layer + outputs + ends


def test_with_gradient_checkpointing_one_layer_is_kept_whole() -> None:
    tokens = TokenPass(8000, 8000, 4000, 64)
    plain, again = training_of("lora"), training_of("lora", checkpointing=True)
    inputs = 32 * 2 * 4096 * 8000
    layer = plain.activation_bytes(tokens) / 32
    assert again.activation_bytes(tokens) == pytest.approx(inputs + layer, rel=0.05)


def test_gradients_come_as_activations_go_in_a_steps_only_pass() -> None:
    tokens = TokenPass(8000, 8000, 4000, 64)
    several = training_of("full").training_bytes(tokens)
    only = training_of("full").training_bytes(TokenPass(8000, 8000, 4000, 64, several=False))
    assert several - only == pytest.approx(4 * P)


def test_the_largest_pass_is_the_largest_that_fits() -> None:
    lora, like = training_of("lora"), TokenPass(100, 100, 50, 1)
    found = lora.largest_pass(60e9, like)
    assert 5000 < found < 12000
    whole = TokenPass(found, found, found / 2, found / 100)
    assert 59e9 < lora.peak_bytes(whole) <= 60e9
    assert lora.largest_pass(1e9, like) == pytest.approx(0, abs=1)


def test_scoring_takes_weights_and_a_pass() -> None:
    linear = training_of("zero-init-linear")
    assert 2 * P < scoring_peak(linear) < 2 * P + 6e9
    assert scoring_peak(training_of("full")) > 4 * P


def test_a_checkpoint_is_gathered_in_fp32_with_the_optimizers_state() -> None:
    assert gathered_bytes(training_of("full")) % (12 * P) == 0


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.trains])
def test_every_method_has_a_peak_that_grows_with_its_passes(method: str) -> None:
    if method in ("peft", "adapter"):
        pytest.skip("has no default options")
    training = training_of(method)
    small, large = (TokenPass(size, size, size / 2, size / 128) for size in (1000, 8000))
    assert training.least_bytes() < training.peak_bytes(small) < training.peak_bytes(large)
    assert training.peak_bytes(NOTHING) >= training.least_bytes()
