"""Packs sequences into one row in which every shared prefix is computed once.

In causal attention a token's hidden state depends on the tokens before it, on the picture of its
sequence, and on nothing else. So the sequences of a micro-batch become the nodes of a trie, one for
each picture: a prefix that several sequences share, such as that of an instruction template, is
computed once. The last token of a sequence is only a label.

Shapes: N nodes, M slots (rows of all buckets), S sequences, B of a bucket, T their longest length.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.instructions import Holes, label_runs
from harness.data.prefixes import common_prefix_length
from harness.models.documents import make_documents, to_device
from harness.models.packed_attention import Bucket, Packing

Indices = NDArray[np.int64]

BUCKET_COST = 4096
"""Cost of one more call of attention, in units of scores (query-key pairs)."""
SLOT_COST = 48
"""Cost of gathering one slot's query, key and value and of scattering its output, in that unit."""


@dataclass(frozen=True)
class TokenSequence:
    """One sequence of an optimizer batch."""

    index: int
    """In the optimizer batch; decides the dropout mask, whatever the micro-batches."""
    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    """Leading tokens that are not labels; at least 1."""
    holes: Holes = ()
    """Later tokens that are not labels."""
    picture: str | None = None
    """The SHA-256 of its picture."""

    @property
    def num_inputs(self) -> int:
        """Tokens that go through the model: all but the last, which predicts nothing."""
        return len(self.token_ids) - 1


@dataclass(frozen=True)
class PackedRow:
    """A micro-batch as one row of nodes, and the labels that follow them."""

    input_ids_1N: Tensor
    position_ids_1N: Tensor
    """A node's depth: its token's position in its sequences."""
    sequence_ids_1N: Tensor
    """Index of a sequence that the node belongs to; the only one where nothing is shared."""
    packing: Packing
    positions: Tensor
    """(labels,), the nodes whose next tokens are the labels."""
    labels: Tensor
    pictures: tuple[str, ...] = ()
    """Its distinct pictures."""
    picture_rows: Tensor | None = None
    """(N,), each node's place in `pictures`, their number for none; None where there are none."""

    @property
    def num_tokens(self) -> int:
        """Nodes, which is the number of rows in every linear layer."""
        return self.input_ids_1N.shape[1]


def shared_inputs(sequences: Sequence[TokenSequence]) -> list[int]:
    """For each of the sorted sequences, the number of nodes that it shares with the one before."""
    shared = [0]
    for before, own in itertools.pairwise(sequences):
        same = before.picture == own.picture
        count = common_prefix_length(before.token_ids, own.token_ids) if same else 0
        shared.append(min(count, before.num_inputs, own.num_inputs))
    return shared


def pack(
    sequences: Sequence[TokenSequence],
    shared: Sequence[int],
    *,
    device: torch.device,
    varlen: bool = False,
) -> PackedRow:
    """Packs sequences into one row.

    Args:
        sequences: where anything is shared, sorted by their pictures, then by their tokens: what a
            sequence shares with any before it, it then shares with the one just before.
        shared: leading nodes that each has in common with the one before; the first's is ignored.
        varlen: whether the row is also laid out for variable-length attention.
    """
    ids: list[int] = []
    depths: list[Indices] = []
    sequence_ids: list[Indices] = []
    positions: list[Indices] = []
    labels: list[int] = []
    nodes_of: list[Indices] = []
    pictures, places = picture_places(sequences)
    rows: list[Indices] = []
    for index, sequence in enumerate(sequences):
        size, kept = sequence.num_inputs, shared[index] if index else 0
        new = np.arange(len(ids), len(ids) + size - kept)
        nodes = np.concatenate([nodes_of[-1][:kept], new]) if kept else new
        nodes_of.append(nodes)
        ids += sequence.token_ids[kept:size]
        depths.append(np.arange(kept, size))
        sequence_ids.append(np.full(size - kept, sequence.index))
        rows.append(np.full(size - kept, places[index]))
        for start, end in label_runs(sequence):
            positions.append(nodes[start - 1 : end - 1])
            labels += sequence.token_ids[start:end]
    return PackedRow(
        input_ids_1N=to_device(np.array(ids), device)[None],
        position_ids_1N=to_device(np.concatenate(depths), device)[None],
        sequence_ids_1N=to_device(np.concatenate(sequence_ids), device)[None],
        packing=_pack_attention(
            nodes_of, len(ids), places if pictures else None, device, varlen=varlen
        ),
        positions=to_device(np.concatenate(positions), device),
        labels=to_device(np.array(labels), device),
        pictures=pictures,
        picture_rows=to_device(np.concatenate(rows), device) if pictures else None,
    )


def picture_places(sequences: Sequence[TokenSequence]) -> tuple[tuple[str, ...], list[int]]:
    """The distinct pictures of sequences, and each sequence's place in them.

    The place of a sequence without a picture is the number of pictures.
    """
    pictures = tuple(dict.fromkeys(one.picture for one in sequences if one.picture is not None))
    place_of = {picture: place for place, picture in enumerate(pictures)}
    return pictures, [len(pictures) if one.picture is None else place_of[one.picture]
                      for one in sequences]  # fmt: skip


def _pack_attention(
    nodes_of: Sequence[Indices],
    num_nodes: int,
    pictures: Sequence[int] | None,
    device: torch.device,
    *,
    varlen: bool,
) -> Packing:
    """The packing of sequences with their nodes and, where any has a picture, rows of pictures."""
    ordered = sorted(range(len(nodes_of)), key=lambda index: len(nodes_of[index]), reverse=True)
    lengths = [len(nodes_of[index]) for index in ordered]
    buckets, slots = [], []
    for part in bucket_cuts(lengths):
        width = lengths[part][0]
        buckets.append(Bucket(len(lengths[part]), width))
        slots += [(nodes_of[index], width) for index in ordered[part]]
    node_of_slot = np.concatenate(
        [np.pad(nodes, (0, width - len(nodes)), mode="edge") for nodes, width in slots]
    )
    slot_of_node = np.empty(num_nodes, np.int64)
    start = 0
    # Of several sequences that share a node the last to be written is the shortest.
    for nodes, width in slots:
        slot_of_node[nodes] = np.arange(start, start + len(nodes))
        start += width
    of_sequence = None
    if pictures is not None:
        of_sequence = to_device(np.array([pictures[index] for index in ordered]), device)
    return Packing(
        tuple(buckets),
        to_device(node_of_slot, device),
        to_device(slot_of_node, device),
        of_sequence,
        make_documents(nodes_of, pictures, device) if varlen else None,
    )


def bucket_cuts(lengths: Sequence[int]) -> list[slice]:
    """Cuts sequences, longest first, into the buckets that together cost least.

    A bucket costs its slots times (T + SLOT_COST), and BUCKET_COST.
    """
    count = len(lengths)
    # Only where the length changes can a cut be of use.
    edges = [0, *(i for i in range(1, count) if lengths[i] != lengths[i - 1]), count]
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the sequences before an edge; last cut
    for end in range(1, len(edges)):
        options = []
        for start in range(end):
            width = lengths[edges[start]]
            size = (edges[end] - edges[start]) * width
            cost = size * (width + SLOT_COST) + BUCKET_COST
            options.append((best[start][0] + cost, start))
        best.append(min(options))
    cuts = []
    end = len(edges) - 1
    while end:
        start = best[end][1]
        cuts.append(slice(edges[start], edges[end]))
        end = start
    return cuts[::-1]
