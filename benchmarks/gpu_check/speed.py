"""Checks 11 to 13: zbench and its peers on one card, in turn, on the same batches."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.rows import Row, close, judged
from benchmarks.measuring import timed
from benchmarks.subjects import requests_of, score_hflm, score_ours
from benchmarks.train_speed import PEERS
from benchmarks.train_speed import timed as timed_training
from benchmarks.training_runs import Run, matrix_peak, operations, runner
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET
from harness.training.micro_batches import resolve_budget
from harness.training.spec import TrainSpec

ALONE = ("zero-init-nonlinear", "random-init")
"""Methods that no peer has: ours alone."""
PAIRS = {
    **{
        name: pair
        for name, pair in PEERS.items()
        if pair[1].loop in ("trainer", "trl") and not pair[1].grouped
    },
    **{name: (name, None) for name in ALONE},
}
"""By name: our method, and its peer."""
PAIR_GB = 90.0
"""Free memory that two models at full depth and a step of either need."""
BATCHES = 3
ROOT = Path(__file__).parents[2]


def why_not(bench: Bench, name: str) -> str | None:
    """Why a peer cannot be measured here; None where it can."""
    peer = PAIRS[name][1]
    if peer is not None and peer.loop == "trl" and find_spec("trl") is None:
        return "trl is not installed (pip install trl)"
    if bench.on_card and bench.half != "bf16":
        return "this card does not compute in bf16, in which the peers are measured"
    return None


def trains(bench: Bench, name: str) -> Iterator[Row]:
    """Tokens per second and share of the matrix peak of a method, and of its peer if it has one."""
    method, peer = PAIRS[name]
    # Two copies of a whole model's optimizer are more than any card has.
    size = bench.size(PAIR_GB if method != "full" else float("inf"))
    count = 1 if bench.tiny else BATCHES
    precision = "bf16" if bench.on_card else "fp32"
    # One batch for all: the peers' times are of equal sequences a step.
    spec = TrainSpec(learning_rate=1e-4, batch_size=8 if size != "7B" else 64, max_length=512)
    with bench.released():
        model = bench.adapted(method, size, precision)
        ours = runner(Run(method, "zbench"), model)
        theirs = peer and runner(peer, bench.adapted(peer.method, size, precision))
        batches = bench.batches(count, spec)
        for train in filter(None, (ours, theirs)):
            train([batches[0][:4]])  # warm
        pairs = [
            (timed_training(ours, [batch]), theirs and timed_training(theirs, [batch]))
            for batch in batches
        ]
        seconds = statistics.median(own for own, _ in pairs)
        ratios = [other / own for own, other in pairs if other]
        tokens = sum(len(one.token_ids) for batch in batches for one in batch) / count
        budget = resolve_budget(None, batches[0], torch.device(bench.device))
        work = statistics.mean(operations(model, batch, budget) for batch in batches)
        share = work / seconds / matrix_peak()
        ratio = statistics.median(ratios) if ratios else None
        yield Row(
            11,
            f"{method}, {size}: training" + (f" against {name}" if peer else ""),
            "measured",
            found=f"{tokens / seconds:,.0f} tokens/s, {share:.0%} of peak"
            + (f", {ratio:.2f}×" if ratio else ""),
            expected="not yet run",
            figures={"size": size, "tokens_per_second": tokens / seconds, "seconds": seconds,
                     "peer_seconds": [other for _, other in pairs], "matrix_peak_share": share,
                     "ratio": ratio, "ratios": ratios},
        )  # fmt: skip


def scores(bench: Bench) -> Iterator[Row]:
    """Items per second of our scorer and of HFLM, with the better of two batch sizes."""
    size, items = bench.size(24.0), 4 if bench.tiny else 128
    with bench.released():
        model = bench.adapted("base", size, "bf16" if bench.on_card else "fp32").eval()
        requests = requests_of("arc_easy", items, bench.task_root)
        theirs: dict[int, list[float]] = {8: [], 32: []}
        ours = []
        score_ours(model, bench.tokenizer, requests, DEFAULT_TOKEN_BUDGET)  # warm
        for _ in range(1 if bench.tiny else BATCHES):
            for batch_size, found in theirs.items():
                seconds, expected = timed(
                    lambda n=batch_size: score_hflm(model, bench.tokenizer, requests, n)  # type: ignore[misc]
                )
                found.append(seconds)
            seconds, answers = timed(
                lambda: score_ours(model, bench.tokenizer, requests, DEFAULT_TOKEN_BUDGET)
            )
            ours.append(seconds)
        best = min(theirs, key=lambda batch_size: statistics.median(theirs[batch_size]))
        ratio = statistics.median(theirs[best]) / statistics.median(ours)
        tolerance = 0.5 if bench.on_card else 1e-3
        good, difference = close([a[0] for a in answers], [a[0] for a in expected], tolerance)
        yield judged(
            12,
            f"base, {size}: scoring against HFLM",
            good,
            found=f"{items / statistics.median(ours):,.0f} items/s, {ratio:.2f}×, |d| {difference}",
            expected=f"|d| ≤ {tolerance:g} nats",
            source="bf16's rounding of two orders of sums; chosen",
            figures={"seconds": ours, "hflm_seconds": theirs, "ratio": ratio, "size": size},
        )  # fmt: skip


def two_cells(bench: Bench) -> Iterator[Row]:
    """Two processes with a cell each on one card: the losses of one alone, and the time."""
    seconds, (alone,) = timed(lambda: run_cells(bench, 1))
    together, both = timed(lambda: run_cells(bench, 2))
    checked = [close(losses, alone, 1e-4) for losses in both]
    yield judged(
        13,
        "two cells on one card",
        all(good for good, _ in checked),
        found=f"losses {max(text for _, text in checked)}, {together / seconds:.2f}× the time",
        expected="losses 1e-4",
        source="as check 1",
        figures={"seconds_alone": seconds, "seconds_together": together, "losses": both},
    )


def run_cells(bench: Bench, count: int) -> list[list[float]]:
    """Runs equal cells at the same time, each in a process; returns the losses of their steps."""
    fraction = 0.03 if bench.tiny else 0.3
    processes = []
    for number in range(count):
        folder = bench.folder / f"{count}-cells" / str(number)
        command = [sys.executable, "-m", "benchmarks.gpu_check.cells", str(folder), bench.device]
        processes.append(
            subprocess.Popen(
                [*command, str(fraction)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    found = []
    for process in processes:
        out, errors = process.communicate()
        if process.returncode:
            raise RuntimeError((errors.strip().splitlines() or ["no message"])[-1])
        found.append(json.loads(out.splitlines()[-1]))
    return found
