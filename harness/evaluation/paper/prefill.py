"""Computes prompts up to their last token's logits; what many prompts begin with is computed once.

Shapes: B prompts, T tokens of the longest one behind the prefix, P tokens of the prefix, V
vocabulary, G key and value heads, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from harness.data.prefixes import common_prefix_length
from harness.evaluation.prefix_trie.forward import KeyValues, PrefixCacheLayer, logits_at


@dataclass(frozen=True)
class Prefix:
    """Tokens that several prompts begin with, computed."""

    tokens: tuple[int, ...]
    layers: list[KeyValues]
    """Keys and values, (1, G, P, d) each; empty where P = 0."""


@dataclass(frozen=True)
class Prefilled:
    """Prompts, computed."""

    logits_BV: Tensor
    """Of the token after each."""
    layers: list[KeyValues]
    """Keys and values, (B, G, P + T, d) each; columns behind a prompt's length mean nothing."""
    lengths: list[int]
    """Tokens of each prompt, prefix included."""


class _PromptLayer(PrefixCacheLayer):
    """Tells the model how long the prefix is."""

    def get_seq_length(self) -> int:
        """Returns P."""
        return 0 if self._prefix is None else self._prefix[0].shape[2]


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all prompts begin with, less than the whole of any; () for a single one."""
    if len(prompts) < 2:
        return ()
    first, last = min(prompts), max(prompts)  # what these two share, all between them do
    shortest = min(len(prompt) for prompt in prompts)
    return first[: max(0, min(common_prefix_length(first, last), shortest - 1))]


@torch.no_grad()
def compute_prefix(model: Any, tokens: tuple[int, ...]) -> Prefix:
    """The computed prefix of prompts."""
    none = Prefix((), [])
    return Prefix(tokens, _run(model, [tokens], none)[1]) if tokens else none


@torch.no_grad()
def prefill_prompts(model: Any, prompts: Sequence[tuple[int, ...]], prefix: Prefix) -> Prefilled:
    """Prompts, computed side by side; each begins with the prefix and continues behind it."""
    tails = [prompt[len(prefix.tokens) :] for prompt in prompts]
    logits_BV, layers = _run(model, tails, prefix)
    return Prefilled(logits_BV, layers, [len(prompt) for prompt in prompts])


def _run(
    model: Any, rows: Sequence[tuple[int, ...]], prefix: Prefix
) -> tuple[Tensor, list[KeyValues]]:
    """The logits of each row's last token, and the layers' keys and values."""
    device, width, start = model.device, max(map(len, rows)), len(prefix.tokens)
    # Padding stands behind, where no token of the row sees it: no mask is needed.
    tokens_BT = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    last_B = [number * width + len(row) - 1 for number, row in enumerate(rows)]
    count = model.config.get_text_config().num_hidden_layers
    before: Sequence[KeyValues | None] = prefix.layers or [None] * count
    layers = [_PromptLayer(layer, keep=True) for layer in before]
    positions_1T = torch.arange(start, start + width, device=device)[None]
    with logits_at(model, torch.tensor(last_B, device=device)):
        logits = model(
            input_ids=tokens_BT,
            position_ids=positions_1T.expand(len(rows), -1),
            past_key_values=Cache(layers=list(layers)),
            use_cache=True,
        ).logits
    kept = [layer.kept for layer in layers if layer.kept is not None]
    return logits.flatten(0, 1)[: len(rows)], kept
