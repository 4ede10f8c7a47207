"""Scores requests with shared prefixes, batch by batch; halves the token budget if memory is full.

Shapes: N scored positions, M scored tokens (several may be scored at one position), V vocabulary.
`wanted_N` are flat positions; `index_M` indexes `wanted_N`; `requests_M` is the request's index and
`targets_M` the token id.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.evaluation.memory import halve_until_it_fits
from harness.evaluation.prefix_trie.batches import Batch, make_batches, spans_by_segment
from harness.evaluation.prefix_trie.forward import Prefixes, TrieForward, padded_length
from harness.evaluation.prefix_trie.trie import IntArray, Request, Segment, plan_spans

SMALLEST_BUDGET = 64
"""Tokens; a smaller budget helps no more: the memory is full with one segment."""
LOGITS_AT_ONCE = 128
"""Positions whose logits are turned into fp32 together on a CPU, whose caches hold so many."""
LOGIT_BYTES_AT_ONCE = 2**28
"""Bytes of logits in fp32 at once on other devices: few launches for a batch, and little memory."""

OnDone = Callable[[Request, float, bool], None]
"""Called with (request, log-likelihood in nats, is_greedy)."""


def score_requests(
    model: TrieForward,
    requests: Sequence[Request],
    token_budget: int,
    on_done: OnDone,
    *,
    on_attempt: Callable[[TrieRun], None],
) -> int:
    """Scores requests, and returns the budget that fitted in memory.

    The budget is halved whenever the memory is full; what is scored by then stays.

    Args:
        requests: what to score, without repeats.
        token_budget: tokens of a forward pass, padding included.
        on_done: called once for each request.
        on_attempt: called before each attempt (again after out of memory); may raise.

    Raises:
        EvaluationError: the memory is too small for one segment.
    """
    left = dict.fromkeys(requests)
    if not left:
        return token_budget

    def done(request: Request, value: float, greedy: bool) -> None:
        del left[request]
        on_done(request, value, greedy)

    def score_rest(budget: int) -> None:
        run = TrieRun(model, list(left), budget, done)
        on_attempt(run)
        for batch in run.batches:
            run.compute(batch)

    return halve_until_it_fits(
        score_rest,
        token_budget,
        device=str(model.device),
        unit="tokens",
        one="score one question",
        smallest=SMALLEST_BUDGET,
    )


class TrieRun:
    """One attempt to score requests: see `score_requests` for the arguments.

    `compute` recursively computes ancestors; `_kept` is a one-entry KV cache per depth.

    Attributes:
        batches: to be given to `compute`, in this order or another.
    """

    def __init__(
        self, model: TrieForward, requests: Sequence[Request], token_budget: int, on_done: OnDone
    ) -> None:
        self._model = model
        self._requests = requests
        self._targets = [np.asarray(request.continuation_ids) for request in requests]
        self._on_done = on_done
        size = model.hidden_size
        self._spans = plan_spans(requests, largest_segment=token_budget, hidden_size=size)
        self.batches = make_batches(self._spans, token_budget)
        self._start()

    def _start(self) -> None:
        self._left = spans_by_segment(self._spans)
        """Spans that are not scored yet."""
        self._sums = np.zeros(len(self._requests))
        self._greedy = np.ones(len(self._requests), bool)
        self._num_left = np.array([len(targets) for targets in self._targets])
        self._kept: dict[int, Prefixes] = {}
        """The last prefixes that were computed, by their level."""

    def compute(self, rows: Batch, *, keep: bool = False) -> Prefixes | None:
        """Computes rows of one level, and before them the prefixes that they continue.

        Returns:
            Keys and values of the rows and of the prefixes before them, if `keep`.
        """
        wanted_N, index_M, requests_M, targets_M = self._scored(rows)
        prefixes = self._prefixes([row[0] for row in rows])
        logits_NV, kept = self._model.run(rows, prefixes, wanted_N, keep=keep)
        self._add(logits_NV, index_M, requests_M, targets_M)
        for row in rows:
            for segment in row:  # a prefix that is computed again is not scored again
                self._left.pop(segment, None)
        return kept

    def probe(self, *segments: Segment) -> dict[Request, float]:
        """The log-likelihoods of the requests that end in segments of one level; changes nothing.

        Each segment has a row of its own.
        """
        found: dict[Request, float] = {}
        trial = copy.copy(self)
        trial._on_done = lambda request, value, _greedy: found.update({request: value})
        trial._start()
        trial.compute(tuple((segment,) for segment in segments))
        return found

    def _prefixes(self, segments: Sequence[Segment]) -> Prefixes | None:
        """What segments of one level continue, computed unless it is in the cache."""
        parents = [segment.parent for segment in segments if segment.parent is not None]
        if not parents:
            return None
        level = parents[0].level
        kept = self._kept.get(level)
        if kept is None or not set(parents) <= set(kept.segments):
            self._kept.pop(level, None)
            del kept  # free before the next ones are made
            kept = self.compute(tuple((one,) for one in dict.fromkeys(parents)), keep=True)
            assert kept is not None
            self._kept[level] = kept
        return kept.select(parents)

    def _scored(self, rows: Batch) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """`wanted_N`, `index_M`, `requests_M` and `targets_M` of padded rows."""
        row_length = padded_length(rows)
        parts: list[tuple[IntArray, IntArray, IntArray]] = [(np.zeros(0, np.int64),) * 3]
        for number, row in enumerate(rows):
            start = number * row_length
            for segment in row:
                for span in self._left.get(segment, ()):
                    positions = np.arange(span.index, span.index + span.count) + start
                    targets = self._targets[span.request][span.first_target :][: span.count]
                    parts.append((positions, np.full(span.count, span.request), targets))
                start += segment.size
        positions_M, requests_M, targets_M = map(np.concatenate, zip(*parts, strict=True))
        wanted_N, index_M = np.unique(positions_M, return_inverse=True)
        return wanted_N, index_M, requests_M, targets_M

    def _add(
        self, logits_NV: Tensor, index_M: IntArray, requests_M: IntArray, targets_M: IntArray
    ) -> None:
        """Adds scored tokens to their requests' sums, and reports those that are complete."""
        if not len(index_M):
            return
        values_M, greedy_M = log_probabilities(logits_NV, index_M, targets_M)
        np.add.at(self._sums, requests_M, values_M)
        np.logical_and.at(self._greedy, requests_M, greedy_M)
        np.subtract.at(self._num_left, requests_M, 1)
        for request in np.unique(requests_M):
            if not self._num_left[request]:
                value, greedy = float(self._sums[request]), bool(self._greedy[request])
                self._on_done(self._requests[request], value, greedy)


def log_probabilities(
    logits_NV: Tensor, index_M: IntArray, targets_M: IntArray
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each token's log-probability in nats, and whether it is the argmax, (M).

    The softmax is in fp32: bf16 spacing at 64-128 is 0.5, which would tie distinct answers. The
    first maximum breaks ties, as in lm-eval. A device other than the CPU waits once.
    """
    on_cpu, at_once = logits_NV.device.type == "cpu", LOGITS_AT_ONCE
    if not on_cpu:
        at_once = max(1, LOGIT_BYTES_AT_ONCE // (4 * logits_NV.shape[1]))
    chunks, parts = [], []
    for start in range(0, len(logits_NV), at_once):
        logs_nV = logits_NV[start : start + at_once].log_softmax(-1, dtype=torch.float32)
        chosen_m = np.flatnonzero((index_M >= start) & (index_M < start + at_once))
        index_m = torch.from_numpy(index_M[chosen_m] - start).to(logits_NV.device)
        targets_m = torch.from_numpy(targets_M[chosen_m]).to(logits_NV.device)
        chunks.append(chosen_m)
        parts.append((_greedy_on_cpu if on_cpu else _greedy)(logs_nV, index_m, targets_m))
    order_M = np.concatenate(chunks)
    found_2M = torch.cat(parts, dim=1).cpu().numpy()
    values_M, greedy_M = np.empty(len(index_M)), np.zeros(len(index_M), bool)
    values_M[order_M], greedy_M[order_M] = found_2M[0], found_2M[1] > 0
    return values_M, greedy_M


def _greedy(logs_nV: Tensor, index_m: Tensor, targets_m: Tensor) -> Tensor:
    """Log-probabilities of the targets, and 1 for each that is the argmax, (2, m)."""
    values_m = logs_nV[index_m, targets_m]
    greedy_m = logs_nV.argmax(-1)[index_m] == targets_m
    return torch.stack([values_m, greedy_m.float()])


def _greedy_on_cpu(logs_nV: Tensor, index_m: Tensor, targets_m: Tensor) -> Tensor:
    """The same; argmax is slow there: it is sought only where the target attains the maximum."""
    values_m = logs_nV[index_m, targets_m]
    highest_m = logs_nV.amax(-1)[index_m] == values_m
    greedy_m = torch.zeros_like(values_m)
    greedy_m[highest_m] = (logs_nV[index_m[highest_m]].argmax(-1) == targets_m[highest_m]).float()
    return torch.stack([values_m, greedy_m])
