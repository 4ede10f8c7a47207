"""Measures zbench's scorer against lm-eval's own `HFLM`, on real items with a real tokenizer.

    ZBENCH_DATA_ROOT=... python benchmarks/eval_speed.py [--quick] [--json] [--models 15M 110M]

Both score the same requests in one process, in turn; each time is the median of the repeats. HFLM
is given each benchmark by itself, with the better of 8 and 32 requests per batch. Times are those
of the scoring calls: loading and the one-time check of a model are left out. The models are random:
no time depends on what the weights are. On a CPU use one thread (OMP_NUM_THREADS=1): then times are
the processor's, and other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measuring import print_line, timed
from benchmarks.subjects import (
    TASKS,
    count_tokens,
    load_model,
    matrix_peak,
    requests_of,
    score_hflm,
    score_ours,
)
from harness.evaluation.tasks import DEFAULT_TOKEN_BUDGET

FULL_SIZES = {
    "arc_easy": 2376,
    "arc_challenge": 1172,
    "mmlu": 14042,
    "hellaswag": 10042,
    "truthfulqa": 817,
}
SIZES = {
    "15M": {"arc_easy": 200, "arc_challenge": 200, "mmlu": 228, "hellaswag": 16, "truthfulqa": 40},
    "110M": {"arc_easy": 150, "arc_challenge": 150, "mmlu": 171, "hellaswag": 8, "truthfulqa": 16},
    "7B": {"arc_easy": 600, "arc_challenge": 600, "mmlu": 684, "hellaswag": 96, "truthfulqa": 120},
}
"""Items by task."""
QUICK_SIZES = {
    "15M": {"arc_easy": 40, "arc_challenge": 24, "mmlu": 57, "hellaswag": 2, "truthfulqa": 5},
    "110M": {"arc_easy": 8, "arc_challenge": 6, "mmlu": 12, "hellaswag": 1, "truthfulqa": 2},
    "7B": {"arc_easy": 100, "arc_challenge": 100, "mmlu": 114, "hellaswag": 16, "truthfulqa": 24},
}
HFLM_BATCH_SIZES = (8, 32)


@dataclass(frozen=True)
class Measured:
    """One task with one model."""

    task: str
    model: str
    items: int
    seconds: float
    hflm_seconds: float
    hflm_batch_size: int
    ratio: float
    """HFLM's time over ours."""
    token_limit: float
    """The tokens that HFLM feeds, padding apart, over those of the trie of all requests."""
    limit_reached: float
    """Share of the limit; over 1 where logits that nobody scores weigh more than the rest."""
    max_abs_difference: float
    """Of a log-likelihood, in nats."""
    greedy_differences: int
    peak_memory_ratio: float | None
    items_per_second: float
    matrix_peak_share: float | None
    """Operations of the trie's tokens per second, over what one large product reaches; GPU only."""


def measure(arguments: argparse.Namespace, name: str, task: str, model: Any) -> Measured:
    """Measures one task with one model."""
    root, budget = arguments.data_root, arguments.token_budget
    tokenizer = AutoTokenizer.from_pretrained(root / "llama_tokenizer")
    requests = requests_of(task, sizes_of(arguments, name)[task], root)
    # The first call also tries whether the model can be scored so; both are warm after this.
    score_ours(model, tokenizer, requests, budget)
    score_hflm(model, tokenizer, [requests[0][:2]], HFLM_BATCH_SIZES[0])
    ours: list[float] = []
    theirs: dict[int, list[float]] = {size: [] for size in HFLM_BATCH_SIZES}
    expected = None
    for _ in range(arguments.repeats):
        for size in HFLM_BATCH_SIZES:
            seconds, expected = timed(
                lambda size=size: score_hflm(model, tokenizer, requests, size)  # type: ignore[misc]
            )
            theirs[size].append(seconds)
            seconds, answers = timed(lambda: score_ours(model, tokenizer, requests, budget))
            ours.append(seconds)
    seconds = statistics.median(ours)
    medians = {size: statistics.median(found) for size, found in theirs.items()}
    best = min(medians, key=medians.__getitem__)
    fed, nodes = count_tokens(model, tokenizer, requests)
    assert expected is not None
    pairs = list(zip(answers, expected, strict=True))
    ratio, token_limit = medians[best] / seconds, fed / nodes
    items = len({(one.task_name, one.doc_id) for one in requests[0]})
    return Measured(
        task=task,
        model=name,
        items=items,
        seconds=seconds,
        hflm_seconds=medians[best],
        hflm_batch_size=best,
        ratio=ratio,
        token_limit=token_limit,
        limit_reached=ratio / token_limit,
        max_abs_difference=max(abs(a[0] - b[0]) for a, b in pairs),
        greedy_differences=sum(a[1] != b[1] for a, b in pairs),
        peak_memory_ratio=None,
        items_per_second=items / seconds,
        matrix_peak_share=peak_share(model, nodes / seconds),
    )


def peak_share(model: Any, tokens_per_second: float) -> float | None:
    """Returns the share of the GPU's matrix peak; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    return 2 * model.num_parameters() * tokens_per_second / matrix_peak(model.dtype)


def peak_ratios(
    arguments: argparse.Namespace, name: str, batch_sizes: dict[str, int]
) -> dict[str, float]:
    """Returns our peak memory over HFLM's by task, each in a process that does nothing else.

    On a CPU it is the whole process's, with the model and all that is imported.
    """
    command = [sys.executable, __file__, "--models", name, "--peaks", json.dumps(batch_sizes)]
    command += ["--data-root", str(arguments.data_root)] + ["--quick"] * arguments.quick
    command += ["--token-budget", str(arguments.token_budget)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    ratios: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return ratios


def print_peaks(arguments: argparse.Namespace) -> None:
    """Prints the ratios of `peak_ratios`: each task and scorer in a fork of this fresh process."""
    ratios = {}
    for task, batch_size in json.loads(arguments.peaks).items():
        ours, theirs = (peak_in_fork(arguments, task, size) for size in (0, batch_size))
        ratios[task] = ours / theirs
    print(json.dumps(ratios))


def peak_in_fork(arguments: argparse.Namespace, task: str, batch_size: int) -> int:
    """Returns the peak memory in bytes of scoring a task once, with HFLM unless the size is 0."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, str(score_once(arguments, task, batch_size)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as result:
        text = result.read()
    os.waitpid(child, 0)
    if not text:
        raise SystemExit(f"{task}: the process whose memory is measured has died")
    return int(text)


def score_once(arguments: argparse.Namespace, task: str, batch_size: int) -> int:
    """Scores a task once in this process, and returns its peak memory in bytes."""
    name = arguments.models[0]
    tokenizer = AutoTokenizer.from_pretrained(arguments.data_root / "llama_tokenizer")
    requests = requests_of(task, sizes_of(arguments, name)[task], arguments.data_root)
    model = load_model(name)
    if batch_size:
        score_hflm(model, tokenizer, requests, batch_size)
    else:
        score_ours(model, tokenizer, requests, arguments.token_budget)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def sizes_of(arguments: argparse.Namespace, name: str) -> dict[str, int]:
    """Returns the number of items by task."""
    return (QUICK_SIZES if arguments.quick else SIZES)[name]


def suite_row(measured: Sequence[Measured]) -> dict[str, Any]:
    """Returns ratio and limit of the whole suite: each task's time per item times its full size."""
    ours = sum(one.seconds / one.items * FULL_SIZES[one.task] for one in measured)
    theirs = sum(one.hflm_seconds / one.items * FULL_SIZES[one.task] for one in measured)
    # What HFLM's time would be cut to if each task reached its limit.
    least = sum(
        one.hflm_seconds / one.token_limit / one.items * FULL_SIZES[one.task] for one in measured
    )
    memory = [one.peak_memory_ratio for one in measured if one.peak_memory_ratio is not None]
    return {
        "model": measured[0].model,
        "ratio": theirs / ours,
        "token_limit": theirs / least,
        "limit_reached": least / ours,
        "max_abs_difference": max(one.max_abs_difference for one in measured),
        "peak_memory_ratio": max(memory, default=None),
    }


COLUMNS = "{:14} {:>5} {:>6} {:>9} {:>9} {:>6} {:>6} {:>8} {:>8} {:>6} {:>7} {:>6}"


def read_arguments() -> argparse.Namespace:
    """Returns the command line's arguments."""
    parser = argparse.ArgumentParser(description="Speed of scoring against lm-eval's HFLM.")
    parser.add_argument("--quick", action="store_true", help="few items; within 5 minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--models", nargs="+", choices=["15M", "110M", "7B"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--repeats", type=int, default=None, help="1 if quick, else 3")
    parser.add_argument("--token-budget", type=int, default=DEFAULT_TOKEN_BUDGET)
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument(
        "--data-root", type=Path, default=os.environ.get("ZBENCH_DATA_ROOT"), help="local data"
    )
    parser.add_argument("--peaks", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.data_root is None:
        parser.error("name the folder of the data with --data-root or ZBENCH_DATA_ROOT")
    if arguments.models is None:
        arguments.models = ["7B"] if torch.cuda.is_available() else ["15M", "110M"]
    if arguments.repeats is None:
        arguments.repeats = 1 if arguments.quick else 3
    return arguments


def main() -> None:
    """Measures and prints."""
    logging.disable(logging.WARNING)
    arguments = read_arguments()
    if arguments.peaks:
        print_peaks(arguments)
        return
    found: dict[str, Any] = {}
    if not arguments.json:
        titles = ("task", "model", "items", "HFLM s", "zbench s", "batch", "ratio", "limit")
        print_line(COLUMNS, (*titles, "reached", "memory", "max |d|", "greedy"))
    for name in arguments.models:
        model = load_model(name)
        measured = [measure(arguments, name, task, model) for task in arguments.tasks]
        del model
        # Quickly, memory is measured with the first model: the larger its logits' part, the more.
        if not arguments.no_memory and not (arguments.quick and name != arguments.models[0]):
            sizes = {one.task: one.hflm_batch_size for one in measured}
            ratios = peak_ratios(arguments, name, sizes)
            measured = [replace(one, peak_memory_ratio=ratios[one.task]) for one in measured]
        rows = {one.task: asdict(one) for one in measured} | {"suite": suite_row(measured)}
        several = len(arguments.models) > 1
        found |= {f"{task}/{name}" if several else task: row for task, row in rows.items()}
        if not arguments.json:
            print_rows(rows)
    if arguments.json:
        print(json.dumps(found, indent=1))


def print_rows(rows: dict[str, dict[str, Any]]) -> None:
    """Prints a model's part of the table."""
    keys = ("items", "hflm_seconds", "seconds", "hflm_batch_size", "ratio", "token_limit")
    keys += ("limit_reached", "peak_memory_ratio", "max_abs_difference", "greedy_differences")
    for task, row in rows.items():
        print_line(COLUMNS, (task, row["model"], *(row.get(key) for key in keys)))
        if row.get("matrix_peak_share") is not None:
            share, speed = row["matrix_peak_share"], row["items_per_second"]
            print(f"  {speed:.1f} items/s, {share:.0%} of the matrix peak", flush=True)


if __name__ == "__main__":
    main()
