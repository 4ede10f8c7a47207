"""Check 5: scoring and generation at true size take the fast way, and give numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.instance import Instance

from benchmarks.gpu_check.bench import Bench, all_finite
from benchmarks.gpu_check.rows import Row, judged
from benchmarks.measuring import timed
from harness.evaluation import evaluate
from harness.evaluation.loading import load_benchmark
from harness.evaluation.paper.model import GeneratingModel
from harness.evaluation.tasks import TaskSpec

METHOD = "zero-init-linear"
BASE_GB = 24.0
"""Free memory that scoring at full depth needs: 13.5 GB of weights, and a pass."""
ITEMS, RESPONSES, NEW_TOKENS = 512, 64, 16


def scores_items(bench: Bench, method: str = METHOD) -> Iterator[Row]:
    """512 items of ARC-Easy, by lm-eval's own evaluator over our scorer."""
    size, items = bench.size(BASE_GB), 6 if bench.tiny else ITEMS
    precision = "fp32" if bench.tiny else bench.half
    with bench.released():
        model = bench.adapted(method, size, precision).eval()
        task = TaskSpec(name="arc_easy", limit=items)
        seconds, outcome = timed(
            lambda: evaluate(
                model, bench.tokenizer, task, data_root=bench.task_root, precision=precision
            )
        )
        values = [float(one) for found in outcome.items["choices_loglikelihoods"] for one in found]
        batching = outcome.batching
        yield judged(
            5,
            f"{method}, {size}: {items} ARC items scored",
            all_finite(values)
            and len(outcome.items) == items
            and batching.fallback is None
            and batching.effective == batching.setting,
            found=f"{items / seconds:.0f} items/s, {_batching(batching)}",
            expected="no fallback, finite",
            source="chosen",
            figures={"seconds": seconds, "items": items, "fallback": batching.fallback,
                     "effective": batching.effective, "size": size},
        )  # fmt: skip


def generates_responses(bench: Bench, method: str = METHOD) -> Iterator[Row]:
    """64 responses of 16 tokens each, in the pool."""
    size, count = bench.size(BASE_GB), 3 if bench.tiny else RESPONSES
    precision = "fp32" if bench.tiny else bench.half
    with bench.released():
        model = bench.adapted(method, size, precision).eval()
        speaker, seconds = respond(bench, model, precision, count, 4 if bench.tiny else NEW_TOKENS)
        tokens = sum(len(one.tokens) + one.ended for one in speaker.responses.values())
        batching = speaker.batching
        yield judged(
            5,
            f"{method}, {size}: {count} responses generated",
            len(speaker.responses) == count
            and tokens > 0
            and batching.fallback is None
            and batching.effective == batching.setting,
            found=f"{tokens / seconds:.0f} tokens/s, {_batching(batching)}",
            expected="no fallback",
            source="chosen",
            figures={"seconds": seconds, "tokens": tokens, "responses": count,
                     "fallback": batching.fallback, "size": size},
        )  # fmt: skip


def respond(
    bench: Bench, model: Any, precision: str, count: int, new_tokens: int, **settings: Any
) -> tuple[GeneratingModel, float]:
    """Generates greedy responses to ARC's prompts in the paper's form; also the seconds."""
    requests = prompts(bench, count)
    decoding = TaskSpec(name="paper_arc_easy").decoding
    assert decoding is not None
    decoding = replace(decoding, max_new_tokens=new_tokens, temperature=0.0)
    speaker = GeneratingModel(
        model, bench.tokenizer, decoding=decoding, precision=precision, **settings
    )
    begun = time.perf_counter()
    speaker.generate_until(list(requests))  # its tokens are read: it has ended on the card too
    return speaker, time.perf_counter() - begun


def prompts(bench: Bench, count: int) -> Sequence[Instance]:
    """Requests of ARC-Easy in the form of the paper's protocol."""
    loaded = load_benchmark(TaskSpec(name="paper_arc_easy", limit=count), bench.task_root)
    loaded.build_requests()
    found: list[Instance] = [one for task in loaded.tasks.values() for one in task.instances]
    return found


def _batching(batching: Any) -> str:
    if batching.fallback is not None:
        return f"fallback: {batching.fallback}"
    if batching.effective != batching.setting:
        return f"halved to {batching.effective}"
    return "no fallback"
