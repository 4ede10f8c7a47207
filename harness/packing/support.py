"""Which models can be trained on packed rows, and which may share what sequences begin with."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from harness.families import FAMILIES
from harness.methods.row_dropout import RowDropout
from harness.methods.zero_init_attention import PREFIX as PROMPTS_PREFIX


def packing_refusal(model: Any) -> str | None:
    """Returns why a model is trained on padded batches instead; None where it need not be."""
    config = getattr(model, "active_peft_config", None)
    if config is not None and config.is_prompt_learning:
        return "its virtual tokens stand before the words of each sequence"
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base.config.model_type not in FAMILIES:
        return f"the attention of {base.config.model_type} has not been checked"
    implementation = str(base.config._attn_implementation)
    if implementation not in ("sdpa", "eager") and not implementation.startswith(PROMPTS_PREFIX):
        return f"the attention implementation {implementation} has not been checked"
    if getattr(base.config, "attention_dropout", 0):
        return "its attention has dropout, whose draws would depend on the layout"
    return None


def shares_openings(model: nn.Module) -> bool:
    """Returns whether equal beginnings of sequences have equal states: not under dropout."""
    return not any(
        isinstance(module, RowDropout | _DropoutNd) and module.training and module.p > 0
        for module in model.modules()
    )
