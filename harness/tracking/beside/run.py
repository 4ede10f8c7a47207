"""What a tracker is given of a cell, and what it must do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness.errors import mask_secrets
from harness.grid.folders import cell_folder
from harness.grid.schema import Cell
from harness.tracking.metrics import cell_params

Begun = Literal["fresh", "resumed", "scores"]
"""A training from its first step; one that resumes, all of whose steps come again; or new scores of
one that is done."""


@dataclass(frozen=True)
class RunInfo:
    """A cell, as trackers name and group its run."""

    cell_id: str
    name: str
    """The cell's label."""
    group: str
    """The grid's name."""
    project: str
    """The grid's MLflow experiment."""
    config: Mapping[str, str | int | float | bool]
    """The cell's params, as in MLflow, without secrets."""
    runs_dir: Path
    folder: str
    """Name of the cell's folder."""


def info_of(cell: Cell, *, group: str, project: str, runs_dir: Path) -> RunInfo:
    """What trackers are given of a cell."""
    config = {key: _plain(value) for key, value in cell_params(cell).items()}
    folder = cell_folder(runs_dir, cell).name
    return RunInfo(cell.id, cell.label, group, project, config, runs_dir, folder)


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, bool | int | float) else mask_secrets(str(value))


class BesideRun(Protocol):
    """The run of one cell in one tracker; whatever it raises costs the point that it was given.

    It is made with `RunInfo` and `Begun`; see `harness.tracking.beside.registry`.
    """

    def log(self, values: Mapping[str, float], *, step: int, time_ms: int) -> None:
        """Logs the metrics of a step."""

    def log_epoch(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Logs what is measured once an epoch."""

    def finish(self, values: Mapping[str, float], error: str | None) -> None:
        """Logs scores and costs, or why the cell failed, and ends the run."""

    def leave(self) -> None:
        """Ends what this process writes of a run that will be resumed."""
