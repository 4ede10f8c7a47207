"""What is logged of a cell, by all trackers: params say what it is, metrics what was measured."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StorageError
from harness.evaluation.shown import items_name, shown_result
from harness.evaluation.tasks import TaskSpec, request_key
from harness.grid.cell_files import read_table
from harness.grid.schema import Cell
from harness.records.events import EpochValidated, StepDone
from harness.records.results import RESULT_FILE, CellResult

if TYPE_CHECKING:
    from mlflow.entities import Metric

LATER = {
    *("cut_examples", "chat_template_sha256", "odd_rows", "prompts_sha256", "example"),
    *("validation_losses", "validation_examples", "validation_sha256", "kept_epoch"),
}
"""Fields of a training's result that earlier versions had not; they count where they are set."""

logger = logging.getLogger(__name__)


def cell_params(cell: Cell) -> dict[str, object]:
    """What a cell is, as MLflow params: immutable, and the same in every run of it."""
    params: dict[str, object] = {
        "model": cell.model_name,
        "model_source": cell.model.source or cell.model.path,
        "model_revision": cell.model.revision,
        "method": cell.method,
        "method_label": cell.method_label,
        "method_title": cell.method_title,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "repeat": cell.repeat,
        "data": cell.data.source or cell.data.path,
        "data_name": cell.data_name,
        "world": cell.world,
    }
    params |= {f"method.{key}": value for key, value in cell.options.model_dump().items()}
    params |= {f"seed.{key}": value for key, value in cell.fixed_seeds.model_dump().items()}
    if cell.train is not None:
        params |= {f"train.{key}": value for key, value in cell.train.model_dump().items()}
        params["train.resolved_learning_rate"] = cell.train.peak_learning_rate
    return {key: value for key, value in params.items() if value is not None}


def _metric(key: str, value: float, time_ms: int, step: int) -> Metric:
    from mlflow.entities import Metric

    return Metric(key, float(value), int(time_ms), int(step))


def step_values(event: StepDone) -> dict[str, float]:
    """A training step's metrics by name; the loss per epoch is logged with the result."""
    return {
        "train/loss": event.loss,
        "train/learning_rate": event.learning_rate,
        "train/tokens_per_second": event.tokens_per_second,
        **event.statistics,
    }


def step_metrics(event: StepDone) -> list[Metric]:
    """The same for MLflow."""
    values = step_values(event)
    return [_metric(key, value, event.time_ms, event.step) for key, value in values.items()]


def validation_values(event: EpochValidated) -> dict[str, float]:
    """The loss on the validation rows, by epoch; the result has the same."""
    return {"validation/epoch_loss": event.loss}


def validation_metrics(event: EpochValidated) -> list[Metric]:
    """The same for MLflow."""
    values = validation_values(event)
    return [_metric(key, value, event.time_ms, event.epoch) for key, value in values.items()]


def steps_metrics(path: Path, sha256: str | None = None) -> list[Metric]:
    """The metrics of a training's stored steps, the same as were logged live.

    `sha256` is the file's, where it is known; a damaged file has none.
    """
    if not path.is_file():
        return []
    try:
        frame = read_table(path, sha256).to_pandas()
    except StorageError as damaged:
        logger.warning("%s", damaged)
        return []
    fields = ("step", "epoch", "loss", "learning_rate", "tokens_per_second", "time_ms")
    metrics: list[Metric] = []
    for row in frame.drop(columns=["tokens", "seconds"], errors="ignore").to_dict("records"):
        step = {field: row.pop(field) for field in fields}
        present = {str(name): value for name, value in row.items() if value == value}
        metrics += step_metrics(StepDone("", **step, statistics=present))
    return metrics


def result_points(
    result: CellResult, tasks: Sequence[TaskSpec] = ()
) -> dict[tuple[str, int], float]:
    """The metrics of a result by name and step.

    They are `eval/<protocol>/<task>/<metric>`, costs, the loss per epoch, and what a method
    measured before and after the training (`probe/`). Of several scores of one name (another
    limit, say) it is that which answers one of `tasks`, else the last.
    """
    found: dict[tuple[str, int], float] = {}

    def add(key: str, value: float, step: int = 0) -> None:
        found[key, step] = float(value)

    first = {score.evaluation for score in shown_result(result).scores}
    asked = {request_key(task) for task in tasks}
    for score in sorted(result.scores, key=lambda score: score.key in asked):
        stem = f"eval/{score.protocol}/{mlflow_name(score.task)}"
        if score.evaluation not in first:  # of other items than the one that has the plain name
            stem += f"/items-{items_name(score)}"
        name = mlflow_name(score.metric)
        add(f"{stem}/{name}", score.value)
        if score.stderr is not None:
            add(f"{stem}/{name}_stderr", score.stderr)
        for name, count in score.response_flags.items():
            add(f"{stem}/responses/{name}", count)
    for benchmark, seconds in result.evaluation_seconds.items():
        add(f"cost/evaluation_seconds/{mlflow_name(benchmark)}", seconds)
    if (train := result.train) is not None:
        for epoch, loss in enumerate(train.epoch_losses):
            add("train/epoch_loss", loss, epoch)
        for epoch, loss in enumerate(train.validation_losses):
            add("validation/epoch_loss", loss, epoch)
        add("cost/train_seconds", train.seconds)
        add("cost/tokens_per_second", train.tokens_per_second)
        add("cost/peak_memory_bytes", train.peak_memory_bytes)
        add("cost/trainable_parameters", train.trainable_parameters)
        for name, value in train.final_statistics.items():
            if name.startswith("probe/"):  # others are the last step's, and logged with it
                add(name, value)
    return found


def result_metrics(result: CellResult, tasks: Sequence[TaskSpec] = ()) -> list[Metric]:
    """The same for MLflow."""
    now = time.time_ns() // 1_000_000
    found = result_points(result, tasks)
    return [_metric(key, value, now, step) for (key, step), value in found.items()]


def mlflow_name(name: str) -> str:
    """A metric's or task's name with the characters alone that MLflow takes: a filter follows its
    metric behind a slash, as in `exact_match/strict-match`; others become `_`.
    """
    return re.sub(r"[^\w\-. /]", "_", name.replace(",", "/"))


def content_hash(folder: Path) -> str:
    """SHA-256 of a folder's `result.json`; the empty string where there is none."""
    try:
        return hashlib.sha256((folder / RESULT_FILE).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def training_hash(result: CellResult) -> str:
    """SHA-256 that tells one training of a cell from another."""
    record = None if result.train is None else asdict(result.train)
    if record is not None:
        # Runs that were logged before it was recorded are still found; `data_sha256` says enough.
        del record["data_content_sha256"], record["lost_examples"]
        record = {k: value for k, value in record.items() if value or k not in LATER}
    return hashlib.sha256(repr(record).encode()).hexdigest()
