"""Radix trees over the requests' tokens, one for each picture, cut into the segments that go
through the model.

A segment is a piece of the tree: either a chain of tokens whose keys and values other segments
attend to (a cached prefix), or a whole subtree under a tree-attention mask (see `Segment.ends`). A
cost model, which depends only on the hidden size, decides where the tree is cut, so equal requests
give equal segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.data.prefixes import common_prefix_length

IntArray = NDArray[np.int64]

# Unit: one query-key and one value product, 4·D FLOPs with D the hidden size. Costs are measured on
# a CPU for D = 288 and 768; only their order of magnitude matters.
TOKEN_COST = 6
"""Linear layers, times D: 24·D² FLOPs per token and layer = 6·D units."""
COPY_COST = 12
"""Copying one key and one value of a prefix, once per segment that attends to it."""
LONG_PREFIX = 64
"""Tokens; a prefix of several segments is cached if it is at least so long."""
MIN_SAVED = 128
"""A shorter prefix is still cached if that saves at least this many tokens."""
MIN_SAVED_NESTED = 1024
"""The same for a prefix of a prefix, which is recomputed more often (in most batches)."""
PASS_TOKENS = 4
"""Tokens that caching a prefix costs: another forward pass, and padding of both."""


@dataclass(frozen=True)
class Request:
    """Token ids of one lm-eval request."""

    input_ids: tuple[int, ...]
    """Context and continuation without its last token, cut on the left to the model's length."""
    continuation_ids: tuple[int, ...]
    """Predicted by the last `len(continuation_ids)` positions of `input_ids`."""
    picture: str | None = None
    """SHA-256 of the picture that the model is shown; None for none. It conditions every token."""

    def split(self) -> tuple[list[int], list[int]]:
        """The context and the continuation."""
        num_context = len(self.input_ids) + 1 - len(self.continuation_ids)
        return list(self.input_ids[:num_context]), list(self.continuation_ids)


@dataclass(frozen=True, eq=False)
class Segment:
    """A piece of the tree that is computed at once."""

    number: int
    """Index among the segments of the tree: the same for the same requests in any order."""
    parent: Segment | None
    """The cached prefix that it continues; None where it starts at position 0."""
    start: int
    """Position of its first token: the length of all prefixes before it."""
    tokens: IntArray
    """Token ids, (size,)."""
    positions: IntArray
    """Position ids, (size,)."""
    ends: IntArray | None
    """Tree-attention mask, compressed, (size,): token i attends to j iff j <= i < ends[j]. None for
    a chain, which is causal."""
    picture: str | None = None
    """The one of all requests that need it."""

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
    """Consecutive tokens of a segment that predict consecutive tokens of a continuation."""

    segment: Segment
    index: int
    """Index in the segment of the first of them."""
    request: int
    """Index of the request."""
    first_target: int
    """Index in the request's `continuation_ids` of the first predicted token."""
    count: int
    """Number of tokens."""


@dataclass(eq=False)
class _Node:
    """A node of the radix tree: a run of tokens in which no request ends or branches off."""

    tokens: tuple[int, ...]
    start: int
    """Position of its first token."""
    parent: _Node | None
    """None for the root, which has no tokens."""
    children: list[_Node] = field(default_factory=list)
    num_descendant_tokens: int = 0
    cost: float = 0.0
    """Lowest cost of the subtree with all before `start` in the cache, in units."""
    is_one_segment: bool = True
    """The whole subtree is computed in one segment; else the node is a prefix of several."""
    uses_cached_prefix: bool = True
    """Attends to the cached keys and values before `start`; else those tokens are recomputed."""
    groups: list[list[_Node]] = field(default_factory=list)
    """Descendants that become the segments continuing this prefix, one segment per group."""
    recomputed: bool = False
    """This prefix is not cached: its tokens are recomputed in each of its groups."""
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
        return len(self.tokens) + self.num_descendant_tokens


def plan_spans(
    requests: Sequence[Request], *, largest_segment: int, hidden_size: int
) -> list[Span]:
    """Where each continuation is scored, and with it the segments that must be computed.

    Args:
        requests: what to score, without repeats.
        largest_segment: a branching subtree of more tokens never becomes one segment.
        hidden_size: D of the model.
    """
    sequences: dict[str | None, set[tuple[int, ...]]] = {}
    for request in requests:
        sequences.setdefault(request.picture, set()).add(request.input_ids)
    last_nodes, num_segments = {}, 0
    # A tree for each picture: under another one the same tokens have other keys and values.
    for picture in sorted(sequences, key=lambda name: name or ""):
        root = _Node(tokens=(), start=0, parent=None)
        last_nodes[picture] = _build_tree(root, sorted(sequences[picture]))
        # Post-order dynamic programme over the radix tree: children are planned before their
        # parent.
        for node in reversed(_preorder(root)):
            _plan_node(node, largest_segment, TOKEN_COST * hidden_size)
        num_segments = _build_segments(root, picture, num_segments)
    return [
        span
        for number, one in enumerate(requests)
        for span in _spans(
            last_nodes[one.picture][one.input_ids], number, len(one.continuation_ids)
        )
    ]


def _build_tree(root: _Node, sequences: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], _Node]:
    """Inserts sorted sequences, and returns the node in which each one ends."""
    path, last_nodes = [root], {}
    before: tuple[int, ...] = ()
    for sequence in sequences:
        shared = common_prefix_length(before, sequence)
        while len(path) > 1 and path[-1].start >= shared:
            path.pop()
        top = path[-1]
        if top.end > shared:
            assert top.parent is not None
            kept = shared - top.start
            upper = _Node(top.tokens[:kept], top.start, top.parent, children=[top])
            top.parent.children[-1] = upper
            top.tokens, top.start, top.parent = top.tokens[kept:], shared, upper
            path[-1] = upper
        node = _Node(sequence[shared:], shared, path[-1])
        path[-1].children.append(node)
        path.append(node)
        last_nodes[sequence] = node
        before = sequence
    return last_nodes


def _plan_node(node: _Node, largest_segment: int, token_cost: int) -> None:
    """Decides how a subtree is computed, given that the tree is cut just above it."""
    length, depth, chain = len(node.tokens), node.start, not node.children
    node.num_descendant_tokens = sum(child.size for child in node.children)
    node.uses_cached_prefix, cost = _cache_or_recompute(node.size, depth, chain, token_cost)
    node.cost = cost + token_cost * node.size
    if chain:
        return
    direct = _pack_siblings(node, largest_segment)
    recomputed = [child for child in node.children if child.recomputed]
    node.groups = direct + [group for child in recomputed for group in child.groups]
    below = _cost_below(node, direct, token_cost) + sum(child.cost for child in recomputed)
    uses_cached_prefix, own = _cache_or_recompute(length, depth, True, token_cost)
    cost = own + token_cost * length + token_cost * PASS_TOKENS + below
    is_root = node.parent is None
    if cost < node.cost or node.size > largest_segment or is_root:
        node.is_one_segment, node.cost = False, cost
        node.uses_cached_prefix = uses_cached_prefix
        repeats = len(node.groups) - 1
        least = MIN_SAVED_NESTED if depth else MIN_SAVED
        if repeats and length < LONG_PREFIX and repeats * length < least:
            node.recomputed = not is_root
            node.cost += token_cost * length * repeats


def _cache_or_recompute(size: int, depth: int, chain: bool, token_cost: int) -> tuple[bool, float]:
    """Compares attending to a cached prefix of `depth` tokens with recomputing it.

    Returns:
        Whether to use the cache, and the cost excluding the linear layers of the `size` tokens
        themselves.
    """
    cached = _segment_cost(size, depth, chain)
    recomputed = _segment_cost(depth + size, 0, chain) + token_cost * depth
    return cached <= recomputed, min(cached, recomputed)


def _segment_cost(own: int, prefix: int, chain: bool) -> float:
    """Cost of a segment's attention; a chain from position 0 is causal, without a mask."""
    if chain and not prefix:
        return own * own / 2
    return own * (prefix + own) + COPY_COST * prefix


def _pack_siblings(node: _Node, largest_segment: int) -> list[list[_Node]]:
    """Packs siblings into one segment while the masked-out attention between them costs less than
    another copy of the prefix's keys and values."""
    groups = [[one] for one in node.children if not (one.is_one_segment or one.recomputed)]
    groups += [[one] for one in node.children if one.is_one_segment and not one.uses_cached_prefix]
    size = 0
    current: list[_Node] = []
    for child in node.children:
        if not (child.is_one_segment and child.uses_cached_prefix):
            continue
        wasted = 2 * size * child.size
        if not current or wasted > COPY_COST * node.end or size + child.size > largest_segment:
            current, size = [], 0
            groups.append(current)
        current.append(child)
        size += child.size
    return groups


def _cost_below(node: _Node, groups: list[list[_Node]], token_cost: int) -> float:
    """Cost of the segments that continue a node, in units."""
    total = 0.0
    for group in groups:
        size = sum(child.size for child in group)
        together = token_cost * size + _segment_cost(size, node.end, False)
        total += group[0].cost if len(group) == 1 else together
    return total


def _build_segments(root: _Node, picture: str | None, num_segments: int) -> int:
    """Makes the planned segments, each prefix before those that continue it.

    Returns:
        The number of segments, of earlier trees too.
    """
    waiting: list[tuple[list[_Node], Segment | None]] = [([root], None)]
    while waiting:
        group, prefix = waiting.pop()
        node = group[0]
        segment = prefix if node.uses_cached_prefix else None
        if node is not root:
            segment = _make_segment(num_segments, group, segment, picture)
            num_segments += 1
        if not node.is_one_segment:
            waiting += [(members, segment) for members in reversed(node.groups)]
    return num_segments


def _make_segment(
    number: int, group: list[_Node], parent: Segment | None, picture: str | None
) -> Segment:
    """One segment of nodes that continue the same prefix, with the subtrees of those that are one
    segment; sets `segment` and `offset` of the nodes."""
    start = 0 if parent is None else parent.start + parent.size
    nodes = [node for top in group for node in (_preorder(top) if top.is_one_segment else [top])]
    path: list[_Node] = []  # ancestors that are recomputed in front of the nodes
    ancestor = group[0].parent
    while ancestor is not None and ancestor.start >= start:
        path.insert(0, ancestor)
        ancestor = ancestor.parent
    stem = sum(len(node.tokens) for node in path)
    offsets = stem + np.cumsum([0, *(len(node.tokens) for node in nodes)])
    ends = [np.full(stem, offsets[-1])]
    for node, offset in zip(nodes, offsets.tolist(), strict=False):
        node.offset = offset
        ends.append(np.full(len(node.tokens), offset + node.size))
    segment = Segment(
        number=number,
        parent=parent,
        start=start,
        tokens=np.array([token for node in path + nodes for token in node.tokens], np.int64),
        positions=np.concatenate([np.arange(node.start, node.end) for node in path + nodes]),
        ends=None if len(nodes) == 1 else np.concatenate(ends),
        picture=picture,
    )
    for node in nodes:
        node.segment = segment
    for node in path:
        if node.recomputed and node.segment is None:
            node.segment, node.offset = segment, node.start - start
    return segment


def _preorder(root: _Node) -> list[_Node]:
    """A node and its descendants, each before its children."""
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += reversed(node.children)
    return found


def _spans(last: _Node, request: int, count: int) -> list[Span]:
    """Where the last `count` tokens of the path from the root to the end of a node are computed."""
    segment, end, first = last.segment, last.end, last.end - count
    # Walks from the leaf to the root: first the nodes of the leaf's own segment, then what that
    # recomputes of the path above them, then the cached prefixes.
    pieces = []  # (segment, position, index) of each chain's first token
    node: _Node | None = last
    while node is not None and node.segment is segment:
        pieces.append((segment, node.start, node.offset))
        node = node.parent
    while segment is not None:
        pieces.append((segment, segment.start, 0))
        segment = segment.parent
    spans = []
    for piece, start, index in pieces:
        begin = max(first, start)
        if begin < end:  # invariant: positions from `end` on are in the spans already
            assert piece is not None
            spans.append(Span(piece, index + begin - start, request, begin - first, end - begin))
            end = begin
    return spans
