"""Computes prompts, and continues them by continuous batching: sequences gain a token at each step,
and join and leave while others stay.

Prompts are computed side by side up to their last token's logits; what many of them begin with is
computed once.

Shapes: B prompts or sequences, T tokens of the longest prompt behind the prefix, P tokens of the
prefix, W columns in use, C columns in memory, V vocabulary, G key and value heads, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from harness.data.prefixes import common_prefix_length
from harness.evaluation.prefix_trie.forward import (
    KeyValues,
    PicturesOf,
    PrefixCacheLayer,
    attention_bias,
    logits_at,
    no_pictures,
    takes_bias,
)
from harness.evaluation.trial import attention_window
from harness.models.fused_inference import FusedInference
from harness.models.pictures import PassPictures, using_pictures

SLACK = 64
"""Columns beyond those in use: so many steps go without copying what is there."""


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
    """Logits of the token after each prompt."""
    layers: list[KeyValues]
    """Keys and values, (B, G, P + T, d) each; columns behind a prompt's length mean nothing."""
    lengths: list[int]
    """Tokens of each prompt, prefix included."""
    pictures: Sequence[str | None]
    """The picture of each."""


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
def compute_prefix(
    model: Any, tokens: tuple[int, ...], pictures: PassPictures | None = None
) -> Prefix:
    """The computed prefix of prompts, which all have one picture, or none."""
    none = Prefix((), [])
    return Prefix(tokens, _run(model, [tokens], none, pictures)[1]) if tokens else none


@torch.no_grad()
def prefill_prompts(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    prefix: Prefix,
    pictures: Sequence[str | None] | None = None,
    pictures_of: PicturesOf = no_pictures,
) -> Prefilled:
    """Prompts, computed side by side; each begins with the prefix and continues behind it.

    Args:
        pictures: each prompt's; the prefix was computed under the same. None where none has any.
        pictures_of: the pictures of a pass.
    """
    pictures = [None] * len(prompts) if pictures is None else pictures
    tails = [prompt[len(prefix.tokens) :] for prompt in prompts]
    logits_BV, layers = _run(model, tails, prefix, pictures_of(pictures))
    return Prefilled(logits_BV, layers, [len(prompt) for prompt in prompts], pictures)


def _run(
    model: Any, rows: Sequence[tuple[int, ...]], prefix: Prefix, pictures: PassPictures | None
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
    at_last = logits_at(model, torch.tensor(last_B, device=device))
    with at_last, using_pictures(pictures), FusedInference(model)():
        logits = model(
            input_ids=tokens_BT,
            position_ids=positions_1T.expand(len(rows), -1),
            past_key_values=Cache(layers=list(layers)),
            use_cache=True,
        ).logits
    kept = [layer.kept for layer in layers if layer.kept is not None]
    return logits.flatten(0, 1)[: len(rows)], kept


class _PoolLayer(DynamicLayer):
    """Keys and values of one layer in memory that is larger than what is in use."""

    def __init__(self, keys_BGCd: Tensor, values_BGCd: Tensor, width: int) -> None:
        super().__init__()
        self.keys, self.values = keys_BGCd, values_BGCd
        self.width = width
        self.dtype, self.device, self.is_initialized = keys_BGCd.dtype, keys_BGCd.device, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Puts a step's keys and values behind the others, and returns all, (B, G, W + 1, d)."""
        assert self.keys is not None
        assert self.values is not None
        end = self.width + key_states.shape[2]
        self.keys[:, :, self.width : end] = key_states
        self.values[:, :, self.width : end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """Returns W."""
        return self.width


class Pool:
    """Sequences of different lengths, aligned at their last token.

    So a step adds one column to all of them, and what lies before a sequence is masked. Within a
    sequence the distance of two columns is that of their positions, as sliding windows need it.

    Attributes:
        lengths: tokens of each sequence, as far as they are computed.
        pictures: each sequence's.
    """

    def __init__(self, model: Any, pictures_of: PicturesOf = no_pictures) -> None:
        self._model, self._pictures_of = model, pictures_of
        self._fused = FusedInference(model)
        self._takes_bias = takes_bias(model) and attention_window(model) is None
        self._bias_B11C: Tensor | None = None
        self._layers: list[_PoolLayer] = []
        self._width = 0
        self.lengths: list[int] = []
        self.pictures: list[str | None] = []
        self._shown: PassPictures | None = None

    @torch.no_grad()
    def arrange(
        self, kept: Sequence[int], joining: Sequence[tuple[Prefilled, Sequence[int]]] = ()
    ) -> None:
        """Keeps some sequences, by number and in this order, and puts computed prompts behind them.

        `joining` has computed prompts, each with the numbers of those that join.
        """
        lengths = [self.lengths[number] for number in kept]
        pictures = [self.pictures[number] for number in kept]
        for prefilled, chosen in joining:
            lengths += [prefilled.lengths[number] for number in chosen]
            pictures += [prefilled.pictures[number] for number in chosen]
        self.pictures, self._shown = pictures, self._pictures_of(pictures)
        if not lengths:
            self._layers, self._width, self.lengths = [], 0, []
            return
        width, device = max(lengths), self._model.device
        staying = min(width, self._width)
        kept_K = torch.tensor(list(kept), dtype=torch.long, device=device)

        def moved(layer: int, part: int) -> Tensor:
            pieces_BGSd = []
            if kept:
                old_BGCd = (self._layers[layer].keys, self._layers[layer].values)[part]
                assert old_BGCd is not None
                pieces_BGSd.append(old_BGCd[:, :, self._width - staying : self._width][kept_K])
            for prefilled, chosen in joining:
                if chosen:
                    pieces_BGSd.append(_aligned(prefilled, prefilled.layers[layer][part], chosen))
            # Zeros: what is masked must still be a number.
            return torch.cat([pad(one, (0, 0, width - one.shape[2], SLACK)) for one in pieces_BGSd])

        layers = range(len(self._layers) if kept else len(joining[0][0].layers))
        self._layers = [_PoolLayer(moved(layer, 0), moved(layer, 1), width) for layer in layers]
        self._width, self.lengths, self._bias_B11C = width, lengths, None
        if self._takes_bias and min(lengths) < width:
            # Sequences begin where they do until the next time: it serves all steps till then.
            starts = np.array([[width - length] for length in lengths])
            seen_B11C = torch.from_numpy(np.arange(width + SLACK) >= starts)[:, None, None]
            self._bias_B11C = attention_bias(self._model, seen_B11C.to(device))

    @torch.no_grad()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Puts a token behind each sequence, and returns the logits (B, V) of the next."""
        assert self._layers[0].keys is not None
        if self._width == self._layers[0].keys.shape[2]:
            self.arrange(range(len(self.lengths)))
        inputs_2B = torch.tensor([tokens, self.lengths]).to(self._model.device)  # one copy
        tokens_B1, lengths_B1 = inputs_2B[:, :, None]
        with using_pictures(self._shown), self._fused():
            logits = self._model(
                input_ids=tokens_B1,
                position_ids=lengths_B1,
                attention_mask=self._mask(lengths_B1),
                past_key_values=Cache(layers=list(self._layers)),
                use_cache=True,
            ).logits
        self._width += 1
        for layer in self._layers:
            layer.width = self._width
        self.lengths = [length + 1 for length in self.lengths]
        return logits[:, -1]

    def _mask(self, lengths_B1: Tensor) -> Tensor | None:
        """What hides the columns before each sequence in a step; None where there are none."""
        if min(self.lengths) == self._width:
            return None
        if self._bias_B11C is not None:
            return self._bias_B11C[..., : self._width + 1]
        columns_W = torch.arange(self._width + 1, device=lengths_B1.device)
        return (columns_W >= self._width - lengths_B1).long()


def _aligned(prefilled: Prefilled, states_NGSd: Tensor, chosen: Sequence[int]) -> Tensor:
    """The states of some prompts, moved so that each ends at the last column."""
    lengths = [prefilled.lengths[number] for number in chosen]
    width, device = max(lengths), states_NGSd.device
    starts_N1 = width - torch.tensor(lengths, device=device)[:, None]
    columns_NW = (torch.arange(width, device=device) - starts_N1).clamp(min=0)
    states_NGSd = states_NGSd[torch.tensor(list(chosen), device=device)]
    count, heads, _, size = states_NGSd.shape
    return states_NGSd.gather(2, columns_NW[:, None, :, None].expand(count, heads, width, size))
