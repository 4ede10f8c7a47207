"""Training settings: rates, warm-up, schedules against the formulas of their sources."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from harness.methods.full import STANFORD_ALPACA
from harness.methods.lora import ALPACA_LORA
from harness.methods.zero_init.options import PAPER_PROMPTS
from harness.training.spec import TrainSpec

ALPACA = 52_002


def rates(spec: TrainSpec, num_examples: int) -> list[float]:
    total = spec.total_steps(num_examples)
    return [spec.learning_rate_at(step, num_examples) for step in range(1, total + 1)]


def test_base_rate_is_scaled_by_the_batch() -> None:
    assert TrainSpec.model_validate(PAPER_PROMPTS).peak_learning_rate == pytest.approx(2.25e-3)
    halved = TrainSpec.model_validate(PAPER_PROMPTS | {"batch_size": 32})
    assert halved.peak_learning_rate == pytest.approx(1.125e-3)


def test_paper_schedule_is_llama_adapters() -> None:
    spec = TrainSpec.model_validate(PAPER_PROMPTS)
    steps = math.ceil(ALPACA / 64)
    expected = []
    for epoch in range(5):
        for index in range(steps):
            now = epoch + index / steps  # their epoch: a fraction that grows with every step
            if now < 2:
                expected.append(2.25e-3 * now / 2)
            else:
                expected.append(2.25e-3 * 0.5 * (1 + math.cos(math.pi * (now - 2) / 3)))
    assert rates(spec, ALPACA) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("recipe", "warmup_steps", "make"),
    [
        (ALPACA_LORA, 100, get_linear_schedule_with_warmup),
        (STANFORD_ALPACA, 37, get_cosine_schedule_with_warmup),  # ceil(0.03 · 3 · 407)
    ],
)
def test_other_schedules_are_those_of_transformers(
    recipe: dict[str, object],
    warmup_steps: int,
    make: Callable[..., torch.optim.lr_scheduler.LRScheduler],
) -> None:
    spec = TrainSpec.model_validate(recipe)
    total = spec.total_steps(ALPACA)
    assert total == 3 * 407
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=spec.peak_learning_rate)
    scheduler = make(optimizer, warmup_steps, total)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(spec, ALPACA) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_warmup_begins_at_zero_and_reaches_the_peak() -> None:
    spec = TrainSpec(learning_rate=1.0, batch_size=10, epochs=4, warmup_epochs=1.0)
    assert rates(spec, 50)[:7] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.989074], rel=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rate_falls_to_just_above_zero(schedule: str) -> None:
    spec = TrainSpec.model_validate({"learning_rate": 1.0, "batch_size": 1, "schedule": schedule})
    course = rates(spec, 20)
    assert course[0] == 1.0
    assert course == sorted(course, reverse=True)
    assert 0 < course[-1] < 0.011


def test_constant_rate_stays_at_the_peak() -> None:
    spec = TrainSpec(learning_rate=1.0, schedule="constant", batch_size=1, warmup_steps=2)
    assert rates(spec, 4) == [0.0, 0.5] + [1.0] * 18


def test_warmup_beyond_the_training_never_reaches_the_peak() -> None:
    spec = TrainSpec(learning_rate=1.0, epochs=1, batch_size=1, warmup_steps=100)
    assert rates(spec, 5) == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])


@pytest.mark.parametrize(("steps", "decay"), [(10, 1), (70, 7), (71, 8), (3, 1)])
def test_wsd_decays_over_a_tenth_of_the_steps(steps: int, decay: int) -> None:
    spec = TrainSpec(learning_rate=1.0, epochs=1, batch_size=1, schedule="wsd")
    rates = [spec.learning_rate_at(step, steps) for step in range(1, steps + 1)]
    falling = [1 - done / decay for done in range(decay)]
    assert rates == pytest.approx([*[1.0] * (steps - decay), *falling])
    stated = TrainSpec(**spec.model_dump(), decay_ratio=0.1)
    assert stated.model_dump() == spec.model_dump()  # and so the cell's id


def test_last_batch_may_be_smaller() -> None:
    spec = TrainSpec(learning_rate=1.0, epochs=5, batch_size=64, warmup_epochs=0.5)
    assert (spec.steps_per_epoch(65), spec.steps_per_epoch(64)) == (2, 1)
    assert spec.total_steps(65) == 10
    assert spec.warmup(65) == 1.0
    assert spec.warmup(1) == 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"learning_rate": 1e-3, "base_learning_rate": 1e-3},
        {"learning_rate": 1e-3, "warmup_epochs": 1, "warmup_steps": 5},
        {"learning_rate": 0},
        {"learning_rate": 1e-3, "warmup_ratio": 1.5},
        {"learning_rate": 1e-3, "epochs": 0},
        {"learning_rate": 1e-3, "epochs": None},
        {"learning_rate": 1e-3, "epochs": 2, "max_steps": 10},
        {"learning_rate": 1e-3, "max_steps": 0},
        {"learning_rate": 1e-3, "max_steps": 2.5},
        {"learning_rate": 1e-3, "max_length": 1},
        {"learning_rate": 1e-3, "beta2": 1.0},
        {"learning_rate": float("nan")},
        {"learning_rate": 1e-3, "schedule": "cosin"},
        {"learning_rate": 1e-3, "optimizer": "rprop"},
        {"learning_rate": 1e-3, "optimizer": {"name": "sgd", "nesterov": True}},
        {"learning_rate": 1e-3, "optimizer": {"name": "adadelta", "rho": 3}},
        {"learning_rate": 1e-3, "optimizer": {"name": "muon", "ns_steps": 5.5}},
        {"learning_rate": 1e-3, "optimizer": {"name": "adafactor", "eps": ["x", 1]}},
    ],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSpec.model_validate(settings)


def test_number_written_as_text_is_a_number() -> None:
    assert TrainSpec.model_validate({"learning_rate": "1e-4"}).peak_learning_rate == 1e-4


def test_a_length_in_steps_cuts_the_last_pass() -> None:
    spec = TrainSpec(learning_rate=1.0, batch_size=8, max_steps=7, warmup_ratio=0.3)
    assert spec.epochs is None
    assert (spec.steps_per_epoch(22), spec.total_steps(22), spec.num_epochs(22)) == (3, 7, 3)
    assert spec.num_passed(22) == 2 * 22 + 8
    assert spec.warmup(22) == 3
    assert rates(spec, 22)[3] == 1.0
    assert rates(spec, 22)[-1] == pytest.approx((1 + math.cos(math.pi * 3 / 4)) / 2)
    assert TrainSpec(learning_rate=1.0, batch_size=8, max_steps=2).num_epochs(22) == 1
    assert TrainSpec(learning_rate=1.0, batch_size=8, max_steps=6).num_passed(22) == 44


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_steps_and_epochs_of_one_length_are_one_schedule(steps: int) -> None:
    common = {"learning_rate": 1.0, "batch_size": 8, "schedule": "wsd", "warmup_ratio": 0.2}
    by_epochs = TrainSpec.model_validate(common | {"epochs": steps})
    by_steps = TrainSpec.model_validate(common | {"max_steps": 3 * steps})
    assert rates(by_epochs, 22) == rates(by_steps, 22)
    assert by_epochs.num_passed(22) == by_steps.num_passed(22) == 22 * steps


def test_a_length_in_steps_is_stored_where_it_is_stated() -> None:
    assert "max_steps" not in TrainSpec(learning_rate=1.0).model_dump()
    stored = TrainSpec(learning_rate=1.0, max_steps=4).model_dump()
    assert (stored["epochs"], stored["max_steps"]) == (None, 4)
    assert TrainSpec.model_validate(stored).max_steps == 4
