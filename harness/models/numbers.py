"""Weights and results that are no numbers, and why: the base's own, the precision, the training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.models.advice import ADVICE, Cause, model_error

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_numbers(model: nn.Module, weights: Sequence[Path], folder: Path) -> None:
    """Refuses a loaded base model with weights that are not finite numbers.

    Args:
        weights: its files; looked into where the model itself does not tell: quantised weights,
            and those that are finite in the file but not in the model's precision.

    Raises:
        ModelError: some are not; the tensor is named.
    """
    import torch

    quantised = any(not value.is_floating_point() for value in model.parameters())
    broken = _first_broken(model.named_parameters())
    if broken is None and not quantised:
        return
    stored = _first_broken(_stored(weights))
    if stored is not None:
        found = f"the base model's own weights are not numbers: {stored} is NaN or infinite"
        raise model_error(folder, "not finite", found)
    if broken is not None:
        kind = str(next(model.parameters()).dtype).removeprefix("torch.")
        found = f"weights of the base model are too large for {kind}: {broken} becomes infinite"
        cause: Cause = "fp16" if next(model.parameters()).dtype == torch.float16 else "not finite"
        raise model_error(folder, cause, found)


def _first_broken(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The first tensor with numbers that are not finite, and how many; None where all are."""
    for name, tensor in tensors:
        value = tensor.detach()
        if hasattr(value, "to_local"):  # divided among processes: each looks at its own part
            value = value.to_local()
        if value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            return f"{name} ({count} of {value.numel():,} numbers)"
    return None


def _stored(weights: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    for file in weights:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # not a dictionary
                yield name, opened.get_tensor(name)


def overflow_cause(model: nn.Module, precision: str | None = None, *, trained: bool = True) -> str:
    """Why a model's results are no numbers, and what to do, as the end of an error's line.

    Args:
        precision: what it computes in; by default that of its first weights.
        trained: whether a step was taken with what it trains.
    """
    parameters = dict(model.named_parameters())
    if precision is None and str(next(iter(parameters.values())).dtype) == "torch.float16":
        precision = "fp16"
    if (fault := frozen_fault(model, every=not trained)) is not None:
        return fault
    frozen = not any(value.requires_grad for value in parameters.values())
    if trained and frozen and hasattr(model, "peft_config"):  # trained elsewhere
        return f"with this adapter the activations overflow; {ADVICE['activations of adapter']}"
    if not trained or frozen:
        cause: Cause = "activations of fp16" if precision == "fp16" else "activations"
        return f"the base model's activations overflow; {ADVICE[cause]}"
    broken = _first_broken(parameters.items())
    if broken is None and precision == "fp16":
        return f"its weights are numbers, its activations overflow; {ADVICE['fp16']}"
    what = (
        "its activations overflow"
        if broken is None
        else f"its trained weights are not numbers: {broken}"
    )
    return f"{what}; train it again: {ADVICE['diverged']}"


def frozen_fault(model: nn.Module, *, every: bool = False) -> str | None:
    """What is wrong with weights that no training has moved, and what to do; None where nothing is.

    Args:
        every: whether none has been moved.
    """
    own = {n: v for n, v in model.named_parameters() if every or not v.requires_grad}
    broken = _first_broken(own.items())
    if broken is None:
        return None
    return f"weights that are not trained are not numbers: {broken}; {ADVICE['not finite']}"
