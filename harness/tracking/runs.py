"""The runs of a grid in an MLflow store: made, found, closed, replayed and read back."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.grid.folders import ADAPTER_FOLDER, CELL_FILE, ITEMS_FOLDER, LOG_FILE, STEPS_FILE
from harness.grid.schema import Cell, GridSpec
from harness.grid.status import CellState
from harness.records.environment import git_commit
from harness.records.results import RESULT_FILE, CellResult
from harness.tracking.metrics import (
    cell_params,
    content_hash,
    result_metrics,
    steps_metrics,
    training_hash,
)
from harness.tracking.store import Store, TrackedRun, store_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

LARGEST_ADAPTER_BYTES = 512 * 2**20
"""Larger adapters stay in the cell's folder, which the run names in a tag."""


class GridRuns:
    """The runs of one grid in one MLflow store.

    Raises:
        TrackingError: the store cannot be reached or made.
    """

    def __init__(self, grid: GridSpec, uri: str, runs_dir: Path) -> None:
        self.grid = grid
        self.uri = uri
        self._listed: dict[str, list[Run]] | None = None  # while nothing else is logged
        with store_errors(uri):
            self.store = Store(uri)
            self.client = self.store.client
            name = grid.tracking.experiment or grid.name
            self.experiment_id = self.store.experiment_id(name, runs_dir)
            self.parent_id = self._parent()

    def _parent(self) -> str:
        """Id of the grid's own run, with the grid's text as it is now."""
        name = self.grid.name
        found = self.store.search([self.experiment_id], kind="grid", grid=name)
        if found:
            run_id = str(found[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
        else:
            commit = git_commit() or "unknown"
            tags = {"zbench.kind": "grid", "zbench.grid": name, "zbench.git_commit": commit}
            run = self.client.create_run(self.experiment_id, run_name=name, tags=tags)
            run_id = str(run.info.run_id)
        if self.grid.text:
            self.client.log_text(run_id, self.grid.text, "grid.yaml")
        return run_id

    def cell_runs(self) -> dict[str, list[Run]]:
        """Lists the child runs by cell id, newest first."""
        self._listed = {}
        for run in self.store.search([self.experiment_id], kind="cell"):
            self._listed.setdefault(run.data.tags["zbench.cell_id"], []).append(run)
        return self._listed

    def create_cell_run(self, cell: Cell) -> str:
        """Starts a child run and logs what the cell is; returns its id."""
        from mlflow.entities import Param

        self._listed = None
        run = self.client.create_run(
            self.experiment_id,
            run_name=cell.label,
            tags={
                "mlflow.parentRunId": self.parent_id,
                "zbench.kind": "cell",
                "zbench.grid": self.grid.name,
                "zbench.cell_id": cell.id,
                "zbench.owner": f"{platform.node()}:{os.getpid()}",
            },
        )
        params = [Param(key, str(value)[:6000]) for key, value in cell_params(cell).items()]
        self.client.log_batch(run.info.run_id, params=params)
        return str(run.info.run_id)

    def log_result(self, run_id: str, result: CellResult, folder: Path) -> None:
        """Logs a result's scores, costs and files into a run, and closes it."""
        from mlflow.entities import RunTag

        self._listed = None
        self.store.log_metrics(run_id, result_metrics(result))
        tags = {f"zbench.{key}": value for key, value in result.environment.items()}
        tags |= {f"zbench.base.{key}": value for key, value in result.base.items()}
        tags |= {f"zbench.estimate.{key}": value for key, value in result.estimate.items()}
        tags |= {"zbench.content": content_hash(folder), "zbench.folder": folder}
        tags["zbench.error"] = result.error.message if result.error else ""
        tags |= self._log_files(run_id, folder)
        listed = [RunTag(key, str(value)[:5000]) for key, value in tags.items()]
        self.client.log_batch(run_id, tags=listed)
        self.client.set_terminated(run_id, "FAILED" if result.error else "FINISHED")

    def _log_files(self, run_id: str, folder: Path) -> dict[str, str]:
        """Logs a cell's files; returns tags that name what is not copied."""
        tags = {}
        # The steps, and what the method kept of its training.
        frames = sorted(path.name for path in folder.glob("*.parquet"))
        for name in (CELL_FILE, LOG_FILE, *frames):
            if (folder / name).is_file():
                self.client.log_artifact(run_id, str(folder / name))
        if (folder / ITEMS_FOLDER).is_dir():
            self.client.log_artifacts(run_id, str(folder / ITEMS_FOLDER), ITEMS_FOLDER)
        adapter = folder / ADAPTER_FOLDER
        if adapter.is_dir():
            size = sum(path.stat().st_size for path in adapter.rglob("*") if path.is_file())
            if size <= LARGEST_ADAPTER_BYTES:
                self.client.log_artifacts(run_id, str(adapter), ADAPTER_FOLDER)
            else:
                tags["zbench.adapter"] = f"{adapter} ({size} bytes, not copied)"
        if (folder / RESULT_FILE).is_file():  # last: it marks the run as complete
            self.client.log_artifact(run_id, str(folder / RESULT_FILE))
        return tags

    def close(self) -> None:
        """Marks the grid's own run as finished for now."""
        self.client.set_terminated(self.parent_id)

    def sync(self, states: Sequence[CellState]) -> int:
        """Logs what cells' folders hold and MLflow lacks; returns the number of cells logged.

        The store is asked for its runs once, however many cells there are.

        Raises:
            TrackingError: the store cannot be reached.
        """
        logged = 0
        with store_errors(self.uri):
            known = self.cell_runs()
            for state in states:
                if state.status == "running":
                    continue
                runs = known.get(state.cell.id, [])
                open_runs = [run for run in runs if run.info.status == "RUNNING"]
                if any(is_alive(run.data.tags.get("zbench.owner", "")) for run in open_runs):
                    continue  # another process is logging it now
                for run in open_runs:  # their processes were killed
                    self.client.set_terminated(run.info.run_id, "KILLED")
                if state.result is not None and not _finished(runs, state):
                    self.replay(state, runs)
                    logged += 1
        return logged

    def replay(self, state: CellState, runs: Sequence[Run] | None = None) -> None:
        """Logs all that a cell's folder holds, into the run of its training where there is one.

        `runs` are the cell's, newest first; None to list them.
        """
        assert state.result is not None
        if runs is None:
            runs = self.store.search([self.experiment_id], kind="cell", cell_id=state.cell.id)
        training = training_hash(state.result)
        same = [run for run in runs if run.data.tags.get("zbench.training") == training]
        if same:
            run_id = str(same[0].info.run_id)
        else:
            run_id = self.create_cell_run(state.cell)
            steps = state.result.files_sha256.get(STEPS_FILE)
            self.store.log_metrics(run_id, steps_metrics(state.folder / STEPS_FILE, steps))
            self.tag_training(run_id, state.result)
        self.log_result(run_id, state.result, state.folder)

    def tag_training(self, run_id: str, result: CellResult) -> None:
        """Marks a run as that of a training, so that later scores find it."""
        self.client.set_tag(run_id, "zbench.training", training_hash(result))

    def read(self) -> list[TrackedRun]:
        """The newest complete run of each cell of the experiment.

        Raises:
            TrackingError: the store or its artifacts cannot be read.
        """
        tracked = []
        with store_errors(self.uri):
            listed = self.cell_runs() if self._listed is None else self._listed
            for runs in listed.values():
                complete = [run for run in runs if "zbench.content" in run.data.tags]
                if complete:
                    found = self.store.tracked(complete[0])
                    if found is None:
                        raise FileNotFoundError(f"{complete[0].info.run_id} lacks {RESULT_FILE}")
                    tracked.append(found)
        return tracked


def _finished(runs: Sequence[Run], state: CellState) -> bool:
    content = content_hash(state.folder)
    return any(
        run.data.tags.get("zbench.content") == content and run.info.status != "RUNNING"
        for run in runs
    )


def is_alive(owner: str) -> bool:
    """Whether another process, `<host>:<id>`, of this host still runs; False for another host."""
    host, _, number = owner.rpartition(":")
    if host != platform.node() or not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except OSError:
        return False
    return True
