"""What is logged of a cell: params say what it is, metrics what was measured."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.grid.schema import Cell
from harness.methods import METHODS
from harness.records.events import StepDone
from harness.records.results import RESULT_FILE, CellResult

if TYPE_CHECKING:
    from mlflow.entities import Metric


def cell_params(cell: Cell) -> dict[str, object]:
    """Returns what a cell is, as MLflow params: immutable, and the same in every run of it."""
    params: dict[str, object] = {
        "model": cell.model_name,
        "model_source": cell.model.source or cell.model.path,
        "model_revision": cell.model.revision,
        "method": cell.method,
        "method_label": cell.method_label,
        "method_title": METHODS[cell.method].title,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "data": cell.data.source or cell.data.path,
        "world": cell.world,
    }
    params |= {f"method.{key}": value for key, value in cell.options.model_dump().items()}
    if cell.train is not None:
        params |= {f"train.{key}": value for key, value in cell.train.model_dump().items()}
        params["train.resolved_learning_rate"] = cell.train.peak_learning_rate
    return {key: value for key, value in params.items() if value is not None}


def _metric(key: str, value: float, time_ms: int, step: int) -> Metric:
    from mlflow.entities import Metric

    return Metric(key, float(value), int(time_ms), int(step))


def step_metrics(event: StepDone) -> list[Metric]:
    """Returns a training step's metrics; the loss per epoch is logged with the result."""
    values = {
        "train/loss": event.loss,
        "train/learning_rate": event.learning_rate,
        "train/tokens_per_second": event.tokens_per_second,
        **event.statistics,
    }
    return [_metric(key, value, event.time_ms, event.step) for key, value in values.items()]


def steps_metrics(path: Path) -> list[Metric]:
    """Returns the metrics of a stored course of training; the same as were logged live."""
    if not path.is_file():
        return []
    import pandas as pd

    frame = pd.read_parquet(path)
    known = {"step", "epoch", "loss", "learning_rate", "tokens", "seconds", "tokens_per_second",
             "time_ms"}  # fmt: skip
    statistics = [name for name in frame.columns if name not in known]
    metrics: list[Metric] = []
    for row in frame.to_dict("records"):
        present = {name: row[name] for name in statistics if row[name] == row[name]}
        metrics += step_metrics(
            StepDone(
                "", row["step"], row["epoch"], row["loss"], row["learning_rate"],
                row["tokens_per_second"], row["time_ms"], present,
            )
        )  # fmt: skip
    return metrics


def result_metrics(result: CellResult) -> list[Metric]:
    """Returns the metrics of a result: `eval/<protocol>/<task>/<metric>`, costs, epoch losses, and
    what was probed before and after the training.
    """
    now = time.time_ns() // 1_000_000
    metrics = []
    for score in result.scores:
        stem = f"eval/{score.protocol}/{score.task}/{score.metric}"
        metrics.append(_metric(stem, score.value, now, 0))
        if score.stderr is not None:
            metrics.append(_metric(f"{stem}_stderr", score.stderr, now, 0))
        for name, count in score.response_flags.items():
            odd = f"eval/{score.protocol}/{score.task}/responses/{name}"
            metrics.append(_metric(odd, count, now, 0))
    for benchmark, seconds in result.evaluation_seconds.items():
        metrics.append(_metric(f"cost/evaluation_seconds/{benchmark}", seconds, now, 0))
    train = result.train
    if train is not None:
        for epoch, loss in enumerate(train.epoch_losses):
            metrics.append(_metric("train/epoch_loss", loss, now, epoch))
        costs = {
            "cost/train_seconds": train.seconds,
            "cost/tokens_per_second": train.tokens_per_second,
            "cost/peak_memory_bytes": train.peak_memory_bytes,
            "cost/trainable_parameters": train.trainable_parameters,
        }
        # The other statistics are those of the last step, and were logged with it.
        probed = {k: v for k, v in train.final_statistics.items() if k.startswith("probe/")}
        metrics += [_metric(key, value, now, 0) for key, value in (costs | probed).items()]
    return metrics


def content_hash(folder: Path) -> str:
    """Returns the SHA-256 of a folder's `result.json`; the empty text where there is none."""
    try:
        return hashlib.sha256((folder / RESULT_FILE).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def training_hash(result: CellResult) -> str:
    """Returns what tells one training of a cell from another."""
    record = None if result.train is None else asdict(result.train)
    if record is not None:
        # Runs that were logged before it was recorded are still found; `data_sha256` says enough.
        del record["data_content_sha256"]
    text = repr(record)
    return hashlib.sha256(text.encode()).hexdigest()
