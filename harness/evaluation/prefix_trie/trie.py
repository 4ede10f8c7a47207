"""The trie of the requests' tokens, cut into the segments that go through the model.

A segment is a piece of the trie: either a chain of tokens whose keys and values other segments
attend to (a prefix), or a whole branching subtree with a mask (see `Segment.ends`). Where the trie
is cut decides a cost model: equal requests give equal segments with all models of one width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.data.prefixes import common_prefix_length

Tokens = NDArray[np.int64]

# Costs in units of one query-key pair of attention, 4·D operations in a model of width D. Measured
# on a CPU for widths of 288 and 768; only their order of magnitude matters.
TOKEN_COST = 6
"""Of a token in all linear layers, times D: 24·D² operations."""
COPY_COST = 12
"""Of copying one key and one value of a prefix, once per segment that attends to it."""
LONG_PREFIX = 64
"""Tokens; a prefix that several segments continue is computed by itself if it is so long."""
MIN_SAVED, MIN_SAVED_LATER = 128, 1024
"""Tokens; or if that saves so many, more where it continues another prefix: such prefixes change
from batch to batch, and each batch needs another pass for them."""
PASS_TOKENS = 4
"""What computing a prefix by itself costs, in tokens: another pass, and padding of both."""


@dataclass(frozen=True)
class Query:
    """One request in tokens."""

    fed: tuple[int, ...]
    """What the model reads: context and answer without the last token, cut to its positions."""
    targets: tuple[int, ...]
    """The answer; the last `len(targets)` positions of `fed` predict it."""

    def split(self) -> tuple[list[int], list[int]]:
        """Returns the context and the answer."""
        return list(self.fed[: len(self.fed) + 1 - len(self.targets)]), list(self.targets)


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of the trie that is computed at once."""

    number: int
    """Among the segments of the trie: the same for the same requests in any order."""
    parent: Segment | None
    """The prefix that it continues; None where it starts at position 0."""
    start: int
    """Position of its first token: the length of all prefixes before it."""
    tokens: Tokens
    positions: Tokens
    ends: Tokens | None
    """By token: the index after the last token that follows it in some request. Token i sees the
    tokens j with j <= i < ends[j]. None for a chain, in which every token follows all before it."""

    @property
    def size(self) -> int:
        """The number of its tokens."""
        return len(self.tokens)

    @property
    def level(self) -> int:
        """The number of prefixes before it."""
        return 0 if self.parent is None else self.parent.level + 1


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of a segment that predict consecutive tokens of an answer."""

    segment: Segment
    index: int
    """Of the first in the segment."""
    query: int
    """Number of the query."""
    first_target: int
    """Number of the first target that is predicted."""
    count: int


@dataclass(eq=False)
class _Node:
    """A maximal chain of the trie."""

    tokens: tuple[int, ...]
    start: int
    """Position of its first token."""
    above: _Node | None
    children: list[_Node] = field(default_factory=list)
    below: int = 0
    """Number of tokens in all descendants."""
    cost: float = 0.0
    whole: bool = True
    """Its subtree is one segment; else it is a prefix of several."""
    joined: bool = True
    """It continues the prefix above; else it is computed from position 0."""
    groups: list[list[_Node]] = field(default_factory=list)
    """What becomes segments that continue it."""
    inlined: bool = False
    """It is computed again in each of its groups."""
    segment: Segment | None = None
    offset: int = 0
    """Index of its first token in `segment`."""

    @property
    def end(self) -> int:
        """Position after its last token."""
        return self.start + len(self.tokens)

    @property
    def size(self) -> int:
        """Number of tokens in its subtree."""
        return len(self.tokens) + self.below


class Trie:
    """Segments and spans of a set of queries.

    Args:
        queries: what to score; equal ones are given once.
        largest_segment: no branching subtree of more tokens becomes one segment.
        width: D of the model.
    """

    def __init__(self, queries: Sequence[Query], *, largest_segment: int, width: int) -> None:
        self._largest_segment = largest_segment
        self._token_cost = TOKEN_COST * width
        self._root = _Node(tokens=(), start=0, above=None)
        last_nodes = self._build(sorted({query.fed for query in queries}))
        for node in reversed(_preorder(self._root)):
            self._choose(node)
        self._num_segments = 0
        self._emit()
        self.spans = [
            span
            for number, query in enumerate(queries)
            for span in _spans(last_nodes[query.fed], number, len(query.targets))
        ]

    def _build(self, sequences: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], _Node]:
        """Builds the nodes of sorted sequences, and returns the last one of each."""
        path, last_nodes = [self._root], {}
        before: tuple[int, ...] = ()
        for sequence in sequences:
            shared = common_prefix_length(before, sequence)
            while len(path) > 1 and path[-1].start >= shared:
                path.pop()
            top = path[-1]
            if top.end > shared:
                assert top.above is not None
                kept = shared - top.start
                upper = _Node(top.tokens[:kept], top.start, top.above, children=[top])
                top.above.children[-1] = upper
                top.tokens, top.start, top.above = top.tokens[kept:], shared, upper
                path[-1] = upper
            node = _Node(sequence[shared:], shared, path[-1])
            path[-1].children.append(node)
            path.append(node)
            last_nodes[sequence] = node
            before = sequence
        return last_nodes

    def _choose(self, node: _Node) -> None:
        """Decides how a node is computed, given that the trie is cut just above it."""
        length, depth, chain = len(node.tokens), node.start, not node.children
        node.below = sum(child.size for child in node.children)
        node.joined, cost = self._cheaper(node.size, depth, chain)
        node.cost = cost + self._token_cost * node.size
        if chain:
            return
        direct = _group(node, self._largest_segment)
        inlined = [child for child in node.children if child.inlined]
        node.groups = direct + [group for child in inlined for group in child.groups]
        below = _cost_below(node, direct, self._token_cost) + sum(child.cost for child in inlined)
        joined, own = self._cheaper(length, depth, True)
        cost = own + self._token_cost * length + self._token_cost * PASS_TOKENS + below
        if cost < node.cost or node.size > self._largest_segment or node is self._root:
            node.whole, node.joined, node.cost = False, joined, cost
            repeats = len(node.groups) - 1
            least = MIN_SAVED_LATER if depth else MIN_SAVED
            if repeats and length < LONG_PREFIX and repeats * length < least:
                node.inlined = node is not self._root
                node.cost += self._token_cost * length * repeats

    def _cheaper(self, size: int, depth: int, chain: bool) -> tuple[bool, float]:
        """Returns whether tokens behind `depth` others better continue them as a prefix than are
        computed with them from position 0, and what that costs beside the linear layers."""
        joined = _segment_cost(size, depth, chain)
        alone = _segment_cost(depth + size, 0, chain) + self._token_cost * depth
        return joined <= alone, min(joined, alone)

    def _emit(self) -> None:
        """Makes the segments, prefixes before those that continue them."""
        waiting: list[tuple[list[_Node], Segment | None]] = [([self._root], None)]
        while waiting:
            group, prefix = waiting.pop()
            node = group[0]
            parent = prefix if node.joined else None
            segment = parent if node is self._root else self._make_segment(group, parent)
            if not node.whole:
                waiting += [(members, segment) for members in reversed(node.groups)]

    def _make_segment(self, group: list[_Node], parent: Segment | None) -> Segment:
        """Makes one segment of nodes that continue the same prefix, with their subtrees where they
        are whole, and tells them so."""
        start = 0 if parent is None else parent.start + parent.size
        nodes = [node for top in group for node in (_preorder(top) if top.whole else [top])]
        path: list[_Node] = []  # what is computed again of the way to the nodes
        above = group[0].above
        while above is not None and above.start >= start:
            path.insert(0, above)
            above = above.above
        stem = sum(len(node.tokens) for node in path)
        offsets = stem + np.cumsum([0, *(len(node.tokens) for node in nodes)])
        ends = [np.full(stem, offsets[-1])]
        for node, offset in zip(nodes, offsets.tolist(), strict=False):
            node.offset = offset
            ends.append(np.full(len(node.tokens), offset + node.size))
        segment = Segment(
            number=self._num_segments,
            parent=parent,
            start=start,
            tokens=np.array([token for node in path + nodes for token in node.tokens], np.int64),
            positions=np.concatenate([np.arange(node.start, node.end) for node in path + nodes]),
            ends=None if len(nodes) == 1 else np.concatenate(ends),
        )
        self._num_segments += 1
        for node in nodes:
            node.segment = segment
        for node in path:
            if node.inlined and node.segment is None:
                node.segment, node.offset = segment, node.start - start
        return segment


def _segment_cost(own: int, prefix: int, chain: bool) -> float:
    """Returns the attention's cost of a segment; a chain from position 0 needs no mask."""
    if chain and not prefix:
        return own * own / 2
    return own * (prefix + own) + COPY_COST * prefix


def _group(node: _Node, largest_segment: int) -> list[list[_Node]]:
    """Puts the children into segments: several in one while what they do not see of each other
    costs less than copying the prefix once more."""
    groups = [[child] for child in node.children if not (child.whole or child.inlined)]
    groups += [[child] for child in node.children if child.whole and not child.joined]
    size = 0
    current: list[_Node] = []
    for child in node.children:
        if not (child.whole and child.joined):
            continue
        wasted = 2 * size * child.size
        if not current or wasted > COPY_COST * node.end or size + child.size > largest_segment:
            current, size = [], 0
            groups.append(current)
        current.append(child)
        size += child.size
    return groups


def _cost_below(node: _Node, groups: list[list[_Node]], token_cost: int) -> float:
    """Returns the cost of segments that continue a node."""
    total = 0.0
    for group in groups:
        if len(group) == 1:
            total += group[0].cost
            continue
        size = sum(child.size for child in group)
        total += token_cost * size + _segment_cost(size, node.end, False)
    return total


def _preorder(root: _Node) -> list[_Node]:
    """Returns a node and its descendants, each before its children."""
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += reversed(node.children)
    return found


def _spans(last: _Node, query: int, count: int) -> list[Span]:
    """Returns where the last `count` tokens of the path to the end of a node are computed."""
    segment, end, first = last.segment, last.end, last.end - count
    pieces = []  # (segment, position, index) of chains, from the last one up
    node: _Node | None = last
    while node is not None and node.segment is segment:
        pieces.append((segment, node.start, node.offset))
        node = node.above
    while segment is not None:  # the path above, computed again, and the prefixes
        pieces.append((segment, segment.start, 0))
        segment = segment.parent
    spans = []
    for piece, start, index in pieces:
        begin = max(first, start)
        if begin < end:
            assert piece is not None
            spans.append(Span(piece, index + begin - start, query, begin - first, end - begin))
            end = begin
    return spans
