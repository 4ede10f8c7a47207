"""The layout of a packed row for variable-length attention: its documents, and their keys.

A document is a sequence of the row. Its queries are only those of its own nodes, which lie in the
row one after the other; those of a prefix that it shares are another's. Its keys are those of the
whole sequence, the prefix gathered in front.

Shapes: N nodes of a row, K keys of all documents, S documents, P prompts of L virtual tokens. A
name such as `rows_K` ends in its tensor's shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Keys:
    """The keys of every document, end to end."""

    bounds: Tensor
    """(S + 1,), int32: where each document's begin and end."""
    longest: int
    rows_K: Tensor | None
    """The row of each key; None where the rows are the keys."""
    repeated: Repeated | None
    """The rows that are keys of several documents."""


@dataclass(frozen=True)
class Repeated:
    """Rows that are taken several times, and their copies: R rows with C copies in all."""

    first_N: Tensor
    """For each row its first copy among the keys; for a row without any, 0."""
    rows_R: Tensor
    """Those with several copies, or with none."""
    copies_C: Tensor
    """Their places among the keys."""
    row_of_copy_C: Tensor
    """The place of each copy's row in `rows_R`."""


@dataclass(frozen=True)
class Documents:
    """The documents of a packed row that have nodes of their own, in the order of their nodes."""

    query_bounds: Tensor
    """(S + 1,), int32: where each one's own nodes begin and end."""
    longest_query: int
    keys: Keys
    num_nodes: int
    """N."""
    nodes: tuple[Indices, ...]
    """On the host: the nodes of each one's sequence."""
    pictures: tuple[int, ...]
    """On the host: each one's row of the projected pictures; 0 where sequences have none."""
    _made: dict[tuple[int, int, bool], Keys] = field(default_factory=dict, compare=False)

    def keys_with(self, num_prompts: int, length: int, *, tokens: bool) -> Keys:
        """Keys among the rows of all prompts, (P · L, ...), and behind them those of the nodes.

        Made once for a row, which all layers share: the host waits for nothing.

        Args:
            num_prompts: P, a prompt for each row of the pictures.
            length: L.
            tokens: whether a document's own keys stand behind its prompt's, or there are none.
        """
        wanted = (num_prompts, length, tokens)
        if wanted not in self._made:
            size = num_prompts * length
            rows = [
                np.concatenate([
                    np.arange(picture * length, (picture + 1) * length),
                    *([size + nodes] if tokens else []),
                ])
                for picture, nodes in zip(self.pictures, self.nodes, strict=True)
            ]  # fmt: skip
            total = size + (self.num_nodes if tokens else 0)
            self._made[wanted] = make_keys(rows, total, self.query_bounds.device)
        return self._made[wanted]


def make_documents(
    nodes_of: Sequence[Indices], pictures: Sequence[int] | None, device: torch.device
) -> Documents:
    """The documents of sequences with their nodes, those of a later one behind an earlier one's.

    Args:
        nodes_of: of each sequence; what it shares with one before it, then its own.
        pictures: of each sequence, its row of the projected pictures, if any has a picture.
    """
    ends, own, chosen = [0], [], []
    for index, nodes in enumerate(nodes_of):
        if (end := int(nodes[-1]) + 1) > ends[-1]:  # else another has all its nodes
            own.append(nodes)
            chosen.append(pictures[index] if pictures is not None else 0)
            ends.append(end)
    return Documents(
        query_bounds=_bounds(ends, device),
        longest_query=max(end - start for start, end in itertools.pairwise(ends)),
        keys=make_keys(own, ends[-1], device),
        num_nodes=ends[-1],
        nodes=tuple(own),
        pictures=tuple(chosen),
    )


def make_keys(rows_of: Sequence[Indices], num_rows: int, device: torch.device) -> Keys:
    """Keys of documents that take these rows of `num_rows`, in the documents' order."""
    ends = [0, *itertools.accumulate(len(rows) for rows in rows_of)]
    longest = max(len(rows) for rows in rows_of)
    taken = np.concatenate(rows_of)
    if len(taken) == num_rows and (taken == np.arange(num_rows)).all():
        return Keys(_bounds(ends, device), longest, None, None)
    copies = np.bincount(taken, minlength=num_rows)
    first = np.zeros(num_rows, np.int64)
    first[taken[::-1]] = np.arange(len(taken))[::-1]
    several = np.flatnonzero(copies != 1)
    places = np.flatnonzero(copies[taken] != 1)
    repeated = Repeated(
        first_N=to_device(first, device),
        rows_R=to_device(several, device),
        copies_C=to_device(places, device),
        row_of_copy_C=to_device(np.searchsorted(several, taken[places]), device),
    )
    return Keys(_bounds(ends, device), longest, to_device(taken, device), repeated)


def _bounds(ends: Sequence[int], device: torch.device) -> Tensor:
    return to_device(np.array(ends, np.int32), device)


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array of the host as a tensor, without waiting for its copy."""
    return torch.from_numpy(values).to(device, non_blocking=True)
