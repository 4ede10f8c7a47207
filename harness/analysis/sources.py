"""Where a report's results come from: the cells' own folders, and MLflow for what they lack."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from harness.analysis.frames import scores_of
from harness.errors import StorageError, TrackingError
from harness.grid.cell_files import read_table
from harness.grid.folders import items_path
from harness.grid.schema import GridSpec
from harness.grid.status import CellState
from harness.records.results import CellResult


class ResultSource:
    """Results and per-item records of a grid.

    What the folders hold is first replayed to MLflow, so that both tell the same of a cell that is
    done here; such a cell is read from its folder. The others may be done on another machine:
    MLflow's runs tell of them, where it answers.
    """

    def __init__(
        self, grid: GridSpec, states: list[CellState], *, runs_dir: Path, uri: str
    ) -> None:
        from harness.tracking.runs import GridRuns

        self.problem: str | None = None
        """Why MLflow could not be read, if so."""
        self.left_out: dict[str, None] = {}
        """What was damaged of the files that were asked for, one line each."""
        self.folders = {state.cell.id: state.folder for state in states}
        self.tasks = {
            state.cell.id: {task.name: task for task in state.cell.tasks} for state in states
        }
        self.elsewhere = {state.cell.id for state in states if state.status != "done"}
        self.results: dict[str, CellResult] = {
            state.cell.id: state.result for state in states if state.result is not None
        }
        try:
            self.runs: Any = GridRuns(grid, uri, runs_dir)
            self.runs.sync(states)
            if self.elsewhere:
                found = self.tracked.items()
                self.results |= {k: run.result for k, run in found if k in self.elsewhere}
            self.runs.close()
        except TrackingError as fault:
            self.problem = str(fault)

    @cached_property
    def tracked(self) -> dict[str, Any]:
        """MLflow's runs by cell id, read when something is first asked of them."""
        return {run.cell_id: run for run in self.runs.read()}

    def items(self, cell_id: str, benchmark: str) -> Any:
        """Per-item records of a cell's benchmark, or None where there are none."""
        result, tasks = self.results.get(cell_id), self.tasks[cell_id]
        scores = scores_of(tasks[benchmark], result) if result and benchmark in tasks else ()
        if not scores:
            return None
        path = items_path(self.folders[cell_id], benchmark, scores[0].key)
        is_elsewhere = cell_id in self.elsewhere or not path.is_file()
        frame = self._read(cell_id, path, is_elsewhere=is_elsewhere)
        numbers = {score.metric for score in scores} & set(() if frame is None else frame.columns)
        if frame is not None and not (
            {"task", "doc_id", "question_id"} <= set(frame.columns)
            and all(frame[name].dtype.kind in "biuf" for name in numbers)
        ):
            self.left_out[f"{path}: damaged (its columns are not those of items)"] = None
            return None
        return frame

    def trace(self, cell_id: str, name: str) -> Any:
        """What a method kept of a cell's training, or None where there is nothing."""
        path = self.folders[cell_id] / name
        return self._read(cell_id, path, is_elsewhere=cell_id in self.elsewhere)

    def _read(self, cell_id: str, path: Path, *, is_elsewhere: bool) -> Any:
        found: Path | None = path
        name = path.relative_to(self.folders[cell_id]).as_posix()
        if is_elsewhere and self.problem is None and cell_id in self.tracked:
            found = self.runs.store.file(self.tracked[cell_id], name)
        if found is None or not found.is_file():
            return None
        result = self.results.get(cell_id)
        try:
            sha256 = None if result is None else result.files_sha256.get(name)
            return read_table(found, sha256).to_pandas()
        except StorageError as damaged:
            self.left_out[str(damaged)] = None
            return None

    def environment(self) -> dict[str, str]:
        """What the results were made with: every distinct value of each property."""
        merged: dict[str, dict[str, None]] = {}
        for result in self.results.values():
            for made_in in (result.environment, *result.evaluation_environments.values()):
                for key, value in made_in.items():
                    merged.setdefault(key, {})[str(value)] = None
        times = sorted(merged.pop("time", {}))
        described = {key: ", ".join(values) for key, values in merged.items()}
        if times:
            described["cells run from"] = times[0]
            described["cells run to"] = times[-1]
        return described
