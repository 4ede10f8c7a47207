"""Runs segments through a causal LM, up to the logits that are asked for.

Shapes: B batch rows, T tokens of a row, P tokens of its prefixes, S = P + T keys, N positions that
are asked for, V vocabulary, G key and value heads, d head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from harness.evaluation.prefix_trie.batches import BatchRow
from harness.evaluation.prefix_trie.trie import IntArray, Segment
from harness.models.pictures import PassPictures, using_pictures

PicturesOf = Callable[[Sequence[str | None]], PassPictures | None]
"""The pictures of a pass, from the name of each of its rows' pictures; None where it has none."""
KeyValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (B, G, P, d)."""


def no_pictures(_names: Sequence[str | None]) -> None:
    """The pictures of rows where there are none."""


@dataclass(frozen=True)
class Prefixes:
    """Computed keys and values of segments, which other segments continue."""

    segments: tuple[Segment, ...]
    layers: list[KeyValues]
    """One per decoder layer."""
    seen_BP: Tensor
    """True for tokens, False for padding."""

    def select(self, segments: Sequence[Segment]) -> Prefixes:
        """The prefixes of rows, in their order; batch size 1 (broadcast) if all rows share one."""
        numbers = {segment: number for number, segment in enumerate(self.segments)}
        distinct = segments[:1] if len(set(segments)) == 1 else segments
        index = [numbers[segment] for segment in distinct]
        if index == list(range(len(self.segments))):
            return self
        index_B = torch.tensor(index, device=self.seen_BP.device)
        layers = [(keys[index_B], values[index_B]) for keys, values in self.layers]
        return Prefixes(tuple(distinct), layers, self.seen_BP[index_B])


class PrefixCacheLayer(DynamicLayer):
    """Puts the keys and values of prefixes in front of those that a layer computes.

    Does not store new keys and values unless `keep`; most are never reused.
    """

    def __init__(self, prefix: KeyValues | None, *, keep: bool) -> None:
        super().__init__()
        self._prefix = prefix
        self._keep = keep
        self.kept: KeyValues | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, (B, G, S, d)."""
        if self._prefix is not None:
            batch = len(key_states)
            keys, values = (states.expand(batch, -1, -1, -1) for states in self._prefix)
            key_states = torch.cat([keys, key_states], dim=2)
            value_states = torch.cat([values, value_states], dim=2)
        if self._keep:
            self.kept = key_states, value_states
        return key_states, value_states


class TrieForward:
    """Runs segments through a causal LM (eval mode, inside `autocast()`), under their pictures.

    `pictures_of` gives the pictures of a pass.
    """

    def __init__(
        self,
        model: Any,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]],
        pictures_of: PicturesOf = no_pictures,
    ) -> None:
        self._model = model
        self._autocast = autocast
        self._pictures_of = pictures_of
        self.device: torch.device = model.device
        config = model.config.get_text_config()
        self._num_layers: int = config.num_hidden_layers
        self.hidden_size: int = config.hidden_size
        # SDPA takes a bool mask (True = attend); other implementations get an additive mask.
        self._additive_mask = "sdpa" not in model.config._attn_implementation

    @torch.no_grad()
    def run(
        self,
        rows: Sequence[BatchRow],
        prefixes: Prefixes | None,
        wanted_N: IntArray,
        *,
        keep: bool = False,
    ) -> tuple[Tensor, Prefixes | None]:
        """The logits (N, V) at positions `wanted_N` of the flattened (B, T).

        Args:
            rows: what to compute.
            prefixes: what they continue: one for each, or one for all; None where they start at
                position 0.
            wanted_N: positions, without repeats.
            keep: also returns what segments that continue these ones need; one segment in a row.
        """
        row_length = padded_length(rows)
        arguments: dict[str, Any] = {}
        layers: list[PrefixCacheLayer] = []
        if prefixes is not None or keep:
            before = [None] * self._num_layers if prefixes is None else prefixes.layers
            layers = [PrefixCacheLayer(layer, keep=keep) for layer in before]
            arguments = {"past_key_values": Cache(layers=list(layers))}
        chains = all(len(row) == 1 and row[0].ends is None for row in rows)
        if prefixes is not None or not chains:
            positions = [[segment.positions for segment in row] for row in rows]
            arguments |= {
                "attention_mask": self._mask(rows, row_length, prefixes),
                "position_ids": self._padded(positions, row_length),
            }
        tokens_BT = self._padded([[segment.tokens for segment in row] for row in rows], row_length)
        # Some LM heads fail on an empty batch, so one position is asked for and dropped.
        positions_N = torch.from_numpy(wanted_N if len(wanted_N) else np.zeros(1, np.int64))
        with (
            self._autocast(),
            logits_at(self._model, positions_N.to(self.device)),
            using_pictures(self._pictures_of([row[0].picture for row in rows])),
        ):
            logits = self._model(input_ids=tokens_BT, use_cache=keep, **arguments).logits
        kept = [layer.kept for layer in layers if layer.kept is not None]
        logits_NV = logits.flatten(0, 1)[: len(wanted_N)]
        return logits_NV, self._prefixes(rows, prefixes, kept) if keep else None

    def _prefixes(
        self, rows: Sequence[BatchRow], before: Prefixes | None, layers: list[KeyValues]
    ) -> Prefixes:
        segments = tuple(segment for (segment,) in rows)
        sizes_B1 = np.array([[segment.size] for segment in segments])
        seen_BP = torch.from_numpy(np.arange(sizes_B1.max()) < sizes_B1).to(self.device)
        if before is not None:
            seen_BP = torch.cat([before.seen_BP.expand(len(rows), -1), seen_BP], dim=1)
        return Prefixes(segments, layers, seen_BP)

    def _padded(self, values: Sequence[Sequence[IntArray]], row_length: int) -> Tensor:
        padded = np.zeros((len(values), row_length), np.int64)
        for row, parts in zip(padded, values, strict=True):
            joined = np.concatenate(parts)
            row[: len(joined)] = joined
        return torch.from_numpy(padded).to(self.device)

    def _mask(self, rows: Sequence[BatchRow], row_length: int, prefixes: Prefixes | None) -> Tensor:
        """Mask (B, 1, T, S): the prefix, and earlier tokens of the same request."""
        # Padding attends to itself: softmax over an all-masked row is NaN.
        ends_BT = np.tile(np.arange(1, row_length + 1), (len(rows), 1))
        for row, ends_T in zip(rows, ends_BT, strict=True):
            start = 0
            for segment in row:
                ends = segment.size if segment.ends is None else segment.ends
                ends_T[start : start + segment.size] = start + ends
                start += segment.size
        ends_B1T = torch.from_numpy(ends_BT).to(self.device)[:, None, :]
        steps_T = torch.arange(row_length, device=self.device)
        seen_BTS = (steps_T[:, None] >= steps_T) & (steps_T[:, None] < ends_B1T)
        if prefixes is not None:
            before_BTP = prefixes.seen_BP[:, None, :].expand(len(rows), row_length, -1)
            seen_BTS = torch.cat([before_BTP, seen_BTS], dim=2)
        mask_B1TS = seen_BTS[:, None]
        if not self._additive_mask:
            return mask_B1TS
        dtype = self._model.dtype
        zeros = torch.zeros(mask_B1TS.shape, dtype=dtype, device=self.device)
        return zeros.masked_fill(~mask_B1TS, torch.finfo(dtype).min)


def padded_length(rows: Sequence[BatchRow]) -> int:
    """T, the tokens of the longest row."""
    return max(sum(segment.size for segment in row) for row in rows)


@contextlib.contextmanager
def logits_at(model: Any, positions_N: Tensor) -> Iterator[None]:
    """Lets `lm_head` compute logits at some positions of the flattened batch only, (1, N, V).

    What a model does to its logits after the head (soft-capping, scaling) stays its own.

    Raises:
        ValueError: `lm_head` was not called.
    """
    called: list[bool] = []

    def select(_head: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        called.append(True)
        hidden_BTD, *others = arguments
        return (hidden_BTD.flatten(0, 1)[positions_N][None], *others)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
    if not called:
        raise ValueError("the model's logits do not come from its output embeddings")
