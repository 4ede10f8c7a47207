"""The base model as it is: nothing is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.method import Method, MethodOptions
from harness.models.shape import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply_nothing(model: PreTrainedModel, options: MethodOptions, seed: int) -> PreTrainedModel:
    """Freezes the whole model."""
    return model.requires_grad_(False)


def count_nothing(shape: ModelShape, options: MethodOptions) -> int:
    """None are trained."""
    return 0


BASE = Method(
    name="base",
    title="Base model",
    options=MethodOptions,
    recipe={},
    apply=apply_nothing,
    count_parameters=count_nothing,
    trains=False,
)
