"""Full fine-tuning, which trains every parameter, and the base model, which trains none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.method import Method, MethodOptions, Workload
from harness.models.shape import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel


STANFORD_ALPACA: dict[str, object] = {
    "epochs": 3,
    "batch_size": 128,
    "learning_rate": 2e-5,
    "warmup_ratio": 0.03,
    "max_gradient_norm": 1.0,
    "max_length": 512,
}
"""Stanford Alpaca's recipe for full fine-tuning (github.com/tatsu-lab/stanford_alpaca); the norm
of 1 is the default of the transformers Trainer that it runs on."""


def apply_full(model: PreTrainedModel, options: MethodOptions, seed: int) -> PreTrainedModel:
    """Makes every parameter trainable, in fp32.

    Trained tensors are fp32 in every method, so a bf16 base becomes fp32 here: AdamW's steps at
    2e-5 are smaller than bf16 can resolve. Training and evaluation in bf16 run it under autocast.
    """
    return model.float().requires_grad_(True)


def apply_full_before_sharding(
    model: PreTrainedModel, options: MethodOptions, seed: int
) -> PreTrainedModel:
    """Makes every parameter trainable, and leaves fp32 to the shards: whole, it would be twice as
    large as a bf16 base on every device."""
    return model.requires_grad_(True)


def count_full(shape: ModelShape, options: MethodOptions) -> int:
    """The parameters of the whole model."""
    return shape.num_parameters


def full_workload(shape: ModelShape, options: MethodOptions) -> Workload:
    """Every weight of the model has a gradient."""
    return Workload(trains_base=True)


FULL = Method(
    name="full",
    title="Full fine-tuning",
    options=MethodOptions,
    recipe=STANFORD_ALPACA,
    apply=apply_full,
    apply_before_sharding=apply_full_before_sharding,
    count_parameters=count_full,
    workload=full_workload,
)


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
