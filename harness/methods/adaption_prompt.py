"""PEFT's own variant of LLaMA-Adapter, which is neither its paper's method nor one of zbench's.

What differs (PEFT's tuners/adaption_prompt/layer.py): one gate per layer where the paper has one
per head, and no tanh on it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import MethodError
from harness.methods.method import Method, Workload
from harness.methods.zero_init.options import PAPER_PROMPTS, PromptOptions, prompt_workload
from harness.models.adapters import insert_adapter
from harness.models.shape import ModelShape, shape_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

FAMILIES = ("llama", "mistral")
"""Decoders with rotary embeddings that PEFT's code handles."""


class AdaptionPromptOptions(PromptOptions):
    """LLaMA-Adapter's settings (Zhang et al., 2024, arXiv 2303.16199): 10 rows, 30 of 32 layers."""


def apply_adaption_prompt(
    model: PreTrainedModel, options: AdaptionPromptOptions, seed: int
) -> PeftModel:
    """Freezes the model, inserts PEFT's gated prompts into its last layers, and wraps it.

    Raises:
        MethodError: PEFT's code does not handle the model, or it has too few layers.
    """
    from peft import AdaptionPromptConfig

    shape = shape_of(model.config)
    check_family(shape)
    layers = options.adapted_layers(shape)
    config = AdaptionPromptConfig(adapter_len=options.prompt_length, adapter_layers=len(layers))
    adapted = insert_adapter(model, config, seed)
    draw_prompts(adapted, seed)
    return adapted


def draw_prompts(adapted: PeftModel, seed: int) -> None:
    """Draws the prompts of PEFT's variant again, on the CPU, so that one seed gives one start.

    PEFT draws in the base's precision and on its device.
    """
    import torch

    random = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if name.endswith(".adaption_prompt"):
            rows = torch.randn(parameter.shape, generator=random, device="cpu")
            parameter.data = rows.to(parameter.device)


def count_adaption_prompt(shape: ModelShape, options: AdaptionPromptOptions) -> int:
    """A prompt and one gate per adapted layer.

    Raises:
        MethodError: PEFT's code does not handle the model, or it has too few layers.
    """
    check_family(shape)
    layers = len(options.adapted_layers(shape))
    return layers * (options.prompt_length * shape.hidden_size + 1)


def check_family(shape: ModelShape) -> None:
    """Refuses a model that PEFT's code does not handle.

    Raises:
        MethodError: it does not.
    """
    if shape.model_type not in FAMILIES:
        raise MethodError(
            f"adaption-prompt: PEFT's variant is written for {' and '.join(FAMILIES)}; this model "
            f"is of type {shape.model_type}; take zero-init-linear"
        )
    if shape.query_size != shape.hidden_size:
        # PEFT finds the number of key heads from sizes, as if heads added up to the hidden size.
        raise MethodError(
            f"adaption-prompt: PEFT's variant takes heads that add up to the hidden size; this "
            f"model has {shape.num_attention_heads} of {shape.head_size}, hidden size "
            f"{shape.hidden_size}; take zero-init-linear"
        )


def adaption_prompt_workload(shape: ModelShape, options: AdaptionPromptOptions) -> Workload:
    """The prompt workload's; the queries are projected again, and what the prompt gives as well;
    queries and scores are kept.

    Of a score are kept the softmax in fp32 and, in the compute precision, what goes in and out.
    """
    work = prompt_workload(shape, options)
    assert work.adapted_layers is not None
    scores = work.adapted_layers * shape.num_attention_heads * options.prompt_length
    return replace(
        work,
        frozen_weights=2 * work.adapted_layers * shape.hidden_size * shape.query_size,
        kept_values=work.adapted_layers * shape.query_size + 2 * scores,
        kept_floats=2 * scores,
        kept_by_sequence=0,
    )


ADAPTION_PROMPT = Method(
    name="adaption-prompt",
    title="LLaMA-Adapter (PEFT variant)",
    options=AdaptionPromptOptions,
    recipe=PAPER_PROMPTS,
    apply=apply_adaption_prompt,
    count_parameters=count_adaption_prompt,
    workload=adaption_prompt_workload,
)
