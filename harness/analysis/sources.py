"""Where a report's results come from: MLflow where it answers, else the cells' own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.analysis.frames import scores_of
from harness.errors import TrackingError
from harness.grid.folders import items_path
from harness.grid.schema import Cell, GridSpec
from harness.grid.status import CellState
from harness.records.results import CellResult


class ResultSource:
    """Results and per-item records, from MLflow where it answers, else from the cells' files."""

    def __init__(
        self,
        grid: GridSpec,
        cells: list[Cell],
        states: list[CellState],
        *,
        runs_dir: Path,
        uri: str,
    ) -> None:
        from harness.tracking.runs import GridRuns

        self.problem: str | None = None
        self.folders = {state.cell.id: state.folder for state in states}
        self.tasks = {
            state.cell.id: {task.name: task for task in state.cell.tasks} for state in states
        }
        self.tracked: dict[str, Any] = {}
        try:
            self.runs: Any = GridRuns(grid, uri, runs_dir)
            self.runs.sync(states)
            self.tracked = {run.cell_id: run for run in self.runs.read()}
            self.runs.close()
            chosen = {cell.id for cell in cells}
            self.results: dict[str, CellResult] = {
                cell_id: run.result for cell_id, run in self.tracked.items() if cell_id in chosen
            }
        except TrackingError as fault:
            self.problem = str(fault)
            self.results = {
                state.cell.id: state.result for state in states if state.result is not None
            }

    def items(self, cell_id: str, benchmark: str) -> Any:
        """Returns the per-item records of a cell's benchmark, or None where there are none."""
        import pandas as pd

        result, tasks = self.results.get(cell_id), self.tasks[cell_id]
        scores = scores_of(tasks[benchmark], result) if result and benchmark in tasks else ()
        if not scores:
            return None
        path: Path | None = items_path(self.folders[cell_id], benchmark, scores[0].key)
        assert path is not None
        if cell_id in self.tracked:
            path = self.runs.items_file(self.tracked[cell_id], path.name)
        return pd.read_parquet(path) if path is not None and path.is_file() else None

    def trace(self, cell_id: str, name: str) -> Any:
        """Returns what a method kept of a cell's training, or None where there is nothing."""
        import pandas as pd

        path: Path | None = self.folders[cell_id] / name
        if cell_id in self.tracked:
            path = self.runs.file(self.tracked[cell_id], name)
        return pd.read_parquet(path) if path is not None and path.is_file() else None

    def environment(self) -> dict[str, str]:
        """Returns what the results were made with: every distinct value of each property."""
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
