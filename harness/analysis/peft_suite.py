"""PEFT's public comparison on MetaMathQA and GSM8K: its published rows, and what they can tell.

The rows ship beside this file (`peft_suite.json`) with their source and licence. Accuracy is the
share of GSM8K's 1,319 test items; every row was trained once, with seed 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.grid.cells import Cell
    from harness.training.spec import TrainSpec

DATA_SET = "meta-math/MetaMathQA"
BENCHMARKS = ("peft_gsm8k", "peft_gsm8k_sampled")
"""The benchmarks that the published accuracy is compared with."""
SUITE = "peft-suite"
"""What a grid's `published_runs` calls them."""
TORCH_WEIGHT_DECAY = 0.01
"""AdamW's own in torch: a row that states optimizer options and no weight decay has this one, since
its options replace the suite's as a whole."""
NORMAL_95 = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""
SIGNIFICANCE = 0.05
"""Level at which neighbours count as told apart."""


@dataclass(frozen=True)
class SuiteRow:
    """One published configuration and its results."""

    label: str
    """What its cell is called, such as `lora-rank32`."""
    experiment: str
    adapter: Mapping[str, Any] | None
    """PEFT's options; None of full fine-tuning."""
    training: Mapping[str, Any]
    """Training settings, the suite's defaults included."""
    accuracy: float
    """On the test items, 0..1."""
    validation_accuracy: float
    """At the last step, on 50 rows of GSM8K's training split."""
    forgetting: float
    """How much the loss on 100 wikipedia articles rose, in nats per token."""
    trained_parameters: int
    step_seconds: float
    """Of the optimizer steps alone."""
    run_seconds: float
    """Of the steps, the reading of the rows and the scoring of the test items."""
    peak_memory_bytes: int
    """Reserved by torch's allocator, at most, in training and scoring."""

    def stderr(self, num_items: int) -> float:
        """The binomial standard error of the accuracy, 0..1; of its items alone."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / num_items)


@dataclass(frozen=True)
class SuiteTable:
    """All published rows and what they have in common."""

    source: str
    hardware: str
    software: str
    num_items: int
    revisions: Mapping[str, str]
    """Commits of the model and of the data sets."""
    rows: tuple[SuiteRow, ...]
    """In the order of the file, by experiment."""

    def row(self, label: str) -> SuiteRow | None:
        """The row that a label stands for."""
        return next((row for row in self.rows if row.label == label), None)

    @property
    def ranking(self) -> list[SuiteRow]:
        """The rows from the highest accuracy to the lowest."""
        return sorted(self.rows, key=lambda row: -row.accuracy)


@cache
def suite_table() -> SuiteTable:
    """The published rows that ship with the package."""
    text = (files("harness.analysis") / "peft_suite.json").read_text(encoding="utf-8")
    raw: dict[str, Any] = json.loads(text)
    return SuiteTable(
        source=raw["source"],
        hardware=raw["hardware"],
        software=raw["software"],
        num_items=raw["test_items"],
        revisions=raw["revisions"],
        rows=tuple(_row(one, raw["default_training"]) for one in raw["rows"]),
    )


def _row(raw: Mapping[str, Any], default: Mapping[str, Any]) -> SuiteRow:
    return SuiteRow(
        label=label_of_experiment(raw["experiment"]),
        experiment=raw["experiment"],
        adapter=raw["adapter_config"],
        training={**default, **raw["training_overrides"]},
        accuracy=raw["test_accuracy"],
        validation_accuracy=raw["valid_accuracy"],
        forgetting=raw["forgetting"],
        trained_parameters=raw["num_trainable_params"],
        step_seconds=raw["step_seconds"],
        run_seconds=raw["train_seconds"],
        peak_memory_bytes=raw["memory_max"],
    )


def published_cost(name: str | None) -> list[str]:
    """What published runs took, a line for whoever plans them; nothing where none are named."""
    if name != SUITE:
        return []
    table = suite_table()
    steps = sum(row.step_seconds for row in table.rows) / 3600
    whole = sum(row.run_seconds for row in table.rows) / 3600
    return [
        f"published: the steps of {len(table.rows)} trainings took {steps:.1f} hours on one "
        f"{table.hardware}, {whole:.1f} with the scoring of the test items; 4 rows a step do not "
        "fill a GPU, and an estimate from a data sheet is too low: --probe measures"
    ]


def other_than_published(cells: Iterable[Cell]) -> str | None:
    """In what cells are not the published runs, beside their adapters; None where in nothing."""
    default = suite_table().rows[0].training
    for cell in cells:
        if cell.train is None:
            continue
        model = cell.model.source or cell.model.path
        if cell.model.source != default["model_id"]:
            return f"the model is {model}, not {default['model_id']}"
        if cell.data.source != DATA_SET:
            return f"the training rows are those of {cell.data.source or cell.data.path}"
        if cell.fraction != 1:
            return f"cells are trained on {cell.fraction:.0%} of the rows too"
        row = suite_table().row(cell.method_label)
        of_row = [] if row is None else _own_settings(row, cell.train)
        of_all = [(name, getattr(cell.train, name), default[key]) for name, key in SAME.items()]
        for name, ours, theirs in (*of_all, *of_row):
            if ours != theirs:
                return f"{name} is {ours}, not {theirs}"
        if any(task.limit is not None for task in cell.tasks if task.name in BENCHMARKS):
            return "the benchmark is scored on some of its items alone"
    return None


SAME = {
    **{"max_steps": "max_steps", "batch_size": "batch_size", "max_length": "max_seq_length"},
    **{"schedule": "lr_scheduler", "max_gradient_norm": "grad_norm_clip"},
}
"""Training settings that all published runs share, by their names there."""


def _own_settings(row: SuiteRow, train: TrainSpec) -> list[tuple[str, object, object]]:
    """Name, measured and published value of what a row sets for itself."""
    options = row.training["optimizer_kwargs"]
    decay = options.get("weight_decay", TORCH_WEIGHT_DECAY)
    return [
        (f"{row.label}'s learning rate", train.peak_learning_rate, options["lr"]),
        (f"{row.label}'s weight_decay", train.weight_decay, decay),
    ]


def label_of_experiment(experiment: str) -> str:
    """The label of an experiment's cell: `lora/llama-3.2-3B-rank32` is `lora-rank32`."""
    return experiment.replace("/llama-3.2-3B-", "-").replace("_", "-")


def told_apart(accuracies: Sequence[float], num_items: int) -> list[bool]:
    """Whether each pair of neighbours in a ranking differs by more than its items can explain.

    By Fisher's exact test at 5%, unpaired, since who answered which item is not published. (The
    normal approximation calls a pair with 16 and 6 right answers different, which are too few for
    it.) It knows nothing of seeds; with their spread fewer would be left.

    Args:
        accuracies: 0..1, in the order of the ranking.
        num_items: that each of them is a share of.
    """
    from scipy.stats import fisher_exact

    counts = [round(one * num_items) for one in accuracies]
    return [
        bool(fisher_exact([[a, num_items - a], [b, num_items - b]]).pvalue < SIGNIFICANCE)
        for a, b in pairwise(counts)
    ]


def ranks_told_apart(rows: Iterable[SuiteRow], num_items: int) -> list[int]:
    """The ranks (from 1) that the items alone tell apart from the next one."""
    found = told_apart(sorted((row.accuracy for row in rows), reverse=True), num_items)
    return [rank for rank, is_apart in enumerate(found, start=1) if is_apart]
