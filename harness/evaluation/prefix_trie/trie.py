"""The trie of the requests' tokens, cut into the rows that go through the model.

A row is a piece of the trie: either a chain of tokens whose keys and values other rows attend to
(a prefix), or a whole branching subtree with a mask (see `Row.ends`). Where the trie is cut decides
a cost model: equal requests give equal rows with all models of one width.
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
"""Of copying one key and one value of a prefix, once per row that attends to it."""
LONG_PREFIX = 64
"""Tokens; a prefix that several rows continue is computed apart if it is so long."""
MIN_SAVED, MIN_SAVED_LATER = 128, 1024
"""Tokens; or if that saves so many, more where it continues another prefix: such prefixes change
from batch to batch, and each batch needs another pass for them."""
PASS_TOKENS = 4
"""What running a prefix apart costs, in tokens: another pass, and padding of both."""


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
class Row:
    """A piece of the trie that is computed at once."""

    number: int
    """Its place among the rows of the trie: the same for the same requests in any order."""
    parent: Row | None
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
    """Consecutive tokens of a row that predict consecutive tokens of an answer."""

    row: Row
    index: int
    """Of the first in the row."""
    query: int
    """Number of the query."""
    first_target: int
    """Number of the first target that is predicted."""
    count: int


@dataclass(eq=False)
class _Node:
    """A maximal chain of the trie; `source` is any sequence through it."""

    source: int
    start: int
    end: int
    above: _Node | None
    children: list[_Node] = field(default_factory=list)
    below: int = 0
    """Number of tokens in all descendants."""
    cost: float = 0.0
    whole: bool = True
    """Its subtree is one row; else it is a prefix of several."""
    joined: bool = True
    """It continues the prefix above; else it is computed from position 0."""
    groups: list[list[_Node]] = field(default_factory=list)
    """What becomes rows that continue it."""
    dissolved: bool = False
    """It is computed again in each of its groups."""
    row: Row | None = None
    offset: int = 0
    """Index of its first token in `row`."""


class Trie:
    """Rows and spans of a set of queries.

    Args:
        queries: what to score; equal ones are given once.
        largest_row: no branching subtree of more tokens becomes one row.
        width: D of the model.
    """

    def __init__(self, queries: Sequence[Query], *, largest_row: int, width: int) -> None:
        self._largest_row = largest_row
        self._token_cost = TOKEN_COST * width
        keys = [np.asarray(query.fed, dtype=">u4").tobytes() for query in queries]
        self._sequences = sorted(set(keys))
        self._root = _Node(source=0, start=0, end=0, above=None)
        last_nodes = dict(zip(self._sequences, self._build(), strict=True))
        order = _preorder(self._root)
        for node in reversed(order):
            self._choose(node)
        self._num_rows = 0
        self._emit()
        self.spans: list[Span] = []
        for number, (key, query) in enumerate(zip(keys, queries, strict=True)):
            self.spans += _spans(last_nodes[key], number, len(query.targets))

    def _build(self) -> list[_Node]:
        """Builds the nodes, and returns the last one of each sequence."""
        path, ends, before = [self._root], [], b""
        for number, sequence in enumerate(self._sequences):
            shared = common_prefix_length(before, sequence) // 4
            while len(path) > 1 and path[-1].start >= shared:
                path.pop()
            top = path[-1]
            if top.end > shared:
                assert top.above is not None
                upper = _Node(top.source, top.start, shared, top.above, children=[top])
                top.above.children[-1] = upper
                top.start, top.above, path[-1] = shared, upper, upper
            node = _Node(number, shared, len(sequence) // 4, path[-1])
            path[-1].children.append(node)
            path.append(node)
            ends.append(node)
            before = sequence
        return ends

    def _choose(self, node: _Node) -> None:
        """Decides how a node is computed, given that the trie is cut just above it."""
        length, depth = node.end - node.start, node.start
        node.below = sum(child.end - child.start + child.below for child in node.children)
        own, chain = length + node.below, not node.children
        joined = _row_cost(own, depth, chain)
        alone = _row_cost(depth + own, 0, chain) + self._token_cost * depth
        node.joined, node.cost = joined <= alone, min(joined, alone) + self._token_cost * own
        if chain:
            return
        direct = _group(node, self._largest_row)
        dissolved = [child for child in node.children if child.dissolved]
        node.groups = direct + [group for child in dissolved for group in child.groups]
        below = _cost_below(node, direct, self._token_cost) + sum(child.cost for child in dissolved)
        joined = _row_cost(length, depth, True)
        alone = _row_cost(node.end, 0, True) + self._token_cost * depth
        cost = (
            min(joined, alone) + self._token_cost * length + self._token_cost * PASS_TOKENS + below
        )
        if cost < node.cost or own > self._largest_row or node is self._root:
            node.whole, node.joined, node.cost = False, joined <= alone, cost
            repeats = len(node.groups) - 1
            least = MIN_SAVED_LATER if depth else MIN_SAVED
            if repeats and length < LONG_PREFIX and repeats * length < least:
                node.dissolved = node is not self._root
                node.cost += self._token_cost * length * repeats

    def _emit(self) -> None:
        """Makes the rows, prefixes before those that continue them."""
        waiting: list[tuple[list[_Node], Row | None]] = [([self._root], None)]
        while waiting:
            group, above = waiting.pop()
            node = group[0]
            parent = above if node.joined else None
            if node.whole:
                self._set_rows(group, parent, with_subtree=True)
                continue
            row = parent
            if node is not self._root:
                row = self._set_rows(group, parent, with_subtree=False)
            waiting += [(members, row) for members in reversed(node.groups)]

    def _set_rows(self, group: list[_Node], parent: Row | None, *, with_subtree: bool) -> Row:
        """Makes one row of nodes that hang on the same prefix, and tells them so."""
        start = 0 if parent is None else parent.start + parent.size
        stem = group[0].start - start  # what is computed again of the path to the node
        nodes = [node for top in group for node in (_preorder(top) if with_subtree else [top])]
        source = self._sequences[group[0].source]
        tokens, positions, ends = [_decode(source, start, start + stem)], [], []
        positions.append(np.arange(start, start + stem))
        offset = stem
        for node in nodes:
            node.offset, length = offset, node.end - node.start
            tokens.append(_decode(self._sequences[node.source], node.start, node.end))
            positions.append(np.arange(node.start, node.end))
            ends.append(np.full(length, offset + length + (node.below if with_subtree else 0)))
            offset += length
        chain = len(nodes) == 1
        row = Row(
            number=self._num_rows,
            parent=parent,
            start=start,
            tokens=np.concatenate(tokens),
            positions=np.concatenate(positions),
            ends=None if chain else np.concatenate([np.full(stem, offset), *ends]),
        )
        self._num_rows += 1
        for node in nodes:
            node.row = row
        above = group[0].above
        while above is not None and above.dissolved and above.row is None:
            above.row, above.offset = row, above.start - start
            above = above.above
        return row


def _row_cost(own: int, prefix: int, chain: bool) -> float:
    """Returns the attention's cost of a row; a chain from position 0 needs no mask."""
    if chain and not prefix:
        return own * own / 2
    return own * (prefix + own) + COPY_COST * prefix


def _group(node: _Node, largest_row: int) -> list[list[_Node]]:
    """Puts the children into rows: several in one while what they do not see of each other costs
    less than copying the prefix once more."""
    groups = [[child] for child in node.children if not (child.whole or child.dissolved)]
    groups += [[child] for child in node.children if child.whole and not child.joined]
    size = 0
    current: list[_Node] = []
    for child in node.children:
        if not (child.whole and child.joined):
            continue
        own = child.end - child.start + child.below
        wasted = 2 * size * own
        if not current or wasted > COPY_COST * node.end or size + own > largest_row:
            current, size = [], 0
            groups.append(current)
        current.append(child)
        size += own
    return groups


def _cost_below(node: _Node, groups: list[list[_Node]], token_cost: int) -> float:
    """Returns the cost of rows that continue a node."""
    total = 0.0
    for group in groups:
        if len(group) == 1:
            total += group[0].cost
            continue
        own = sum(child.end - child.start + child.below for child in group)
        total += token_cost * own + _row_cost(own, node.end, False)
    return total


def _preorder(root: _Node) -> list[_Node]:
    """Returns a node and its descendants, each before its children."""
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += reversed(node.children)
    return found


def _spans(node: _Node, query: int, count: int) -> list[Span]:
    """Returns where the last `count` tokens of the path to the end of `node` are computed."""
    spans, row, end = [], node.row, node.end
    first = end - count
    place: _Node | None = node
    while end > first:
        assert row is not None
        if place is not None and place.row is row:
            low, offset = place.start, place.offset
            place = place.above
        else:  # the path above, computed again, or a prefix: chains both
            low, offset, place = row.start, 0, None
        begin = max(first, low)
        if begin < end:
            target = begin - first
            spans.append(Span(row, offset + begin - low, query, target, end - begin))
            end = begin
        if place is None and end == row.start:
            row = row.parent
    return spans


def _decode(sequence: bytes, start: int, end: int) -> Tokens:
    return np.frombuffer(sequence[4 * start : 4 * end], dtype=">u4").astype(np.int64)
