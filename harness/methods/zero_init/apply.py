"""Inserts the prompts of any of the paper's methods into a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.zero_init.options import PROMPT_METHODS, PromptOptions

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def apply_prompts(model: PreTrainedModel, options: PromptOptions, seed: int) -> PeftModel:
    """Freezes the model, inserts prompts into its last layers, and wraps it.

    Args:
        model: changed in place.
        options: of the class that belongs to the method.
        seed: of the initial values.

    Raises:
        MethodError: the model or its attention implementation is not supported, or too shallow.
    """
    from harness.methods.zero_init.tuner import PromptConfig, check_attention
    from harness.models.adapters import insert_adapter

    check_attention(model)
    (method,) = (name for name, kind in PROMPT_METHODS.items() if kind is type(options))
    config = PromptConfig(
        method=method, options=options.model_dump(), seed=seed, task_type="CAUSAL_LM"
    )
    return insert_adapter(model, config, seed)
