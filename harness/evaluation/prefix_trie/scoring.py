"""Scores queries over the trie of their tokens, batch by batch; makes do with the memory there is.

Shapes: N scored positions, M scored tokens (several may be scored at one position), V vocabulary.
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
from harness.evaluation.prefix_trie.forward import Indices, Prefixes, TrieForward, width_of
from harness.evaluation.prefix_trie.trie import Query, Segment, Trie

SMALLEST_BUDGET = 64
"""Tokens; a smaller budget helps no more: the memory is full with one segment."""
LOGITS_AT_ONCE = 128
"""Positions whose logits are turned into fp32 together."""

Done = Callable[[Query, float, bool], None]
"""Called with each answer's log-likelihood in nats, and whether the model would say it greedily."""


def score_queries(
    model: TrieForward,
    queries: Sequence[Query],
    token_budget: int,
    on_done: Done,
    *,
    before: Callable[[TrieRun], None],
) -> int:
    """Scores queries, and returns the budget that fitted in memory.

    The budget is halved whenever the memory is full; what is scored by then stays.

    Args:
        queries: what to score, without repeats.
        token_budget: tokens of a forward pass, padding included.
        on_done: called with each query that is scored, once.
        before: called with each round's run before it starts; may raise.

    Raises:
        EvaluationError: the memory is too small for one segment.
    """
    left = dict.fromkeys(queries)
    if not left:
        return token_budget

    def done(query: Query, value: float, greedy: bool) -> None:
        del left[query]
        on_done(query, value, greedy)

    def score_rest(budget: int) -> None:
        run = TrieRun(model, list(left), budget, done)
        before(run)
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
    """Queries on their way through a model: see `score_queries` for the arguments.

    Attributes:
        batches: to be given to `compute`, in this order or another.
    """

    def __init__(
        self, model: TrieForward, queries: Sequence[Query], token_budget: int, on_done: Done
    ) -> None:
        self._model = model
        self._queries = queries
        self._targets = [np.asarray(query.targets) for query in queries]
        self._on_done = on_done
        spans = Trie(queries, largest_segment=token_budget, width=model.width).spans
        self.batches = make_batches(spans, token_budget)
        self._spans = spans_by_segment(spans)
        """Those that are not scored yet."""
        self._sums = np.zeros(len(queries))
        self._greedy = np.ones(len(queries), bool)
        self._left = np.array([len(query.targets) for query in queries])
        self._kept: dict[int, Prefixes] = {}
        """The last prefixes that were computed, by their level."""

    def compute(self, rows: Batch, *, keep: bool = False) -> Prefixes | None:
        """Computes rows of one level, and before them the prefixes that they continue.

        Returns:
            What segments that continue them need, where it is to be kept.
        """
        wanted_N, index_M, queries_M, targets_M = self._scored(rows)
        prefixes = self._prefixes([row[0] for row in rows])
        logits_NV, kept = self._model.run(rows, prefixes, wanted_N, keep=keep)
        self._add(logits_NV, index_M, queries_M, targets_M)
        for row in rows:
            for segment in row:  # a prefix that is computed again is not scored again
                self._spans.pop(segment, None)
        return kept

    def probe(self, segment: Segment) -> dict[Query, float]:
        """Returns the log-likelihoods of the queries that end in a segment; changes nothing."""
        found: dict[Query, float] = {}
        trial = copy.copy(self)
        trial._on_done = lambda query, value, _greedy: found.update({query: value})
        trial._spans, trial._kept = dict(self._spans), {}
        for name in ("_sums", "_left", "_greedy"):
            setattr(trial, name, getattr(self, name).copy())
        trial.compute(((segment,),))
        return found

    def _prefixes(self, segments: Sequence[Segment]) -> Prefixes | None:
        """Returns what segments of one level continue, computed where it is not kept."""
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

    def _scored(self, rows: Batch) -> tuple[Indices, Indices, Indices, Indices]:
        """Returns what is scored in rows that are padded to one length.

        Returns:
            The positions in the flattened batch (N), and of each scored token the number of its
            position among them, its query and itself (M each).
        """
        width = width_of(rows)
        parts: list[tuple[Indices, Indices, Indices]] = [(np.zeros(0, np.int64),) * 3]
        for number, row in enumerate(rows):
            start = number * width
            for segment in row:
                for span in self._spans.get(segment, ()):
                    positions = np.arange(span.index, span.index + span.count) + start
                    targets = self._targets[span.query][span.first_target :][: span.count]
                    parts.append((positions, np.full(span.count, span.query), targets))
                start += segment.size
        positions_M, queries_M, targets_M = map(np.concatenate, zip(*parts, strict=True))
        wanted_N, index_M = np.unique(positions_M, return_inverse=True)
        return wanted_N, index_M, queries_M, targets_M

    def _add(
        self, logits_NV: Tensor, index_M: Indices, queries_M: Indices, targets_M: Indices
    ) -> None:
        """Adds scored tokens to their queries, and tells of those that are complete."""
        if not len(index_M):
            return
        values_M, greedy_M = log_probabilities(logits_NV, index_M, targets_M)
        np.add.at(self._sums, queries_M, values_M)
        np.logical_and.at(self._greedy, queries_M, greedy_M)
        np.subtract.at(self._left, queries_M, 1)
        for query in np.unique(queries_M):
            if not self._left[query]:
                value, greedy = float(self._sums[query]), bool(self._greedy[query])
                self._on_done(self._queries[query], value, greedy)


def log_probabilities(
    logits_NV: Tensor, index_M: Indices, targets_M: Indices
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns of each token its log-probability in nats, and whether it is the likeliest, (M).

    The softmax is computed in fp32: in bf16 it would round sums of 64 nats to multiples of 0.5. Of
    equally likely tokens the first is the likeliest, as in lm-eval.
    """
    values_M = np.empty(len(index_M))
    greedy_M = np.zeros(len(index_M), bool)
    for start in range(0, len(logits_NV), LOGITS_AT_ONCE):
        logs_nV = logits_NV[start : start + LOGITS_AT_ONCE].log_softmax(-1, dtype=torch.float32)
        chosen_m = np.flatnonzero((index_M >= start) & (index_M < start + LOGITS_AT_ONCE))
        index_m = torch.from_numpy(index_M[chosen_m] - start).to(logits_NV.device)
        targets_m = torch.from_numpy(targets_M[chosen_m]).to(logits_NV.device)
        values_m = logs_nV[index_m, targets_m]
        # Most are not: the slow search for the first of the highest is for the others.
        highest_m = logs_nV.amax(-1)[index_m] == values_m
        first = logs_nV[index_m[highest_m]].argmax(-1) == targets_m[highest_m]
        values_M[chosen_m] = values_m.double().cpu().numpy()
        greedy_M[chosen_m[highest_m.cpu().numpy()]] = first.cpu().numpy()
    return values_M, greedy_M
