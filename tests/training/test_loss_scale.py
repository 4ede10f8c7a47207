"""Training in fp16: what overflows is skipped and counted, on all ranks alike; nothing else is."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.errors import TrainingError
from harness.training.loss_scale import FIRST_FACTOR, STEPS_TO_DOUBLE, LossScale
from tests.fixtures.rank_processes import run_ranks
from tests.fixtures.tiny import adapted, trained_state
from tests.training.test_loop import poison_loss, spec
from tests.training.test_loop import train as train_model
from tests.training.test_parallel import Outcome, train


def test_the_factor_follows_the_overflows() -> None:
    scale = LossScale(enabled=True)
    assert scale.overflowed(math.inf)
    assert scale.overflowed(math.nan)
    assert (scale.factor, scale.skipped_steps) == (FIRST_FACTOR / 4, 2)
    assert not any(scale.overflowed(1.0) for _ in range(STEPS_TO_DOUBLE - 1))
    assert scale.factor == FIRST_FACTOR / 4
    assert not scale.overflowed(1.0)
    assert scale.factor == FIRST_FACTOR / 2


def test_without_scaling_nothing_is_an_overflow() -> None:
    scale = LossScale(enabled=False)
    assert not scale.overflowed(math.inf)
    assert (scale.factor, scale.skipped_steps) == (1.0, 0)


def test_a_training_that_goes_on_keeps_its_factor() -> None:
    scale, other = LossScale(enabled=True), LossScale(enabled=True)
    scale.overflowed(math.inf)
    for _ in range(STEPS_TO_DOUBLE - 1):
        scale.overflowed(1.0)
    other.load_state(scale.state())
    for each in (scale, other):
        each.overflowed(1.0)
    assert scale.state() == other.state()
    assert other.factor == FIRST_FACTOR


def test_gradients_are_divided_without_rounding() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 3e-5, 7.0]))
    scale = LossScale(enabled=True)
    (parameter**2).sum().backward()
    assert parameter.grad is not None
    exact = parameter.grad.clone()
    parameter.grad *= scale.factor
    scale.divide([parameter])
    assert torch.equal(parameter.grad, exact)


@pytest.mark.parametrize("name", ["zero-init-linear", "random-init", "lora", "full"])
def test_an_fp16_base_trains_fp32_tensors(name: str) -> None:
    exact = train(name).losses
    half = train(name, "fp16")
    assert half.losses == pytest.approx(exact, rel=1e-2)
    assert all(value.dtype == torch.float32 for value in half.trained.values())
    assert half.metrics["fp16/loss_scale"] >= 1


class Overflows:
    """Makes the gradient of a trained tensor infinite in chosen backward passes, from 0."""

    def __init__(self, model: nn.Module, passes: set[int]) -> None:
        self.passes, self.seen = passes, 0
        parameter = next(p for p in model.parameters() if p.requires_grad)
        parameter.register_hook(self)

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return gradient * (math.inf if self.seen - 1 in self.passes else 1.0)


def test_an_overflow_is_skipped_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    model = adapted("lora", moved=True, dtype=torch.float16)
    Overflows(model, {0})
    start = trained_state(model)
    states = []
    with caplog.at_level(logging.WARNING):
        result = train_model(
            model,
            spec(epochs=1, token_budget=64),
            precision="fp16",
            on_step=lambda record: states.append(trained_state(model)),
        )
    assert result.final_statistics["fp16/skipped_steps"] == 1
    assert result.final_statistics["fp16/loss_scale"] == FIRST_FACTOR / 2
    assert [record.message for record in caplog.records if "skipped" in record.message] == [
        "gradients overflowed in fp16: the step is skipped, the loss is scaled by 32768 now"
    ]
    for name, value in start.items():
        assert torch.equal(states[0][name], value), name
    assert all(torch.isfinite(value).all() for value in states[-1].values())
    assert any(not torch.equal(states[1][name], value) for name, value in start.items())


def test_gradients_that_stay_infinite_fail_the_training() -> None:
    model = adapted("lora", moved=True, dtype=torch.float16)
    Overflows(model, set(range(1000)))
    with pytest.raises(TrainingError, match=r"^step 17: .* gradient's norm "):
        train_model(model, spec(epochs=20, token_budget=64), precision="fp16")


def test_a_loss_that_is_no_number_fails_the_training() -> None:
    model = adapted("zero-init-linear", moved=True, dtype=torch.float16)
    poison_loss(model)
    with pytest.raises(TrainingError, match=r"^step 1: the loss is nan"):
        train_model(model, precision="fp16")


def overflow_on_one(rank: int) -> tuple[Outcome, Outcome]:
    """Trains an adapter and the whole model; the last rank's gradients overflow once."""
    return train("lora", "fp16", overflows=rank == 1), train("full", "fp16", overflows=rank == 1)


@pytest.mark.long
def test_all_ranks_skip_the_same_step(tmp_path: Path) -> None:
    first, second = run_ranks(overflow_on_one, tmp_path)
    for mine, other in zip(first, second, strict=True):
        assert mine.metrics == other.metrics
        assert mine.metrics["fp16/skipped_steps"] >= 1
        assert mine.steps == other.steps
        assert all(torch.isfinite(value).all() for value in mine.trained.values())
