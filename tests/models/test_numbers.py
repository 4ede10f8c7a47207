"""Numbers that are none are told by their cause, with advice that cures that cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.errors import ModelError, TrainingError
from harness.models.advice import ADVICE
from harness.models.checkpoint import ModelSpec
from harness.models.loading import Base, load_base
from harness.models.numbers import overflow_cause
from harness.training.loop import fit
from harness.training.spec import TrainSpec
from tests.fixtures.tiny import VOCAB_SIZE, random_examples
from tests.fixtures.tiny_checkpoint import write_checkpoint
from tests.fixtures.tiny_models import adapted, shape, tiny_model

NAME = "model.layers.1.mlp.up_proj.weight"


def load(folder: Path, precision: str = "fp32") -> Base:
    spec = ModelSpec(path=str(folder), shape=shape())
    return load_base(spec, data_root=None, device="cpu", precision=precision)


def spoil(folder: Path, value: float) -> None:
    write_checkpoint(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[NAME][3, 5] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_of_a_base_that_are_no_numbers_are_its_own(
    tmp_path: Path, value: float, precision: str
) -> None:
    spoil(tmp_path, value)
    with pytest.raises(ModelError) as caught:
        load(tmp_path, precision)
    line = str(caught.value)
    assert f"the base model's own weights are not numbers: {NAME} (1 of 1,536 numbers)" in line
    assert line.endswith(ADVICE["not finite"])
    assert "lower the learning rate" not in line
    write_checkpoint(tmp_path)
    load(tmp_path, precision)


def test_weights_that_are_too_large_for_fp16_are_told_and_cured_by_bf16(tmp_path: Path) -> None:
    spoil(tmp_path, 1e5)
    with pytest.raises(ModelError, match=r"too large for float16: .*up_proj") as caught:
        load(tmp_path, "fp16")
    assert str(caught.value).endswith(ADVICE["fp16"])
    for precision in ("bf16", "fp32"):
        load(tmp_path, precision)


def break_one(model: nn.Module, *, trained: bool) -> str:
    name, value = next(
        item for item in model.named_parameters() if item[1].requires_grad == trained
    )
    with torch.no_grad():
        value.view(-1)[0] = float("nan")
    return name


def test_each_cause_of_results_that_are_no_numbers_has_its_advice() -> None:
    base, lora = adapted("base", tiny_model()), adapted("lora", tiny_model())
    assert overflow_cause(base).endswith(ADVICE["activations"])
    assert overflow_cause(base, "fp16").endswith(ADVICE["activations of fp16"])
    assert overflow_cause(base.half()).endswith(ADVICE["activations of fp16"])
    assert overflow_cause(lora).endswith(ADVICE["diverged"])
    assert overflow_cause(lora, "fp16").endswith(ADVICE["fp16"])
    assert overflow_cause(lora, trained=False).endswith(ADVICE["activations"])
    name = break_one(lora, trained=True)
    assert f"its trained weights are not numbers: {name}" in overflow_cause(lora)
    assert overflow_cause(lora).endswith(ADVICE["diverged"])
    break_one(lora, trained=False)
    assert overflow_cause(lora).endswith(ADVICE["not finite"])


def test_an_adapter_trained_elsewhere_is_not_the_bases_fault() -> None:
    imported = adapted("lora", tiny_model()).requires_grad_(False)
    assert overflow_cause(imported).endswith(ADVICE["activations of adapter"])


def train(model: nn.Module, rate: float = 1e-3, steps: int = 3) -> None:
    examples = random_examples(8 * steps)
    spec = TrainSpec(epochs=1, batch_size=8, learning_rate=rate, schedule="constant")
    fit(model, examples, spec, seed=0, device="cpu", precision="fp32", pad_token_id=0)


def huge_activations(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(1e30)  # type: ignore[operator]
        model.get_decoder().norm.weight.fill_(1e30)  # type: ignore[operator]


def broken_base(model: nn.Module) -> None:
    break_one(model, trained=False)


@pytest.mark.parametrize(
    ("spoiled", "advice"),
    [(huge_activations, "activations"), (broken_base, "not finite")],
)
def test_the_first_step_is_not_blamed_on_the_learning_rate(
    spoiled: Callable[[nn.Module], None], advice: str
) -> None:
    model = adapted("lora", tiny_model(vocab_size=VOCAB_SIZE))
    spoiled(model)
    with pytest.raises(TrainingError, match="^step [12]: ") as caught:
        train(model)
    assert str(caught.value).endswith(ADVICE[advice])  # type: ignore[index]
    assert "lower the learning rate" not in str(caught.value)


def test_a_later_step_is_and_a_lower_one_cures_it() -> None:
    with pytest.raises(TrainingError, match=r"^step [23]: .*lower the learning rate"):
        train(adapted("lora", tiny_model(vocab_size=VOCAB_SIZE)), rate=1e38)
    train(adapted("lora", tiny_model(vocab_size=VOCAB_SIZE)), rate=1e-3)
