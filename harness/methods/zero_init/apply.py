"""TODO: say what this is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.zero_init.options import (
    GatedPromptOptions,
    GeneratedPromptOptions,
    PromptOptions,
)

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def apply_random_init(model: PreTrainedModel, options: PromptOptions, seed: int) -> PeftModel:
    """Freezes the model and gives its last layers prompts in one softmax with the words.

    Raises:
        MethodError: the model or its attention implementation is not supported, or too shallow.
    """
    return _insert_prompts("random-init", model, options, seed)


def apply_zero_init_linear(
    model: PreTrainedModel, options: GatedPromptOptions, seed: int
) -> PeftModel:
    """Freezes the model and gives its last layers free prompts behind zero gates.

    Raises:
        MethodError: the model or its attention implementation is not supported, or too shallow.
    """
    return _insert_prompts("zero-init-linear", model, options, seed)


def apply_zero_init_nonlinear(
    model: PreTrainedModel, options: GeneratedPromptOptions, seed: int
) -> PeftModel:
    """Freezes the model and gives its last layers generated prompts behind zero gates.

    Raises:
        MethodError: the model or its attention implementation is not supported, or too shallow.
    """
    return _insert_prompts("zero-init-nonlinear", model, options, seed)


def _insert_prompts(
    method: str, model: PreTrainedModel, options: PromptOptions, seed: int
) -> PeftModel:
    from harness.methods.zero_init.tuner import PromptConfig, check_attention
    from harness.models.adapters import insert_adapter

    check_attention(model)
    config = PromptConfig(
        method=method, options=options.model_dump(), seed=seed, task_type="CAUSAL_LM"
    )
    return insert_adapter(model, config, seed)
