"""Decides whether a model can be scored over the trie of its requests, by trying it.

What the configuration tells is refused outright; the rest is measured, on real requests against
lm-eval's own way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from harness.evaluation.prefix_trie.scoring import TrieRun
from harness.evaluation.prefix_trie.trie import Query, Segment
from harness.evaluation.trial import WrongResultError, try_once, virtual_tokens

TAKES_MASKS = ("sdpa", "eager")
"""Attention implementations that take any mask; a method's own is named after the one below it."""
MAX_ERROR = 1e-4
"""Largest difference of a log-likelihood from lm-eval's in fp32, in nats."""
MAX_RELATIVE_ERROR = 2e-6
"""Of its size, where that is more: sums of several hundred nats in fp32 are no more exact."""
MAX_ERROR_PER_TOKEN_IN_HALF = 0.2
"""The same in half precision, for each scored token: between two batch sizes of lm-eval it is up to
0.06, and what a model that gets the wrong mask gives is of another order."""
NUM_COMPARED = 4
"""Requests that are scored both ways, for each kind of segment."""

Kind = tuple[int, bool]
"""What a segment asks of a model: prefixes before it (0, 1, or 2 for more), whether it branches."""


def reason_against(model: Any) -> str | None:
    """Returns why a model cannot be scored over a trie, as far as its configuration tells."""
    if reason := virtual_tokens(model):
        return reason
    implementation = str(model.config._attn_implementation)
    if not any(name in implementation for name in TAKES_MASKS):
        return f"the attention implementation {implementation} takes no mask of its own"
    if model.get_output_embeddings() is None:
        return "the model names no output embeddings"
    return None


def check_sharing(
    model: Any,
    run: TrieRun,
    plain_value: Callable[[Query], float],
    autocast_dtype: torch.dtype | None,
) -> None:
    """Scores some of a run's queries both ways, for each kind of segment that is new to the model.

    Args:
        plain_value: returns a query's log-likelihood by lm-eval's own way.
        autocast_dtype: what the model computes in where that is not its own dtype.

    Raises:
        WrongResultError: the model fails on such segments, or computes something else.
    """
    half = (autocast_dtype or model.dtype) != torch.float32

    def compare(segment: Segment) -> None:
        found = run.probe(segment)
        for query in sorted(found, key=lambda query: len(query.fed))[:NUM_COMPARED]:
            value = plain_value(query)
            limit = MAX_ERROR_PER_TOKEN_IN_HALF * len(query.targets) if half else MAX_ERROR
            limit = max(limit, MAX_RELATIVE_ERROR * abs(value))
            # What is not a number is reported as such, later.
            if not (abs(found[query] - value) <= limit or math.isnan(value)):
                raise WrongResultError(
                    f"a log-likelihood differs by {abs(found[query] - value):.1e} nats from "
                    "lm-eval's where requests share their context"
                )

    for kind, segment in _smallest_segments(run).items():
        try_once(model, ("trie", kind), partial(compare, segment))


def _smallest_segments(run: TrieRun) -> dict[Kind, Segment]:
    """Returns the segment of each kind, at which queries end, that needs the fewest tokens."""
    found: dict[Kind, Segment] = {}
    for segment in (segment for batch in run.batches for row in batch for segment in row):
        kind = min(segment.level, 2), segment.ends is not None
        before = found.setdefault(kind, segment)
        if segment.start + segment.size < before.start + before.size:
            found[kind] = segment
    return found
