"""Small hand-made grids: a table of answers per cell gives frames and items as a real run does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest

from harness.evaluation.benchmarks import BENCHMARKS
from harness.report import Report, ReportInput, build_report

TITLES = {
    "base": "Base model",
    "full": "Full fine-tuning",
    "lora": "LoRA",
    "random-init": "Random-init",
    "zero-init-linear": "Zero-init + linear",
    "zero-init-nonlinear": "Zero-init + non-linear",
}
ALL = ("arc_easy", "arc_challenge", "mmlu", "hellaswag", "truthfulqa_mc1")


@dataclass
class GridResults:
    """Collects cells, and turns them into what a report takes."""

    cells: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)
    items: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)

    def add(
        self,
        method: str,
        seed: int | None = 0,
        answers: Mapping[str, Sequence[float]] | None = None,
        *,
        model: str = "tiny",
        fraction: float = 1.0,
        status: str = "done",
        error: str | None = None,
        label: str | None = None,
        losses: Sequence[float] = (),
        **fields: Any,
    ) -> str:
        """Adds a cell with its answers by benchmark; returns its id."""
        is_base = method == "base"
        cell_id = "-".join(map(str, (model, label or method, fraction, seed)))
        head = {
            "cell_id": cell_id,
            "label": cell_id,
            "model": model,
            "method": label or method,
            "method_name": method,
            "method_title": TITLES.get(method, method),
            "fraction": math.nan if is_base else fraction,
            "seed": None if is_base else seed,
        }
        self.cells.append(
            {
                **head,
                "status": status,
                "trainable_parameters": 0 if is_base else 1_229_760,
                "total_parameters": 6_738_415_616,
                "examples": None if is_base else 100,
                "steps": None if is_base else 10,
                "seconds": None if is_base else 4000.0,
                "evaluation_seconds": 12.0,
                "tokens_per_second": None if is_base else 1000.0,
                "peak_memory_bytes": None if is_base else 2**30,
                "peak_learning_rate": None if is_base else 2.25e-3,
                "precision": "fp32",
                "device": "cpu",
                "error": error,
                "final_gate_mean_abs": math.nan,
                "final_gate_max_abs": math.nan,
            }
        )
        for benchmark, values in (answers or {}).items():
            self.score(head, benchmark, values, **fields)
        for epoch, loss in enumerate(losses):
            self.losses.append({**head, "epoch": epoch, "loss": loss})
        return cell_id

    def score(
        self, head: Mapping[str, Any], benchmark: str, values: Sequence[float], **fields: Any
    ) -> None:
        """Adds a benchmark's score and its items."""
        known = BENCHMARKS.get(benchmark)
        metric = fields.pop("metric", known.primary_metric if known else "acc")
        series = pd.Series(values, dtype=float)
        record = {
            "key": f"{benchmark}-{sorted(fields.items())}",
            "protocol": "lm-eval",
            "benchmark": benchmark,
            "task": benchmark,
            "metric": metric,
            "value": float(series.mean()),
            "stderr": float(series.std(ddof=1) / math.sqrt(len(series))),
            "n": len(series),
            "shots": known.shots if known else 0,
            "limit": None,
            "task_version": "1.0",
            "lm_eval_version": "0.4.13",
            "data_source": f"{benchmark}.parquet",
            "data_sha256": "ab" * 32,
            "tokenizer_sha256": "cd" * 32,
            "precision": "fp32",
            "note": None,
        }
        self.scores.append({**head, **record, **fields})
        self.items[head["cell_id"], benchmark] = pd.DataFrame(
            {
                "task": benchmark,
                "doc_id": range(len(series)),
                "question_id": [f"q{i}" for i in range(len(series))],
                metric: series,
            }
        )

    def input(self, **fields: Any) -> ReportInput:
        """Returns what `build_report` takes."""
        columns = [*self.cells[0], "epoch", "loss"] if self.cells else []
        defaults: dict[str, Any] = {
            "grid_name": "tiny-grid",
            "grid_title": "A tiny grid",
            "grid_yaml": "name: tiny-grid\n",
            "scores": pd.DataFrame(self.scores),
            "cells": pd.DataFrame(self.cells).astype({"seed": "Int64"}),
            "losses": pd.DataFrame(self.losses, columns=None if self.losses else columns),
            "items": lambda cell_id, benchmark: self.items.get((cell_id, benchmark)),
            "notes": ("A line of the grid.",),
            "environment": {"versions": {"torch": "2.13.0"}, "host": "here"},
        }
        return ReportInput(**{**defaults, **fields})


def answers_of(pattern: str, benchmarks: Sequence[str] = ALL) -> dict[str, list[float]]:
    """Returns the same answers for benchmarks: `"1100"` for all five of the tables."""
    return {name: [float(character) for character in pattern] for name in benchmarks}


def make_small_grid() -> GridResults:
    """Returns a grid with every method, two seeds of the prompt methods, a failed and a missing
    cell."""
    results = GridResults()
    results.add("base", None, answers_of("10001000"))
    results.add("full", 0, answers_of("11101110"), losses=[1.4, 1.1, 1.0])
    results.add("lora", 0, answers_of("11101010"), losses=[1.5, 1.2, 1.1])
    methods = ("random-init", "zero-init-linear", "zero-init-nonlinear")
    for fraction, patterns in ((0.1, ("10101000", "10001000")), (1.0, ("11101000", "10101010"))):
        for bonus, method in enumerate(methods):
            for seed, pattern in enumerate(patterns):
                answers = answers_of(pattern[: 8 - bonus] + "1" * bonus)
                losses = [4.0 - bonus, 1.2, 1.1, 1.05 + 0.01 * seed]
                results.add(method, seed, answers, fraction=fraction, losses=losses)
    results.add("zero-init-linear", 2, status="failed", error="TrainingError: step 3: <nan>\nmore")
    results.add("random-init", 2, status="missing")
    return results


@pytest.fixture
def results() -> GridResults:
    """An empty grid."""
    return GridResults()


@pytest.fixture
def answer() -> Callable[..., dict[str, list[float]]]:
    """See `answers_of`."""
    return answers_of


@pytest.fixture
def small_grid() -> GridResults:
    """See `make_small_grid`; may be changed."""
    return make_small_grid()


@pytest.fixture(scope="session")
def small_report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of `make_small_grid`, built once."""
    return build_report(make_small_grid().input(), tmp_path_factory.mktemp("report"))
