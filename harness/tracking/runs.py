"""The runs of a grid in an MLflow store: made, found, closed and replayed; each point once."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import mask_secrets
from harness.grid.folders import (
    ADAPTER_FOLDER,
    CELL_FILE,
    ITEMS_FOLDER,
    LOG_FILE,
    STEPS_FILE,
    cell_folder,
)
from harness.grid.schema import Cell, GridSpec
from harness.grid.status import CellState
from harness.records.environment import git_commit
from harness.records.process import process_identity
from harness.records.results import RESULT_FILE, CellResult
from harness.tracking.faults import store_errors
from harness.tracking.lock import turn
from harness.tracking.metrics import (
    cell_params,
    content_hash,
    result_metrics,
    steps_metrics,
    training_hash,
)
from harness.tracking.points import lacking_points
from harness.tracking.runners import RUNNER, is_heard, owner_lives, runner_tag, runner_text
from harness.tracking.store import Store, tag_text

if TYPE_CHECKING:
    from mlflow.entities import Run

LARGEST_ADAPTER_BYTES = 512 * 2**20
"""Larger adapters stay in the cell's folder, which the run names in a tag."""


class GridRuns:
    """The runs of one grid in one MLflow store.

    Args:
        grid: the grid.
        uri: of the store.
        runs_dir: the runs folder.
        live: whether this process runs cells: the grid's own run is RUNNING until `close`.

    Raises:
        TrackingError: the store cannot be reached or made.
    """

    def __init__(self, grid: GridSpec, uri: str, runs_dir: Path, *, live: bool = False) -> None:
        self.grid, self.uri, self.runs_dir, self.live = grid, uri, runs_dir, live
        self._creating: dict[str, str] = {}
        """By cell: the mark of a run whose creation was not confirmed."""
        self._created = False
        with self._in_turn():
            self.store = Store(uri, runs_dir)
            self.client = self.store.client
            self.experiment_id = self.store.experiment_id(grid.tracking.experiment or grid.name)
            self.parent_id = self._parent()
            if grid.text:
                self.store.log_text(self.parent_id, mask_secrets(grid.text), "grid.yaml")
            if live:
                self.beat()
                self.show_running()

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        with store_errors(self.uri):
            self.runs_dir.mkdir(parents=True, exist_ok=True)
            with turn(self.runs_dir):
                yield

    def _parent(self) -> str:
        """Id of the grid's own run, made where there is none; of several the first one.

        The others are deleted where nobody has used them: those that a process elsewhere has made
        meanwhile, or a server of a request that was sent again, its answer lost.
        """
        found = self._grid_runs()
        if not found:
            tags = {
                "zbench.kind": "grid",
                "zbench.grid": self.grid.name,
                "zbench.git_commit": git_commit() or "unknown",
                "zbench.owner": process_identity(),
            }
            made = self.store.create_run(self.experiment_id, self.grid.name, tags)
            found = self._grid_runs() or [self.client.get_run(made)]
        first, *others = found
        for run in others:
            tags = run.data.tags
            unused = "zbench.owner" in tags and not any(key.startswith(RUNNER) for key in tags)
            if unused and run.info.status == "RUNNING":
                self.client.delete_run(run.info.run_id)
        return str(first.info.run_id)

    def _grid_runs(self) -> list[Run]:
        found = self.store.search([self.experiment_id], kind="grid", grid=self.grid.name)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def show_running(self) -> None:
        """Marks the grid's own run as running, whatever a process elsewhere took it for."""
        self.client.update_run(self.parent_id, status="RUNNING")

    def close(self) -> None:
        """Marks the grid's own run as finished for now, unless another process runs cells of it."""
        with store_errors(self.uri):
            if self._created:
                self._close_own_runs()
            tags = self.client.get_run(self.parent_id).data.tags
            runners = {key: text for key, text in tags.items() if key.startswith(RUNNER)}
            for key, text in list(runners.items()):
                if text.partition(" ")[0] == process_identity() or not is_heard(text):
                    self._delete_tag(key)
                    del runners[key]
            if not runners:
                self.client.set_terminated(self.parent_id)

    def beat(self) -> None:
        """Tells that this process runs cells of the grid, and logs them."""
        self.client.set_tag(self.parent_id, runner_tag(), runner_text())

    def _runners(self) -> dict[str, str]:
        """What the processes that log cells into this experiment said last, by who they are."""
        tags = [run.data.tags for run in self.store.search([self.experiment_id], kind="grid")]
        said = [text for each in tags for key, text in each.items() if key.startswith(RUNNER)]
        return {text.partition(" ")[0]: text for text in said}

    def _delete_tag(self, key: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.delete_tag(self.parent_id, key)
        except MlflowException:  # done all the same, its answer lost; or by a process elsewhere
            if key in self.client.get_run(self.parent_id).data.tags:
                raise

    def _close_own_runs(self) -> None:
        """Closes the runs of cells that were stopped, and those that a server has made late."""
        for run in self.store.search([self.experiment_id], kind="cell", owner=process_identity()):
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")

    def cell_runs(self) -> dict[str, list[Run]]:
        """Lists the child runs by cell id, newest first."""
        listed: dict[str, list[Run]] = {}
        for run in self.store.search([self.experiment_id], kind="cell"):
            listed.setdefault(run.data.tags["zbench.cell_id"], []).append(run)
        return listed

    def create_cell_run(self, cell: Cell) -> str:
        """Starts a child run and logs what the cell is; returns its id.

        After an error it is called again: a run that the store has made all the same is taken up.
        A second one, which a server made of a request that was sent again, is deleted.
        """
        made = self._made(self._creating[cell.id]) if cell.id in self._creating else []
        mark = self._creating.setdefault(cell.id, uuid.uuid4().hex)
        self._created = True
        if not made:
            run_id = self._create(cell, mark)
            made = [run_id]
            if self.store.database is None:  # nothing is sent again to a file
                made += [other for other in self._made(mark) if other != run_id]
        for second in made[1:]:
            self.client.delete_run(second)
        self._log_params(made[0], cell)
        del self._creating[cell.id]
        return made[0]

    def _made(self, mark: str) -> list[str]:
        """Ids of the runs that were made with a mark, the first one first."""
        found = self.store.search([self.experiment_id], kind="cell", creation=mark)
        return [str(run.info.run_id) for run in reversed(found)]

    def _create(self, cell: Cell, mark: str) -> str:
        tags = {
            "mlflow.parentRunId": self.parent_id,
            "zbench.kind": "cell",
            "zbench.grid": self.grid.name,
            "zbench.cell_id": cell.id,
            "zbench.owner": process_identity(),
            "zbench.creation": mark,
            "zbench.folder": self._folder(cell),
        }
        if cell.tuning is not None:
            tags["zbench.tuning"] = cell.tuning.kind
        return self.store.create_run(self.experiment_id, cell.label, tags)

    def _log_params(self, run_id: str, cell: Cell) -> None:
        from mlflow.entities import Param

        shown = {key: mask_secrets(str(value))[:6000] for key, value in cell_params(cell).items()}
        self.client.log_batch(run_id, params=[Param(key, value) for key, value in shown.items()])

    def _folder(self, cell: Cell) -> str:
        return str(cell_folder(self.runs_dir.resolve(), cell))

    def log_result(self, run_id: str, state: CellState) -> None:
        """Logs of a cell's result what a run lacks, scores, costs and files, and closes it."""
        from mlflow.entities import RunTag

        result, folder = state.result, state.folder
        assert result is not None
        metrics = result_metrics(result, state.cell.tasks)
        lacking = lacking_points(self.client, self.client.get_run(run_id), metrics)
        self.store.log_metrics(run_id, lacking.new)
        tags = {f"zbench.{key}": value for key, value in result.environment.items()}
        tags |= {f"zbench.base.{key}": value for key, value in result.base.items()}
        tags |= {f"zbench.image_encoder.{k}": value for k, value in result.image_encoder.items()}
        tags |= {f"zbench.estimate.{key}": value for key, value in result.estimate.items()}
        tags |= {"zbench.content": content_hash(folder), "zbench.folder": folder.resolve()}
        tags["zbench.error"] = result.error.message if result.error else ""
        tags |= self._log_files(run_id, folder)
        listed = [RunTag(key, tag_text(value)) for key, value in tags.items()]
        self.client.log_batch(run_id, tags=listed)
        self.client.set_terminated(run_id, "FAILED" if result.error else "FINISHED")

    def _log_files(self, run_id: str, folder: Path) -> dict[str, str]:
        """Logs a cell's files; returns tags that name what is not copied."""
        tags = {}
        # The steps, and what the method kept of its training.
        frames = sorted(path.name for path in folder.glob("*.parquet"))
        files = [folder / name for name in (CELL_FILE, LOG_FILE, *frames)]
        files += sorted((folder / ITEMS_FOLDER).rglob("*"))
        adapter = folder / ADAPTER_FOLDER
        if adapter.is_dir():
            tensors = [path for path in sorted(adapter.rglob("*")) if path.is_file()]
            size = sum(path.stat().st_size for path in tensors)
            if size <= LARGEST_ADAPTER_BYTES:
                files += tensors
            else:
                tags["zbench.adapter"] = f"{adapter.resolve()} ({size} bytes, not copied)"
        files.append(folder / RESULT_FILE)  # last: it marks the run as complete
        named = {str(path.relative_to(folder)): path for path in files if path.is_file()}
        self.store.log_files(run_id, named)
        return tags

    def sync(self, states: Sequence[CellState]) -> int:
        """Logs what cells' folders hold and MLflow lacks; returns the number of cells logged.

        The store is asked for its runs once, however many cells there are. Runs whose process has
        died get their final status.

        Raises:
            TrackingError: the store cannot be reached.
        """
        logged = 0
        with self._in_turn():
            known, runners = self.cell_runs(), cache(self._runners)
            for state in states:
                if state.status == "running":
                    continue
                runs = known.get(state.cell.id, [])
                lacks = state.result is not None and not _is_logged(runs, state)
                if self._is_being_logged(state.cell, runs, runners, lacks=lacks):
                    continue
                if lacks:
                    self._replay(state, runs)
                    logged += 1
        return logged

    def _is_being_logged(
        self, cell: Cell, runs: Sequence[Run], runners: Callable[[], dict[str, str]], *, lacks: bool
    ) -> bool:
        """Whether a process that lives is logging the cell; closes runs whose process has died.

        A process of another machine lives as long as it says so now and then. Else nothing is known
        of it. Nobody runs the cell in this folder: what was begun for it here, or what is about to
        be logged whole, is closed.
        """
        opened = [run for run in runs if run.info.status == "RUNNING"]
        owners = {run.info.run_id: owner_lives(run) for run in opened}
        if any(owners.values()):
            return True
        unknown = [run for run in opened if owners[run.info.run_id] is None]
        if any(is_heard(runners().get(run.data.tags["zbench.owner"], "")) for run in unknown):
            return True
        for run in opened:
            here = run.data.tags.get("zbench.folder") == self._folder(cell) or self.store.is_own
            if owners[run.info.run_id] is False or lacks or here:
                self.client.set_terminated(run.info.run_id, "KILLED")
        return False

    def replay(self, state: CellState) -> None:
        """Logs all that a cell's folder holds, unless another process has done so."""
        with self._in_turn():
            runs = self.store.search([self.experiment_id], kind="cell", cell_id=state.cell.id)
            if not _is_logged(runs, state):
                self._replay(state, runs)

    def _replay(self, state: CellState, runs: Sequence[Run]) -> None:
        """Logs all that a cell's folder holds and its runs, newest first, lack.

        That goes into the run of its training where there is one that holds no other value of a
        point, else into one that was begun and holds nothing, else into a new one.
        """
        result = state.result
        assert result is not None
        training = training_hash(result)
        run_id = None
        for run in runs:
            if run.data.tags.get("zbench.training") == training:
                metrics = result_metrics(result, state.cell.tasks)
                if not lacking_points(self.client, run, metrics).unlike:
                    run_id = str(run.info.run_id)
                    break
        if run_id is None:
            run_id = self._begun(runs, state.cell) or self.create_cell_run(state.cell)
            steps = result.files_sha256.get(STEPS_FILE)
            self.store.log_metrics(run_id, steps_metrics(state.folder / STEPS_FILE, steps))
            self.tag_training(run_id, result)
        self.log_result(run_id, state)

    def _begun(self, runs: Sequence[Run], cell: Cell) -> str | None:
        """A closed run of the cell that holds nothing, with its params; None without any."""
        for run in runs:
            left = run.info.status in ("RUNNING", "KILLED") and not owner_lives(run)
            if left and not run.data.metrics and "zbench.training" not in run.data.tags:
                self._log_params(str(run.info.run_id), cell)
                return str(run.info.run_id)
        return None

    def tag_training(self, run_id: str, result: CellResult) -> None:
        """Marks a run as that of a training, so that later scores find it."""
        self.client.set_tag(run_id, "zbench.training", training_hash(result))


def _is_logged(runs: Sequence[Run], state: CellState) -> bool:
    content = content_hash(state.folder)
    return any(
        run.data.tags.get("zbench.content") == content and run.info.status != "RUNNING"
        for run in runs
    )
