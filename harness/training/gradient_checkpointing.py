"""Gradient checkpointing: each decoder layer is computed again in the backward pass.

Of a layer's activations its input alone is kept (Chen et al., 2016, arXiv 1604.06174, with a
segment per layer), for about a third more computation. Gradients keep their bits.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from harness.methods.row_dropout import current_dropout, dropout_rng
from harness.models.packed_attention import using_attention


@contextlib.contextmanager
def recomputed_layers(base: Any) -> Iterator[None]:
    """Makes the layers that train inside keep their inputs alone until the backward pass.

    Not transformers' own switch: it drops the cache that prefix-tuning's keys come in, PEFT refuses
    it there, and neither puts back the attention or the dropout masks of the pass, since a backward
    pass runs outside of it (on CUDA in another thread).

    Args:
        base: the causal language model without PEFT's wrapper.
    """
    layers = list(base.get_decoder().layers)
    # `forward`, not the module: hooks, such as those by which FSDP2 gathers a layer, stay outside
    # and run once. It may be a function on the instance, put there by accelerate.
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = functools.partial(_forward, base, layer, layer.forward)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def _forward(base: Any, layer: Any, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    attention, key = base.config._attn_implementation, current_dropout()

    def run(*args: Any, **kwargs: Any) -> Any:
        if (cache := kwargs.get("past_key_values")) is not None:
            kwargs["past_key_values"] = _copied(cache)
        with using_attention(base, attention), dropout_rng(key):
            return forward(*args, **kwargs)

    return checkpoint(run, *args, use_reentrant=False, **kwargs)


def _copied(cache: Any) -> Any:
    """A cache of the same tensors: a layer adds its keys and values to it each time it runs."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied
