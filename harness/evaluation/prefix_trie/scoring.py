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
from harness.evaluation.prefix_trie.batches import Batch, Lane, make_batches, spans_by_row
from harness.evaluation.prefix_trie.forward import Indices, Prefixes, TrieForward, width_of
from harness.evaluation.prefix_trie.trie import Query, Row, Trie

SMALLEST_BUDGET = 64
"""Tokens; a smaller budget helps no more: the memory is full with one row."""
LOGITS_AT_ONCE = 128
"""Positions whose logits are turned into fp32 together."""

Done = Callable[[Query, float, bool], None]
"""Told of each answer: its log-likelihood in nats, and whether the model would say it greedily."""


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
        model: computes the rows.
        queries: what to score, without repeats.
        token_budget: tokens of a forward pass, padding included.
        on_done: told of each query that is scored, once.
        before: called with each round's run before it starts; may raise.

    Raises:
        EvaluationError: the memory is too small for one row.
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
    """Queries on their way through a model.

    Args:
        model: computes the rows.
        queries: what to score, without repeats.
        token_budget: tokens of a forward pass, padding included.
        on_done: told of each query that is scored.

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
        spans = Trie(queries, largest_row=token_budget, width=model.width).spans
        self.batches = make_batches(spans, token_budget)
        self._spans = spans_by_row(spans)
        self._sums = np.zeros(len(queries))
        self._greedy = np.ones(len(queries), bool)
        self._left = np.array([len(query.targets) for query in queries])
        self._kept: dict[int, Prefixes] = {}
        """The last prefixes that were computed, by their level."""

    def compute(self, lanes: Batch) -> None:
        """Computes rows of one level, and before them the prefixes that they continue."""
        wanted_N, index_M, queries_M, targets_M = self._scored(lanes)
        prefixes = self._prefixes([lane[0] for lane in lanes])
        logits_NV = self._model.logits(lanes, prefixes, wanted_N)
        self._add(logits_NV, index_M, queries_M, targets_M)
        for lane in lanes:
            for row in lane:
                self._spans.pop(row, None)

    def probe(self, row: Row) -> dict[Query, float]:
        """Returns the log-likelihoods of the queries that end in a row; the run stays as it was."""
        found: dict[Query, float] = {}
        trial = copy.copy(self)
        trial._on_done = lambda query, value, _greedy: found.update({query: value})
        trial._spans, trial._kept = dict(self._spans), {}
        trial._sums, trial._left = self._sums.copy(), self._left.copy()
        trial._greedy = self._greedy.copy()
        trial.compute(((row,),))
        return found

    def _prefixes(self, rows: Sequence[Row]) -> Prefixes | None:
        """Returns what rows of one level continue, computed where it is not kept."""
        parents = [row.parent for row in rows if row.parent is not None]
        if not parents:
            return None
        level = parents[0].level
        kept = self._kept.get(level)
        if kept is None or not set(parents) <= set(kept.rows):
            del kept
            self._kept.pop(level, None)  # free before the next ones are made
            self._kept[level] = self._compute_kept(tuple(dict.fromkeys(parents)))
        return self._kept[level].select(parents)

    def _compute_kept(self, rows: tuple[Row, ...]) -> Prefixes:
        wanted_N, index_M, queries_M, targets_M = self._scored([(row,) for row in rows])
        logits_NV, kept = self._model.keep(rows, self._prefixes(rows), wanted_N)
        self._add(logits_NV, index_M, queries_M, targets_M)
        for row in rows:  # a prefix that is computed again is not scored again
            self._spans.pop(row, None)
        return kept

    def _scored(self, lanes: Sequence[Lane]) -> tuple[Indices, Indices, Indices, Indices]:
        """Returns what is scored in lanes that are padded to one length.

        Returns:
            The positions in the flattened batch (N), and of each scored token the number of its
            position among them, its query and itself (M each).
        """
        width = width_of(lanes)
        starts = [
            (row, number * width + sum(before.size for before in lane[:place]))
            for number, lane in enumerate(lanes)
            for place, row in enumerate(lane)
        ]
        found: tuple[list[Indices], list[Indices], list[Indices]] = ([], [], [])
        for row, start in starts:
            for span in self._spans.get(row, ()):
                first, last = span.first_target, span.first_target + span.count
                found[0].append(start + span.index + np.arange(span.count))
                found[1].append(np.full(span.count, span.query))
                found[2].append(self._targets[span.query][first:last])
        places_M, queries_M, targets_M = (
            np.concatenate([np.zeros(0, np.int64), *part]) for part in found
        )
        wanted_N, index_M = np.unique(places_M, return_inverse=True)
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
