# ruff: noqa: E501, E402, PT008
"""Scores one real benchmark batch, and generates a few tokens, on a card that is not there.

    python score.py zero-init-linear --size 7b --card h200 --precision bf16 --task arc_easy --limit 64
    python score.py lora --task paper_arc_easy --limit 8 --new-tokens 4

zbench's own `evaluate_together` does it: lm-eval's requests, the trie, the pool. The scores mean
nothing (log-likelihoods are 0); shapes, devices, dtypes, memory and waits do.
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

from harness.evaluation import evaluate_together
from harness.evaluation.tasks import TaskSpec
from tests.gpu_rehearsal import card as fakecuda
from tests.gpu_rehearsal import stage


@contextlib.contextmanager
def short_generation(new_tokens: int = 4, num_rows: int = 64) -> Iterator[None]:
    """Lets responses end after a few tokens."""
    from harness.evaluation.paper import model as speaking

    original = speaking.GeneratingModel.__init__

    def short(self: Any, *args: Any, decoding: Any, **kwargs: Any) -> None:
        kwargs["num_rows"] = num_rows
        decoding = dataclasses.replace(decoding, max_new_tokens=new_tokens)
        original(self, *args, decoding=decoding, **kwargs)

    with mock.patch.object(speaking.GeneratingModel, "__init__", short):
        yield


def score(model: Any, precision: str, task: str, *, limit: int, new_tokens: int = 4) -> Any:
    """Scores a model on the first items of a benchmark; generation stops after `new_tokens`."""
    with short_generation(new_tokens):
        (outcome,) = evaluate_together(
            model, stage.tokenizer(), [TaskSpec(name=task, limit=limit)], data_root=stage.DATA,
            precision=precision,
        )  # fmt: skip
    return outcome


def measure(
    method: str, task: str, *, size: str, layers: int | None, card_name: str, precision: str,
    limit: int, new_tokens: int,
) -> dict[str, Any]:  # fmt: skip
    shape = stage.shape_of(size, layers)
    with fakecuda.rehearsal(card_name) as card:
        model, _ = stage.apply(method, stage.base_model(shape, precision), shape)
        card.reset()
        begun = time.perf_counter()
        outcome = score(model.eval(), precision, task, limit=limit, new_tokens=new_tokens)
        counts = card.counts
        return {
            "method": method, "task": task, "ops": counts.ops, "kernels": counts.kernels,
            "syncs": counts.syncs, "tflop": counts.flops / 1e12, "peak_gb": card.peak / 1e9,
            "batching": outcome.batching, "attention": counts.attention,
            "sync_sites": counts.sync_sites, "seconds": time.perf_counter() - begun,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--size", default="7b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--card", default="h200")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--task", default="arc_easy")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=4)
    given = parser.parse_args()
    for method in given.methods:
        found = measure(
            method, given.task, size=given.size, layers=given.layers, card_name=given.card,
            precision=given.precision, limit=given.limit, new_tokens=given.new_tokens,
        )  # fmt: skip
        attention, waits = found.pop("attention"), found.pop("sync_sites")
        print(
            ", ".join(
                f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items()
            )
        )
        print("   attention:", *(f"{n}x {k}" for k, n in attention.most_common(6)), sep="\n      ")
        print(
            "   waits:",
            *(f"{n}x {k}" for k, n in waits.most_common(12)),
            sep="\n      ",
            flush=True,
        )


if __name__ == "__main__":
    main()
