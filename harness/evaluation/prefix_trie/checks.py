"""Checks that a model supports tree attention: static checks on its config, then a numerical
comparison with `HFLM`, on some of the requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from harness.evaluation.prefix_trie.scoring import TrieRun
from harness.evaluation.prefix_trie.trie import Request, Segment
from harness.evaluation.trial import WrongResultError, try_once, virtual_token_refusal

TAKES_MASKS = ("sdpa", "eager")
"""Attention implementations that take any mask. A method's attention is registered as
`prompts_on_<base>`, so they are matched by substring."""
ABS_TOL = 1e-4
"""Tolerance of a log-likelihood in fp32, in nats: rounding stays below it."""
REL_TOL = 2e-6
"""In nats per nat; where that is more: a sum of hundreds of nats in fp32 is no more exact."""
HALF_TOL_PER_TOKEN = 0.2
"""In half precision, in nats per scored token: two batch sizes of `HFLM` differ by up to 0.06, and
a wrong mask by far more."""
NUM_COMPARED = 4
"""Requests that are scored both ways, for each kind of segment."""

Kind = tuple[int, bool, bool]
"""What a segment asks of a model: prefixes before it (0, 1, or 2 for more), whether it branches,
and whether it is under a picture."""


def static_refusal(model: Any) -> str | None:
    """Why a model cannot share prefixes, as far as its config tells; None if nothing is known."""
    if reason := virtual_token_refusal(model):
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
    hflm_value: Callable[[Request], float],
    autocast_dtype: torch.dtype | None,
) -> None:
    """Scores some of a run's requests both ways, for each kind of segment that is new to the model.

    Args:
        hflm_value: a request's log-likelihood by `HFLM`, in nats.
        autocast_dtype: what the model computes in where that is not its own dtype.

    Raises:
        WrongResultError: the model fails on such segments, or computes something else.
    """
    half = (autocast_dtype or model.dtype) != torch.float32

    def compare(segments: Sequence[Segment]) -> None:
        found = run.probe(*segments)
        for request in sorted(found, key=lambda request: len(request.input_ids))[:NUM_COMPARED]:
            value = hflm_value(request)
            limit = HALF_TOL_PER_TOKEN * len(request.continuation_ids) if half else ABS_TOL
            limit = max(limit, REL_TOL * abs(value))
            # What is not a number is reported as such, later.
            if not (abs(found[request] - value) <= limit or math.isnan(value)):
                raise WrongResultError(
                    f"a log-likelihood differs by {abs(found[request] - value):.1e} nats from "
                    "lm-eval's where requests share their context"
                )

    for kind, segments in _smallest_segments(run).items():
        try_once(model, ("trie", kind, len(segments)), partial(compare, segments))


def _smallest_segments(run: TrieRun) -> dict[Kind, list[Segment]]:
    """The segment of each kind that needs the fewest tokens, among those that requests end in.

    Beside one under a picture there is one of its level under another, if any, as rows of a batch
    may be.
    """
    segments = [segment for batch in run.batches for row in batch for segment in row]
    found: dict[Kind, Segment] = {}
    for segment in segments:
        kind = min(segment.level, 2), segment.ends is not None, segment.picture is not None
        if _num_tokens(segment) < _num_tokens(found.setdefault(kind, segment)):
            found[kind] = segment
    chosen = {}
    for kind, segment in found.items():
        chosen[kind] = [segment]
        if segment.picture is not None:
            level = (one for one in segments if one.level == segment.level)
            others = [one for one in level if one.picture != segment.picture]
            chosen[kind] += sorted(others, key=_num_tokens)[:1]
    return chosen


def _num_tokens(segment: Segment) -> int:
    return segment.start + segment.size
