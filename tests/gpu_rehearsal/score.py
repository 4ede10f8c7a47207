"""Scores a real benchmark batch, or generates a few tokens, by zbench's own `evaluate_together`.

    python -m tests.gpu_rehearsal.score zero-init-linear --task arc_easy --limit 64
    python -m tests.gpu_rehearsal.score lora --task arc_easy --plainly
    python -m tests.gpu_rehearsal.score lora --task paper_arc_easy --limit 8 --new-tokens 4

The scores mean nothing (every log-likelihood is 0); shapes, devices, dtypes, memory and waits do.
"""

from __future__ import annotations

from tests.gpu_rehearsal import before_torch  # noqa: F401

# isort: split

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from harness.evaluation import evaluate_together, scorer
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.tasks import TaskSpec
from tests.gpu_rehearsal import stage
from tests.gpu_rehearsal.card import Card, rehearsal
from tests.gpu_rehearsal.cards import CARDS
from tests.gpu_rehearsal.steps import figures_of

PLAINLY = "rehearsed without prefix sharing"


@contextlib.contextmanager
def short_generation(new_tokens: int, num_rows: int = 64) -> Iterator[None]:
    """Lets responses end after a few tokens, since no EOS ever comes."""
    original = GeneratingModel.__init__

    def short(self: Any, *args: Any, decoding: Any, **kwargs: Any) -> None:
        kwargs["num_rows"] = num_rows
        decoding = dataclasses.replace(decoding, max_new_tokens=new_tokens)
        original(self, *args, decoding=decoding, **kwargs)

    with mock.patch.object(GeneratingModel, "__init__", short):
        yield


@contextlib.contextmanager
def without_sharing() -> Iterator[None]:
    """Scores request by request, as models are that prefix sharing does not suit."""
    with mock.patch.object(scorer, "static_refusal", return_value=PLAINLY):
        yield


def score(model: Any, precision: str, task: str, *, limit: int, new_tokens: int = 4) -> Any:
    """Scores a model on the first items of a benchmark; generation stops after `new_tokens`."""
    with short_generation(new_tokens):
        (outcome,) = evaluate_together(
            model,
            stage.tokenizer(),
            [TaskSpec(name=task, limit=limit)],
            data_root=stage.data_root(),
            precision=precision,
        )
    return outcome


def score_figures(card: Card, outcome: Any) -> dict[str, Any]:
    """What is expected of a scoring since the card's reset, and compared."""
    return {
        **figures_of(card.counts),
        "peak_gb": round(card.peak / 1e9, 3),
        "fallback": outcome.batching.fallback,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--size", default="7b", choices=stage.SIZES)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--card", default="h200", choices=CARDS)
    parser.add_argument("--precision", default="bf16", choices=stage.DTYPES)
    parser.add_argument("--task", default="arc_easy")
    parser.add_argument("--limit", type=int, default=32, help="items")
    parser.add_argument("--new-tokens", type=int, default=4)
    parser.add_argument("--plainly", action="store_true", help="without prefix sharing")
    given = parser.parse_args()
    shape = stage.shape_of(given.size, given.layers)
    for method in given.methods:
        begun = time.perf_counter()
        with rehearsal(given.card) as card, contextlib.ExitStack() as stack:
            if given.plainly:
                stack.enter_context(without_sharing())
            base = stage.base_model(shape, given.precision)
            model = stage.apply(method, base, shape)[0].eval()
            card.reset()
            outcome = score(
                *(model, given.precision, given.task),
                limit=given.limit,
                new_tokens=given.new_tokens,
            )
            figures, counts = score_figures(card, outcome), card.counts
        print(f"{method} on {given.task}:", ", ".join(f"{k} {v}" for k, v in figures.items()))
        print("   batching:", outcome.batching)
        for call, times in counts.attention.most_common(6):
            print(f"   {times:6,} times {tuple(call)}")
        for site, waits in counts.syncs_by_site.most_common(12):
            print(f"   {waits:6,} waits at {site}")
        print(f"   rehearsed in {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
