"""Layers that are computed again in the backward pass give the same gradients, bit for bit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.methods.pass_through import PEFT, PeftOptions
from harness.models.loading import trained_parameters
from harness.training.loop import fit
from harness.training.loss import ResponseLoss
from harness.training.micro_batches import number_sequences
from harness.training.parallel import gather_trained
from harness.training.spec import TrainSpec
from harness.training.step import TrainStep
from tests.fixtures.pictures import looking, picture_features, with_pictures
from tests.fixtures.rank_processes import run_ranks
from tests.fixtures.tiny import TRAINED, adapted, random_examples, tiny_llama

CPU = torch.device("cpu")
SETTINGS = {"learning_rate": 3e-3, "epochs": 1, "batch_size": 9, "token_budget": 60}
OPTIONS: dict[str, dict[str, object]] = {"lora": {"dropout": 0.3}, "dora": {"dropout": 0.3}}
"""With dropout, where a method has any."""
PEFT_TYPES: dict[str, dict[str, Any]] = {
    "OFT": {"oft_block_size": 4, "r": 0},
    "PVERA": {"r": 4},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4},
}
"""Some of PEFT's own: one that draws noise, one in the cache, one before the text."""


def gradients(
    model: nn.Module, *, checkpointed: bool, precision: str = "fp32", pictures: bool = False
) -> tuple[float, dict[str, torch.Tensor], int]:
    """The loss and the gradients of one batch, and how often the last MLP ran."""
    spec = TrainSpec.model_validate(SETTINGS | {"gradient_checkpointing": checkpointed})
    examples = random_examples(9)
    train_step = TrainStep(
        model.train(), spec, device=CPU, precision=precision, pad_token_id=0,
        pictures=picture_features() if pictures else None,
    )  # fmt: skip
    calls = []
    layer = model.get_decoder().layers[-1]  # type: ignore[operator]
    layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    totals = train_step.backward(with_pictures(examples) if pictures else examples, 5)
    found = trained_parameters(model)
    return totals.loss_sum, {k: v.grad for k, v in found.items() if v.grad is not None}, len(calls)


def check_equal(plain: tuple[Any, ...], again: tuple[Any, ...]) -> None:
    assert again[0] == plain[0]
    assert again[1].keys() == plain[1].keys()
    assert plain[1]
    for name, gradient in again[1].items():
        assert torch.equal(gradient, plain[1][name]), name
    assert again[2] == 2 * plain[2]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", TRAINED)
def test_the_gradients_are_the_same_bits(name: str, precision: str) -> None:
    options = OPTIONS.get(name, {})
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    plain, again = (
        gradients(
            adapted(name, dtype=dtype, moved=True, **options),
            checkpointed=flag,
            precision=precision,
        )
        for flag in (False, True)
    )
    check_equal(plain, again)


@pytest.mark.long
@pytest.mark.parametrize("kind", PEFT_TYPES)
def test_the_gradients_of_pefts_types_are_the_same_bits(kind: str) -> None:
    options = PeftOptions(peft={"peft_type": kind, **PEFT_TYPES[kind]})
    plain, again = (
        gradients(PEFT.apply(tiny_llama(), options, 5), checkpointed=flag) for flag in (False, True)
    )
    check_equal(plain, again)


@pytest.mark.parametrize("name", ["zero-init-nonlinear", "random-init"])
def test_the_gradients_under_pictures_are_the_same_bits(name: str) -> None:
    plain, again = (
        gradients(looking(name), checkpointed=flag, pictures=True) for flag in (False, True)
    )
    check_equal(plain, again)


def test_dropout_masks_are_those_of_the_pass_in_a_backward_of_another_thread() -> None:
    """As on CUDA, where autograd runs in a thread of its own, without this one's context."""
    found = []
    for checkpointed in (False, True):
        model = adapted("lora", moved=True, dropout=0.3).train()
        loss = ResponseLoss(model, gradient_checkpointing=checkpointed)
        train_step = TrainStep(
            model, TrainSpec.model_validate(SETTINGS), device=CPU, precision="fp32", pad_token_id=0
        )
        train_step.loss = train_step.module = loss
        backward = torch.Tensor.backward
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "backward", lambda one: _elsewhere(lambda: backward(one)))  # noqa: B023
            train_step.backward(random_examples(9), 5)
        found.append([one.grad for one in trained_parameters(model).values()])
    assert all(torch.equal(*both) for both in zip(*found, strict=True))


def _elsewhere(function: Any) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_fewer_activations_are_kept() -> None:
    kept = []
    for checkpointed in (False, True):
        model = adapted("zero-init-linear", moved=True).train()
        loss = ResponseLoss(model, gradient_checkpointing=checkpointed)
        (batch,) = loss.micro_batches(
            number_sequences(random_examples(9)), token_budget=1000, pad_token_id=0, device=CPU
        )
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss(batch)
        kept.append(sum(sizes.values()))
    assert kept[1] < kept[0] / 2


def test_nothing_stays_on_the_layers_and_evaluation_recomputes_nothing() -> None:
    model = adapted("lora")
    layers = list(model.get_decoder().layers)
    own = layers[1].forward
    layers[1].forward = lambda *args, **kwargs: own(*args, **kwargs)  # as accelerate's hooks do
    before = [dict(vars(layer)) for layer in layers]
    loss = ResponseLoss(model, gradient_checkpointing=True)
    (batch,) = loss.micro_batches(
        number_sequences(random_examples(3)), token_budget=1000, pad_token_id=0, device=CPU
    )
    calls: list[int] = []
    layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    loss(batch).backward()  # in eval mode
    assert [dict(vars(layer)) for layer in layers] == before
    assert len(calls) == 1


def trained_twice(rank: int) -> list[dict[str, torch.Tensor] | None]:
    """The weights of full fine-tuning without checkpointing, and with it."""
    found = []
    for checkpointed in (False, True):
        model = adapted("full", moved=True)
        spec = TrainSpec.model_validate(SETTINGS | {"gradient_checkpointing": checkpointed})
        result = fit(
            model, random_examples(21), spec, seed=3, device="cpu", precision="fp32",
            pad_token_id=0,
        )  # fmt: skip
        assert result.gradient_checkpointing == checkpointed
        found.append(gather_trained(model))
    return found


@pytest.mark.long
def test_a_sharded_model_trains_to_the_same_bits(tmp_path: Path) -> None:
    (plain, again), _ = run_ranks(trained_twice, tmp_path)
    assert all(torch.equal(value, again[name]) for name, value in plain.items())
