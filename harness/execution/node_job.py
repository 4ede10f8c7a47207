"""What a machine is told of the cells that it may run: a JSON file, with no relative path in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.cell.settings import RunSettings
from harness.errors import UsageError
from harness.execution.plan import Place, RunPlan
from harness.execution.site import Site
from harness.grid.schema import Cell, GridSpec
from harness.grid.tracking_uri import TrackingSpec
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import write_text
from harness.tracking.address import is_server

FORMAT = 1
"""Incremented by a change that the version before could not read."""


@dataclass(frozen=True)
class NodeJob:
    """The cells of a submission, and how a machine is to run any one of them."""

    cells: tuple[Cell, ...]
    plan: RunPlan
    """Its devices are found on the machine; `place.device` is `cpu`, `cuda` or `auto`."""
    folder: Path
    """The folder that the submitting command was run in."""
    grid: GridSpec | None = None
    """What a job that logs to MLflow by itself must know: a name, a text, where to. None where it
    logs nothing."""
    max_requeues: int = field(default=Site().max_requeues)
    """How often in a row a cell may begin without having come further."""


def job_of(cells: Sequence[Cell], plan: RunPlan, grid: GridSpec | None, *, logs: bool) -> NodeJob:
    """The job of some cells as `plan` means them, of the folder that this process is in.

    `logs` says whether the job may log to MLflow; it does so to a server alone, which many may
    write to.
    """
    root, uri = plan.settings.data_root, plan.place.tracking_uri or ""
    settings = replace(
        plan.settings,
        runs_dir=plan.settings.runs_dir.resolve(),
        data_root=None if root is None else root.resolve(),
    )
    logs = logs and grid is not None and is_server(uri)
    return NodeJob(
        cells=tuple(cells),
        plan=replace(plan, settings=settings, devices=()),
        folder=Path.cwd(),
        grid=grid if logs else None,
        max_requeues=plan.place.site.max_requeues,
    )


def write_job(path: Path, job: NodeJob) -> None:
    """Writes a job's file.

    Raises:
        StorageError: it cannot be written.
    """
    settings, place, grid = job.plan.settings, job.plan.place, job.grid
    ids = {cell.id for cell in job.cells}
    record = {
        "format": FORMAT,
        "runs_dir": str(settings.runs_dir),
        "data_root": None if settings.data_root is None else str(settings.data_root),
        "folder": str(job.folder),
        "device": place.device,
        "max_requeues": job.max_requeues,
        "tracking": grid and {
            "uri": place.tracking_uri,
            "grid": {"name": grid.name, "text": grid.text, "title": grid.title},
            "settings": grid.tracking.model_dump(mode="json"),
        },
        "estimates": {key: dict(one) for key, one in settings.estimates.items() if key in ids},
        "pauses": {key: epochs for key, epochs in settings.pauses.items() if key in ids},
        "data_contents": dict(settings.data_contents),
        "cells": [_cell_record(cell) for cell in job.cells],
    }  # fmt: skip
    write_text(path, json.dumps(record, indent=1) + "\n")


def read_job(path: Path) -> NodeJob:
    """The job of a file.

    Raises:
        UsageError: it is none, or of another version of zbench.
    """
    try:
        raw = read_json_object(path)
        if raw["format"] != FORMAT:
            raise UsageError(f"{path}: is of another version of zbench; submit its cells again")
        return _job(raw)
    except (Unreadable, KeyError, TypeError, ValueError) as fault:
        raise UsageError(f"{path}: is no job's file ({fault}); submit its cells again") from fault


def _job(raw: Mapping[str, Any]) -> NodeJob:
    root, tracking, grid = raw["data_root"], raw["tracking"], None
    settings = RunSettings(
        runs_dir=Path(raw["runs_dir"]),
        data_root=None if root is None else Path(root),
        estimates=raw["estimates"],
        pauses=raw["pauses"],
        data_contents=raw["data_contents"],
    )
    if tracking is not None:
        spec = TrackingSpec.model_validate(tracking["settings"])
        grid = GridSpec.model_construct(**tracking["grid"], tracking=spec)
    uri = None if tracking is None else tracking["uri"]
    return NodeJob(
        cells=tuple(map(_cell, raw["cells"])),
        plan=RunPlan(settings, place=Place(device=raw["device"], tracking_uri=uri)),
        folder=Path(raw["folder"]),
        grid=grid,
        max_requeues=raw["max_requeues"],
    )


def _cell_record(cell: Cell) -> dict[str, Any]:
    """A cell as JSON, with the folder of the grid file that its paths may be relative to."""
    record = cell.model_dump(mode="json", serialize_as_any=True)
    beside = {"model": cell.model.grid_folder, "data": cell.data.grid_folder}
    folders = {name: str(folder.resolve()) for name, folder in beside.items() if folder is not None}
    return {"cell": record, "grid_folders": folders}


def _cell(raw: Mapping[str, Any]) -> Cell:
    cell = Cell.model_validate(raw["cell"])
    folders = {name: Path(folder) for name, folder in raw["grid_folders"].items()}
    update: dict[str, Any] = {}
    if "model" in folders:
        update["model"] = cell.model.beside(folders["model"])
    if "data" in folders:
        update["data"] = cell.data.beside(folders["data"])
    return cell.model_copy(update=update) if update else cell
