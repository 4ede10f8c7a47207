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
from harness.models.fused_inference import FusedInference, compute_dtype
from harness.models.pictures import PassPictures, using_pictures

PicturesOf = Callable[[Sequence[str | None]], PassPictures | None]
"""The pictures of a pass, from the name of each of its rows' pictures; None where it has none."""
BIAS_STEP = 16
"""Numbers between the beginnings of two rows of a mask that is added, at least; a kernel that is
given others copies the mask."""
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
    rows_B: Tensor | None = None
    """The segments' rows of the layers; None where they are all, in their order. Each layer gathers
    them when it runs, so that one layer's copy is alive at a time."""

    def select(self, segments: Sequence[Segment]) -> Prefixes:
        """The prefixes of rows, in their order; batch size 1 (broadcast) if all rows share one."""
        assert self.rows_B is None
        numbers = {segment: number for number, segment in enumerate(self.segments)}
        distinct = segments[:1] if len(set(segments)) == 1 else segments
        index = [numbers[segment] for segment in distinct]
        if index == list(range(len(self.segments))):
            return self
        index_B = torch.tensor(index, device=self.seen_BP.device)
        return Prefixes(tuple(distinct), self.layers, self.seen_BP[index_B], index_B)


class PrefixCacheLayer(DynamicLayer):
    """Puts the keys and values of prefixes in front of those that a layer computes.

    Does not store new keys and values unless `keep`; most are never reused.

    Args:
        prefix: keys and values.
        rows: those rows of the prefix that stand before the batch's, one for each or one for all;
            None for all of them.
    """

    def __init__(self, prefix: KeyValues | None, *, keep: bool, rows: Tensor | None = None) -> None:
        super().__init__()
        self._prefix, self._rows = prefix, rows
        self._keep = keep
        self.kept: KeyValues | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, (B, G, S, d)."""
        if self._prefix is not None:
            keys, values = self._prefix
            key_states, value_states = (
                self._behind(keys, key_states),
                self._behind(values, value_states),
            )
        if self._keep:
            self.kept = key_states, value_states
        return key_states, value_states

    def _behind(self, prefix: Tensor, states: Tensor) -> Tensor:
        if self._rows is not None:
            prefix = prefix[self._rows]
        return torch.cat([prefix.expand(len(states), -1, -1, -1), states], dim=2)


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
        self._fused = FusedInference(model)

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
            chosen = None if prefixes is None else prefixes.rows_B
            layers = [PrefixCacheLayer(layer, keep=keep, rows=chosen) for layer in before]
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
            self._fused(),
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
        return attention_mask(self._model, seen_BTS[:, None])


def attention_mask(model: Any, seen_B1TS: Tensor) -> Tensor:
    """A mask as the model's attention takes it, from True for what is seen."""
    if "sdpa" not in model.config._attn_implementation:
        dtype = model.dtype
        zeros = torch.zeros(seen_B1TS.shape, dtype=dtype, device=seen_B1TS.device)
        return zeros.masked_fill(~seen_B1TS, torch.finfo(dtype).min)
    return attention_bias(model, seen_B1TS) if takes_bias(model) else seen_B1TS


def takes_bias(model: Any) -> bool:
    """Whether a mask is better added to the scores: on CUDA, where SDPA would make that of a bool
    mask in each layer anew."""
    return model.device.type == "cuda" and "sdpa" in model.config._attn_implementation


def attention_bias(model: Any, seen_B1TS: Tensor) -> Tensor:
    """What SDPA makes of a bool mask: 0 where it is True, minus infinity elsewhere.

    It is in the type that attention is computed in, and its rows begin at multiples of BIAS_STEP
    in memory, as the kernel asks.
    """
    *rows, length = seen_B1TS.shape
    dtype = compute_dtype(seen_B1TS.device.type, model.dtype)
    padded = (*rows, -(-length // BIAS_STEP) * BIAS_STEP)
    bias_B1TS = torch.zeros(padded, dtype=dtype, device=seen_B1TS.device)[..., :length]
    return bias_B1TS.masked_fill_(~seen_B1TS, -torch.inf)


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
