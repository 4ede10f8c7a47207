"""The paper's three prompt methods (arXiv 2502.03029); the formulas are in `attention.py`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from harness.errors import MethodError
from harness.methods.method import Method
from harness.methods.zero_init.options import (
    PAPER_PROMPTS,
    PROMPT_METHODS,
    GatedPromptOptions,
    GeneratedPromptOptions,
    PromptOptions,
    count_prompts,
    prompt_workload,
)
from harness.methods.zero_init.telemetry import PromptTelemetry, gate_statistics

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def apply_prompts(model: PreTrainedModel, options: PromptOptions, seed: int) -> PeftModel:
    """Freezes the model, inserts prompts into its last layers, and wraps it.

    The class of the options says which method it is.

    Raises:
        MethodError: the model or its attention is not supported, too shallow, or carries prompts.
    """
    from harness.methods.zero_init.attention import PROMPT_ATTENTION_PREFIX
    from harness.methods.zero_init.tuner import PromptConfig, check_attention
    from harness.models.adapters import insert_adapter

    if model.config._attn_implementation.startswith(PROMPT_ATTENTION_PREFIX):
        raise MethodError("this model carries prompts already; apply a method to a fresh base")
    check_attention(model)
    (method,) = (name for name, kind in PROMPT_METHODS.items() if kind is type(options))
    config = PromptConfig(
        method=method, options=options.model_dump(), seed=seed, task_type="CAUSAL_LM"
    )
    return insert_adapter(model, config, seed)


_prompts = functools.partial(
    Method,
    recipe=PAPER_PROMPTS,
    apply=apply_prompts,
    count_parameters=count_prompts,
    workload=prompt_workload,
    telemetry=PromptTelemetry,
)
_gated = functools.partial(_prompts, statistics=gate_statistics)
PAPER_METHODS = (
    _prompts("random-init", "Random-init", PromptOptions),
    _gated("zero-init-linear", "Zero-init + linear", GatedPromptOptions),
    _gated("zero-init-nonlinear", "Zero-init + non-linear", GeneratedPromptOptions),
)
