"""Tiny random models of the Llama architecture for the tests of the methods."""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.checkpoint import shape_of
from harness.methods import METHODS
from harness.models import trained_parameters
from harness.shape import ModelShape

VOCABULARY = 61
NUM_LAYERS = 4
HEADS = {
    "multi-head": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "grouped-query": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "wide-heads": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12},
}
"""The third has heads whose sizes do not add up to the hidden size."""
PROMPT_METHODS = ("random-init", "zero-init-linear", "zero-init-nonlinear")
ZERO_INIT_METHODS = ("zero-init-linear", "zero-init-nonlinear")


def tiny_config(heads: str = "grouped-query", **sizes: int) -> LlamaConfig:
    """Returns the configuration of a model with 4 layers of size 32, unless `sizes` differ."""
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": NUM_LAYERS,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return LlamaConfig(**(settings | HEADS[heads] | sizes))


def tiny_model(
    heads: str = "grouped-query", *, dtype: torch.dtype = torch.float32, **sizes: int
) -> LlamaForCausalLM:
    """Returns a model with weights of a fixed seed, large enough to make attention uneven."""
    model = LlamaForCausalLM(tiny_config(heads, **sizes))
    random = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=random)
    return model.to(dtype).eval()


def adapted(name: str, model: LlamaForCausalLM, *, seed: int = 5, **options: object) -> nn.Module:
    """Returns the model with a method applied."""
    method = METHODS[name]
    return method.apply(model, method.options.model_validate(options), seed)


def stir(model: nn.Module, *, seed: int = 7) -> nn.Module:
    """Gives trained tensors new values, as if training had moved them far.

    What they make (prompts, gates) is then of order one.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            is_matrix = name.endswith("weight") and parameter.ndim == 2
            scale = parameter.shape[1] ** -0.5 if is_matrix else 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random))
    return model


def shape(heads: str = "grouped-query") -> ModelShape:
    """Returns the tiny model's shape."""
    return shape_of(tiny_config(heads))


def token_ids(batch: int = 3, length: int = 12, *, seed: int = 3) -> torch.Tensor:
    """Returns random token ids without special ones, (batch, length)."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=random)


def padding_mask(side: str, lengths: tuple[int, ...], length: int) -> torch.Tensor:
    """Returns the 2-D mask of sequences padded on one side, (batch, length)."""
    places = torch.arange(length)[None]
    sizes = torch.tensor(lengths)[:, None]
    return (places < sizes if side == "right" else places >= length - sizes).long()
