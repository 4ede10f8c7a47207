"""A tiny random LLaMA and examples of random tokens, for tests of training."""

from __future__ import annotations

import random

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.data import Example
from harness.methods import METHODS

VOCAB_SIZE = 96
TRAINED = [name for name, method in METHODS.items() if method.trains]
OPTIONS: dict[str, dict[str, object]] = {
    "lora": {"dropout": 0.0},
    "dora": {"dropout": 0.0, "rank": 8},
}
"""Without dropout, whose draws depend on the micro-batches, and of ranks that so small a model can
have."""


def tiny_llama(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Returns the same four-layer model at every call; two key-value heads for four heads."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).to(dtype).eval()


def adapted(
    name: str, *, dtype: torch.dtype = torch.float32, moved: bool = False, **options: object
) -> PreTrainedModel:
    """Returns the tiny model under a method.

    Args:
        name: of the method.
        dtype: of the base.
        moved: whether trained tensors are moved off their start, where many gradients are zero.
        **options: the method's.
    """
    method = METHODS[name]
    chosen = method.options.model_validate(OPTIONS.get(name, {}) | options)
    model = method.apply(tiny_llama(dtype), chosen, 0)
    if moved:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def random_examples(count: int, seed: int = 0) -> list[Example]:
    """Returns examples of 6 to 29 tokens, of which 2 to 5 are the prompt."""
    draw = random.Random(seed)
    return [
        Example(
            tuple(draw.randrange(VOCAB_SIZE) for _ in range(draw.randrange(6, 30))),
            draw.randrange(2, 6),
        )
        for _ in range(count)
    ]


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns copies of the trained tensors by name."""
    named = model.named_parameters()
    return {name: value.detach().clone() for name, value in named if value.requires_grad}


def relative_distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns |found - expected| / |expected|, Euclidean."""
    return ((found - expected).norm() / expected.norm().clamp(min=1e-30)).item()
