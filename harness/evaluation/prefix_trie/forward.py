"""Runs rows of the trie through a causal language model, up to the logits that are asked for.

Shapes: B lanes, T tokens of a lane, P tokens of its prefixes, L = P + T, N positions that are asked
for, V vocabulary, G key and value heads, d head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from harness.evaluation.prefix_trie.batches import Lane
from harness.evaluation.prefix_trie.trie import Row

Layer = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (B, G, P, d)."""
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Prefixes:
    """Computed keys and values of rows, which other rows continue."""

    rows: tuple[Row, ...]
    layers: list[Layer]
    seen_BP: Tensor
    """Which of the columns are tokens; the others are padding."""

    def select(self, rows: Sequence[Row]) -> Prefixes:
        """Returns the prefixes of some rows, in their order; one where they are the same."""
        numbers = {row: number for number, row in enumerate(self.rows)}
        index = [numbers[row] for row in (rows[:1] if len(set(rows)) == 1 else rows)]
        if index == list(range(len(self.rows))):
            return self
        index_B = torch.tensor(index, device=self.seen_BP.device)
        layers = [(keys[index_B], values[index_B]) for keys, values in self.layers]
        return Prefixes(tuple(rows), layers, self.seen_BP[index_B])


class PrefixLayer(DynamicLayer):
    """Puts the keys and values of prefixes in front of those that a layer computes.

    Unlike transformers' own it holds nothing new unless asked to: most keys are read once.
    """

    def __init__(self, prefix: Layer | None, *, keep: bool) -> None:
        super().__init__()
        self._prefix = prefix
        self._keep = keep
        self.kept: Layer | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Returns all keys and values, (B, G, L, d)."""
        if self._prefix is not None:
            batch = len(key_states)
            keys, values = (states.expand(batch, -1, -1, -1) for states in self._prefix)
            key_states = torch.cat([keys, key_states], dim=2)
            value_states = torch.cat([values, value_states], dim=2)
        if self._keep:
            self.kept = key_states, value_states
        return key_states, value_states


class TrieForward:
    """A model that computes rows.

    Args:
        model: a causal language model in evaluation mode.
        autocast: gives the context of each forward pass.

    Attributes:
        device: where the model is.
        width: the model's hidden size.
    """

    def __init__(
        self, model: Any, autocast: Callable[[], contextlib.AbstractContextManager[Any]]
    ) -> None:
        self._model = model
        self._autocast = autocast
        self.device: torch.device = model.device
        config = model.config.get_text_config()
        self._num_layers: int = config.num_hidden_layers
        self.width: int = config.hidden_size
        # SDPA takes True for "is seen"; what is not known to is given a mask to add.
        self._additive_mask = "sdpa" not in model.config._attn_implementation

    @torch.no_grad()
    def logits(self, lanes: Sequence[Lane], prefixes: Prefixes | None, wanted_N: Indices) -> Tensor:
        """Returns the logits (N, V) at positions `wanted_N` of the flattened (B, T).

        Args:
            lanes: what to compute.
            prefixes: what they continue: one for each, or one for all; None where they start at
                position 0.
            wanted_N: positions, without repeats.
        """
        return self._run(lanes, prefixes, wanted_N, keep=False)[0]

    @torch.no_grad()
    def keep(
        self, rows: Sequence[Row], prefixes: Prefixes | None, wanted_N: Indices
    ) -> tuple[Tensor, Prefixes]:
        """Returns the logits likewise, and what rows that continue these ones need."""
        logits_NV, layers = self._run([(row,) for row in rows], prefixes, wanted_N, keep=True)
        sizes_B1 = torch.tensor([[row.size] for row in rows], device=self.device)
        width = max(row.size for row in rows)
        seen_BP = torch.arange(width, device=self.device) < sizes_B1
        if prefixes is not None:
            before_BP = prefixes.seen_BP.expand(len(rows), -1)
            seen_BP = torch.cat([before_BP, seen_BP], dim=1)
        return logits_NV, Prefixes(tuple(rows), layers, seen_BP)

    def _run(
        self, lanes: Sequence[Lane], prefixes: Prefixes | None, wanted_N: Indices, *, keep: bool
    ) -> tuple[Tensor, list[Layer]]:
        width = width_of(lanes)
        arguments: dict[str, Any] = {}
        layers: list[PrefixLayer] = []
        if prefixes is not None or keep:
            before = [None] * self._num_layers if prefixes is None else prefixes.layers
            layers = [PrefixLayer(layer, keep=keep) for layer in before]
            arguments = {"past_key_values": Cache(layers=list(layers))}
        chains = all(len(lane) == 1 and lane[0].ends is None for lane in lanes)
        if prefixes is not None or not chains:
            positions = [[row.positions for row in lane] for lane in lanes]
            arguments |= {
                "attention_mask": self._mask(lanes, width, prefixes),
                "position_ids": self._padded(positions, width),
            }
        tokens_BT = self._padded([[row.tokens for row in lane] for lane in lanes], width)
        # A head may refuse to compute nothing at all.
        positions_N = torch.from_numpy(wanted_N if len(wanted_N) else np.zeros(1, np.int64))
        with self._autocast(), logits_at(self._model, positions_N.to(self.device)) as asked:
            logits = self._model(input_ids=tokens_BT, use_cache=keep, **arguments).logits
        if not asked:
            raise ValueError("the model's logits do not come from its output embeddings")
        kept = [layer.kept for layer in layers if layer.kept is not None]
        return logits.flatten(0, 1)[: len(wanted_N)], kept

    def _padded(self, values: Sequence[Sequence[Indices]], width: int) -> Tensor:
        padded = np.zeros((len(values), width), np.int64)
        for lane, parts in zip(padded, values, strict=True):
            joined = np.concatenate(parts)
            lane[: len(joined)] = joined
        return torch.from_numpy(padded).to(self.device)

    def _mask(self, lanes: Sequence[Lane], width: int, prefixes: Prefixes | None) -> Tensor:
        """Returns the mask (B, 1, T, L): the prefix, and what lies before in the same request."""
        # Padding sees itself: a softmax over nothing is not a number.
        ends = np.tile(np.arange(1, width + 1), (len(lanes), 1))
        for lane, place in zip(lanes, ends, strict=True):
            start = 0
            for row in lane:
                place[start : start + row.size] = row.size if row.ends is None else row.ends
                place[start : start + row.size] += start
                start += row.size
        ends_B1T = torch.from_numpy(ends).to(self.device)[:, None, :]
        steps_T = torch.arange(width, device=self.device)
        seen_BTL = (steps_T[:, None] >= steps_T) & (steps_T[:, None] < ends_B1T)
        if prefixes is not None:
            before_BTP = prefixes.seen_BP[:, None, :].expand(len(lanes), width, -1)
            seen_BTL = torch.cat([before_BTP, seen_BTL], dim=2)
        mask_B1TL = seen_BTL[:, None]
        if not self._additive_mask:
            return mask_B1TL
        dtype = self._model.dtype
        zeros = torch.zeros(mask_B1TL.shape, dtype=dtype, device=self.device)
        return zeros.masked_fill(~mask_B1TL, torch.finfo(dtype).min)


def width_of(lanes: Sequence[Lane]) -> int:
    """Returns T, the tokens of the longest lane."""
    return max(sum(row.size for row in lane) for lane in lanes)


@contextlib.contextmanager
def logits_at(model: Any, positions_N: Tensor) -> Iterator[list[bool]]:
    """Lets the head compute logits at some positions of the flattened batch only, (1, N, V).

    What a model does to its logits after the head (soft-capping, scaling) stays its own. Yields a
    list that is empty until the head has been asked.
    """
    asked: list[bool] = []

    def select(_head: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        asked.append(True)
        hidden_BTD, *others = arguments
        return (hidden_BTD.flatten(0, 1)[positions_N][None], *others)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield asked
    finally:
        hook.remove()
