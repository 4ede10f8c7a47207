"""The results of a grid that an MLflow store holds, for cells that were run elsewhere."""

from __future__ import annotations

from pathlib import Path

from harness.errors import TrackingError
from harness.grid.schema import GridSpec
from harness.tracking.faults import store_errors
from harness.tracking.store import Store, TrackedRun


class TrackedResults:
    """The newest complete run of each cell of a grid; nothing is made or changed in the store.

    Raises:
        TrackingError: the store cannot be read.
    """

    def __init__(self, grid: GridSpec, uri: str, runs_dir: Path) -> None:
        self.lost: list[str] = []
        """Files of runs that are gone or cannot be read, one line each."""
        self.runs: dict[str, TrackedRun] = {}
        """By cell id."""
        with store_errors(uri):
            self._store = Store(uri, runs_dir, write=False)
            name = grid.tracking.experiment or grid.name
            found = self._store.client.get_experiment_by_name(name)
            listed = [] if found is None else self._store.search([found.experiment_id], kind="cell")
        for run in listed:  # newest first
            cell_id = run.data.tags["zbench.cell_id"]
            if cell_id in self.runs or "zbench.content" not in run.data.tags:
                continue
            try:
                tracked = self._store.tracked(run)
            except TrackingError as fault:
                self.lost.append(f"{run.info.run_name}: {fault}")
                continue
            if tracked is None:
                self.lost.append(
                    f"{run.info.run_name}: its MLflow run's artifacts lack result.json"
                )
            else:
                self.runs[cell_id] = tracked

    def file(self, cell_id: str, name: str, *, expected: bool) -> Path | None:
        """Local path of a file of a cell's run, None where it has none; what is lost is noted.

        Args:
            cell_id: a cell that has a run.
            name: of the file in the cell's folder.
            expected: whether every run has it.
        """
        run = self.runs[cell_id]
        try:
            path = self._store.file(run, name)
        except TrackingError as fault:
            self.lost.append(f"{run.label}: {fault}")
            return None
        if path is None and expected:
            self.lost.append(f"{run.label}: its MLflow run's artifacts lack {name}")
        return path
