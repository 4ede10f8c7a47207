"""The real libraries write what MLflow has: each point once, also of a training that was resumed.

What they wrote is read back by their own readers, or from their own files.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness.grid.folders import cell_folder
from harness.grid.schema import Cell, GridSpec
from harness.records.events import CellEnded
from harness.records.results import write_result
from harness.tracking.metrics import result_points
from tests.records.test_results import RESULT
from tests.tracking.beside.conftest import START_MS, stopped_and_resumed, tracked, training

pytestmark = pytest.mark.slow
LOSSES = {step: 2 / step for step in range(1, 31)}


def needs(package: str) -> pytest.MarkDecorator:
    """Skips a test where a tracker is not installed."""
    reason = f"{package} is not installed: pip install 'zbench[{package}]'"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


@pytest.fixture
def done(cell: Cell, tmp_path: Path) -> CellEnded:
    """The end of a cell whose folder holds a result, with scores, costs and losses by epoch."""
    folder = cell_folder(tmp_path, cell)
    write_result(folder, replace(RESULT, cell=cell.record(), cell_id=cell.id))
    return CellEnded(cell.id, str(folder), 3.0)


@pytest.fixture
def scores(cell: Cell) -> dict[str, float]:
    """What is logged of the result but the losses by epoch."""
    points = result_points(RESULT, cell.tasks)
    found = {key: value for (key, _), value in points.items() if not key.endswith("epoch_loss")}
    assert any(key.startswith("eval/") for key in found)
    assert any(key.startswith("cost/") for key in found)
    return found


@needs("tensorboard")
def test_tensorboard_shows_each_point_once(
    grid: GridSpec, cell: Cell, tmp_path: Path, done: CellEnded, scores: dict[str, float]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopped_and_resumed("tensorboard", grid, cell, tmp_path, done)
    folder = tmp_path / "tensorboard" / cell_folder(tmp_path, cell).name
    assert len([*folder.glob("events.out.tfevents.*")]) == 2
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    loss = shown.Scalars("train/loss")
    assert {point.step: point.value for point in loss} == pytest.approx(LOSSES)
    assert len(loss) == 30
    assert loss[19].wall_time == START_MS / 1000 + 20
    assert [point.value for point in shown.Scalars("gate/max_abs")][-1] == pytest.approx(3.0)
    assert [(p.step, p.value) for p in shown.Scalars("validation/epoch_loss")] == [(0, 1.5)]
    assert [p.value for p in shown.Scalars("train/epoch_loss")] == pytest.approx(
        RESULT.train.epoch_losses if RESULT.train else ()
    )
    for key, value in scores.items():
        assert [point.value for point in shown.Scalars(key)] == pytest.approx([value]), key
    text = shown.Tensors("params/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert '"method": "lora"' in text


@needs("wandb")
def test_wandb_offline_has_each_point_in_one_run(
    grid: GridSpec,
    cell: Cell,
    tmp_path: Path,
    done: CellEnded,
    scores: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    stopped_and_resumed("wandb", grid, cell, tmp_path, done)
    first, second = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert first.name == second.name  # one id: a server has one run of them
    rows, config, summary, run = wandb_run(second)
    steps = [row for row in rows if "train/loss" in row]
    assert {row["_step"]: row["train/loss"] for row in steps} == pytest.approx(LOSSES)
    assert len(steps) == 30
    assert steps[19]["_timestamp"] == START_MS / 1000 + 20
    assert steps[29]["gate/max_abs"] == pytest.approx(3.0)
    validated = [row for row in rows if "validation/epoch_loss" in row]
    assert [(row["epoch"], row["validation/epoch_loss"]) for row in validated] == [(0, 1.5)]
    assert summary.items() >= scores.items()
    assert (run.display_name, run.run_group, run.project) == (cell.label, "demo", "demo")
    assert (config["method"], config["train.batch_size"]) == ("lora", 16)


def wandb_run(path: Path) -> tuple[list[dict], dict[str, Any], dict[str, Any], Any]:
    """Rows, config, summary and description of a run that W&B wrote into a file."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows: list[dict] = []
    summary: dict[str, Any] = {}
    run: Any = None
    for raw in wandb_records(path.read_bytes()):
        record = Record.FromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run" and run is None:
            run = record.run
        elif kind in ("history", "summary"):
            items = record.history.item if kind == "history" else record.summary.update
            named = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
            if kind == "history":
                rows.append({"_step": record.history.step.num, **named})
            else:
                summary |= named
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    return rows, config, summary, run


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of W&B's file: LevelDB's log format after seven bytes of its own."""
    place, block, parts = 7, 32768, b""
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield parts
            parts = b""


@needs("trackio")
def test_trackio_has_each_point_once(
    grid: GridSpec,
    cell: Cell,
    tmp_path: Path,
    done: CellEnded,
    scores: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    stopped_and_resumed("trackio", grid, cell, tmp_path, done)
    rows, config = trackio_run(tmp_path / "trackio" / "demo.db", cell.label)
    steps = [row for row in rows if "train/loss" in row]
    assert {row["step"]: row["train/loss"] for row in steps} == pytest.approx(LOSSES)
    assert len(steps) == 30
    validated = [row for row in rows if "validation/epoch_loss" in row]
    assert [(row["step"], row["validation/epoch_loss"]) for row in validated] == [(0, 1.5)]
    assert rows[-1].items() >= scores.items()
    assert (config["method"], config["train.batch_size"], config["_Group"]) == ("lora", 16, "demo")


def trackio_run(path: Path, name: str) -> tuple[list[dict], dict[str, Any]]:
    """Rows and config of the only run that Trackio's database holds."""
    import sqlite3

    with sqlite3.connect(path) as database:
        kept = database.execute("select run_name, step, metrics from metrics order by id")
        found = list(kept)
        [(config,)] = database.execute("select config from configs")
    assert {run for run, *_ in found} == {name}
    return [{**json.loads(raw), "step": step} for _, step, raw in found], json.loads(config)


@pytest.mark.parametrize("name", [pytest.param("wandb", marks=needs("wandb"))])
def test_a_training_that_begins_anew_has_a_run_of_its_own(
    grid: GridSpec, cell: Cell, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for _ in range(2):
        assert tracked(name, grid, cell, tmp_path, training(cell, 3))[1] is None
    ids = {path.name for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb")}
    assert len(ids) == 2
