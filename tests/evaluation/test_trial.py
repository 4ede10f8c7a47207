from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from harness.evaluation.trial import WrongResultError, attention_window, try_once

Make = Callable[..., LlamaForCausalLM]


def test_a_trial_that_is_passed_is_not_repeated(make_model: Make) -> None:
    model, calls = make_model(), []
    for kind in ("one", "one", "another"):
        try_once(model, kind, lambda: calls.append(1))
    assert len(calls) == 2
    model.set_attn_implementation("eager")
    try_once(model, "one", lambda: calls.append(1))
    assert len(calls) == 3


def test_a_fault_of_the_model_is_a_reason_and_a_failed_trial_is_repeated(make_model: Make) -> None:
    model, calls = make_model(), []

    def refuse() -> None:
        calls.append(1)
        raise NotImplementedError("no masks\nat all")

    for _ in range(2):
        with pytest.raises(WrongResultError, match="^no masks$"):
            try_once(model, "one", refuse)
    assert len(calls) == 2


def test_full_memory_says_nothing_of_a_model(make_model: Make) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    with pytest.raises(torch.OutOfMemoryError):
        try_once(make_model(), "one", full)


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ({}, None),
        ({"sliding_window": 64}, 64),
        ({"sliding_window": 64, "use_sliding_window": False}, None),
        ({"attention_chunk_size": 32}, 32),
    ],
)
def test_windows_bound_what_is_shared(
    settings: dict[str, Any], window: int | None, make_model: Make
) -> None:
    model = make_model()
    for name, value in settings.items():
        setattr(model.config, name, value)
    assert attention_window(model) == window
