"""Sequences that go on side by side, a token at each step; they come and go while others stay.

Shapes: B sequences, W columns in use, C columns in memory, V vocabulary, G key and value heads, d
head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from harness.evaluation.paper.prefill import Filled
from harness.evaluation.trie_forward import Layer

SLACK = 64
"""Columns beyond those in use: so many steps go without copying what is there."""


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

    Args:
        model: a causal language model in evaluation mode.

    Attributes:
        lengths: tokens of each sequence, as far as they are computed.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers: list[_PoolLayer] = []
        self._width = 0
        self.lengths: list[int] = []

    @torch.no_grad()
    def arrange(self, kept: Sequence[int], filled: Filled | None, chosen: Sequence[int]) -> None:
        """Keeps some sequences, in this order, and puts computed prompts behind them.

        Args:
            kept: numbers of sequences that stay.
            filled: computed prompts; None for none.
            chosen: numbers of those prompts that join.
        """
        joining = [] if filled is None else [filled.lengths[number] for number in chosen]
        lengths = [self.lengths[number] for number in kept] + joining
        if not lengths:
            self._layers, self._width, self.lengths = [], 0, []
            return
        width, device = max(lengths), self._model.device
        kept_K = torch.tensor(list(kept), dtype=torch.long, device=device)
        chosen_N = torch.tensor(list(chosen), dtype=torch.long, device=device)
        staying = min(width, self._width)

        def moved(old_BGCd: Tensor | None, new_BGSd: Tensor | None) -> Tensor:
            like = old_BGCd if new_BGSd is None else new_BGSd
            assert like is not None
            # Zeros: what is masked must still be a number.
            shape = (len(lengths), like.shape[1], width + SLACK, like.shape[3])
            into_BGCd = like.new_zeros(shape)
            if kept and old_BGCd is not None:
                columns_KGSd = old_BGCd[:, :, self._width - staying : self._width]
                into_BGCd[: len(kept), :, width - staying : width] = columns_KGSd[kept_K]
            if joining and new_BGSd is not None:
                into_BGCd[len(kept) :, :, :width] = _aligned(new_BGSd[chosen_N], joining, width)
            return into_BGCd

        old: list[Layer | None] = [(layer.keys, layer.values) for layer in self._layers]  # type: ignore[misc]  # initialised
        new: list[Layer | None] = [] if filled is None else list(filled.layers)
        count = max(len(old), len(new))
        pairs = zip(old or [None] * count, new or [None] * count, strict=True)
        self._layers = [
            _PoolLayer(
                *(moved(before and before[part], after and after[part]) for part in (0, 1)),
                width=width,
            )
            for before, after in pairs
        ]
        self._width, self.lengths = width, lengths

    @torch.no_grad()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Puts a token behind each sequence, and returns the logits (B, V) of the next."""
        assert self._layers[0].keys is not None
        if self._width == self._layers[0].keys.shape[2]:
            self.arrange(list(range(len(self.lengths))), None, [])
        device = self._model.device
        lengths_B1 = torch.tensor(self.lengths, device=device)[:, None]
        mask_BW = None
        if min(self.lengths) < self._width:
            columns_W = torch.arange(self._width + 1, device=device)
            mask_BW = (columns_W >= self._width - lengths_B1).long()
        logits = self._model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            position_ids=lengths_B1,
            attention_mask=mask_BW,
            past_key_values=Cache(layers=list(self._layers)),
            use_cache=True,
        ).logits
        self._width += 1
        for layer in self._layers:
            layer.width = self._width
        self.lengths = [length + 1 for length in self.lengths]
        return logits[:, -1]


def _aligned(states_NGSd: Tensor, lengths: Sequence[int], width: int) -> Tensor:
    """Returns states whose first columns count, moved so that they end at the last of `width`."""
    device = states_NGSd.device
    starts_N1 = width - torch.tensor(lengths, device=device)[:, None]
    columns_NW = (torch.arange(width, device=device) - starts_N1).clamp(min=0)
    count, heads, _, size = states_NGSd.shape
    return states_NGSd.gather(2, columns_NW[:, None, :, None].expand(count, heads, width, size))
