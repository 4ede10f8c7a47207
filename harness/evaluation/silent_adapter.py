"""Tells an adapter that changes no log-likelihood of a benchmark: one that was never trained, say.

Nothing is said on a sample alone. As a rule the first request differs, and that ends the matter; an
adapter that changes none of a few requests is switched off, and all are scored once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.evaluation.prefix_trie.trie import Request

if TYPE_CHECKING:
    from harness.evaluation.scorer import Answer, Scorer

NOTE = (
    "the adapter changes no log-likelihood of this benchmark: every answer is the base model's, to "
    "the last bit"
)
NUM_TRIED = 4
"""Requests of a benchmark that are scored with the adapter and without it, one by one."""


def silent_benchmarks(
    model: Any,
    scorer: Scorer,
    requests: Mapping[str, Sequence[Request]],
    answers: Mapping[Request, Answer],
) -> set[str]:
    """The names of the benchmarks none of whose log-likelihoods the model's adapter changes.

    Args:
        model: which carries an adapter of PEFT, or not.
        scorer: what has scored it.
        requests: by benchmark.
        answers: what the scorer gave.
    """
    if not hasattr(model, "disable_adapter"):
        return set()
    suspects = {name for name, of_it in requests.items() if not _changes_any(model, scorer, of_it)}
    if not suspects:
        return set()
    batching, again = scorer.batching, dict[Request, float]()

    def keep(request: Request, value: float, greedy: bool) -> None:
        again[request] = value

    # All of them in the same batches, whose sizes move the low bits.
    with without_adapter(model):
        scorer.score(list(answers), keep)
    scorer.batching = batching
    return {
        name for name in suspects if all(again[one] == answers[one][0] for one in requests[name])
    }


def _changes_any(model: Any, scorer: Scorer, requests: Sequence[Request]) -> bool:
    """Whether a few requests, the shortest ones, show that the adapter does something."""
    for request in sorted(requests, key=lambda one: len(one.input_ids))[:NUM_TRIED]:
        own = scorer.score_alone(request)
        with without_adapter(model):
            if scorer.score_alone(request) != own:
                return True
    return False


@contextlib.contextmanager
def without_adapter(model: Any) -> Iterator[None]:
    """Switches a model's adapter off, and leaves what is trainable as it was."""
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
