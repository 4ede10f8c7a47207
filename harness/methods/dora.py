"""DoRA (Liu et al., 2024, arXiv 2402.09353) through stock PEFT."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from harness.methods.lora import LoraOptions, apply_lora, count_lora, lora_workload
from harness.methods.method import Method, Workload
from harness.methods.targets import LLAMA_LINEAR, Targets, target_sizes
from harness.models.shape import ModelShape

DORA_ALPACA: dict[str, object] = {
    "epochs": 1,
    "batch_size": 16,
    "learning_rate": 4e-4,
    "warmup_ratio": 0.1,
    "max_length": 512,
}
"""DoRA's table 11: LLaMA-7B on cleaned Alpaca, batches of 4 times 4 accumulated, half a cosine.
It gives no length; 512 is that of the paper's methods [choice]."""


class DoraOptions(LoraOptions):
    """DoRA (Liu et al., 2024, arXiv 2402.09353): LoRA of the directions, and trained magnitudes.

    Defaults: its table 11, LLaMA-7B on cleaned Alpaca. That table gives no alpha; 16 is that of
    QLoRA (arXiv 2305.14314), whose rank of 64 it takes [choice].
    """

    rank: Annotated[int, Field(ge=1)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Targets = LLAMA_LINEAR


def count_dora(shape: ModelShape, options: DoraOptions) -> int:
    """LoRA's parameters, and a magnitude per output of each target.

    Raises:
        MethodError: the rank is higher than a target's own, or the model has no such target.
    """
    outputs = sum(size[1] for size in target_sizes(shape, options.targets))
    return count_lora(shape, options) + shape.num_hidden_layers * outputs


def dora_workload(shape: ModelShape, options: DoraOptions) -> Workload:
    """LoRA's; of each target two outputs are kept, the base's and LoRA's, for the magnitudes.

    The norm of a target's weights with the added product takes three matrices of its size in fp32.
    """
    sizes = target_sizes(shape, options.targets)
    outputs = shape.num_hidden_layers * sum(size[1] for size in sizes)
    work = lora_workload(shape, options)
    return replace(
        work,
        kept_values=work.kept_values + 2 * outputs,
        transient_bytes=3 * 4.0 * max(size[0] * size[1] for size in sizes),
    )


DORA = Method(
    name="dora",
    title="DoRA",
    options=DoraOptions,
    recipe=DORA_ALPACA,
    apply=functools.partial(apply_lora, use_dora=True),
    count_parameters=count_dora,
    workload=dora_workload,
)
