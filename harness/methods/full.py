"""Full fine-tuning: every parameter is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.method import MethodOptions
from harness.shape import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def apply_full(model: PreTrainedModel, options: MethodOptions, seed: int) -> PreTrainedModel:
    """Makes every parameter trainable and returns the model.

    Trained tensors are fp32 in every method, so a bf16 base becomes fp32 here: AdamW's steps at
    2e-5 are smaller than bf16 can resolve. Training and evaluation in bf16 run it under autocast.
    """
    return model.float().requires_grad_(True)


def count_full(shape: ModelShape, options: MethodOptions) -> int:
    """Returns the number of parameters of the whole model."""
    return shape.num_parameters
