"""Where a report's results come from: the cells' own folders, and MLflow for what they lack."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from harness.analysis.frames import scores_of
from harness.errors import TrackingError
from harness.grid.folders import items_path
from harness.grid.schema import GridSpec
from harness.grid.status import CellState, LocalInputs
from harness.records.results import CellResult


class ResultSource:
    """Results and per-item records of a grid.

    What the folders hold is first replayed to MLflow, so that both tell the same of a cell that is
    done here; such a cell is read from its folder. The others may be done on another machine:
    MLflow's runs tell of them, where it answers.
    """

    def __init__(
        self,
        grid: GridSpec,
        states: list[CellState],
        *,
        runs_dir: Path,
        uri: str,
        data_root: Path | None = None,
    ) -> None:
        from harness.tracking.runs import GridRuns

        self.problem: str | None = None
        """Why MLflow could not be read, if so."""
        self.folders = {state.cell.id: state.folder for state in states}
        self.tasks = {
            state.cell.id: {task.name: task for task in state.cell.tasks} for state in states
        }
        self.elsewhere = {state.cell.id for state in states if state.status != "done"}
        self.results: dict[str, CellResult] = {
            state.cell.id: state.shown for state in states if state.shown is not None
        }
        try:
            self.runs: Any = GridRuns(grid, uri, runs_dir)
            self.runs.sync(states)
            if self.elsewhere:
                cells = {state.cell.id: state.cell for state in states}
                shown = LocalInputs(data_root).shown
                self.results |= {
                    cell_id: shown(cells[cell_id], run.result)
                    for cell_id, run in self.tracked.items()
                    if cell_id in self.elsewhere
                }
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
        path = items_path(self.folders[cell_id], benchmark, scores[0].evaluation)
        is_elsewhere = cell_id in self.elsewhere or not path.is_file()
        return self._read(cell_id, path, is_elsewhere=is_elsewhere)

    def trace(self, cell_id: str, name: str) -> Any:
        """What a method kept of a cell's training, or None where there is nothing."""
        path = self.folders[cell_id] / name
        return self._read(cell_id, path, is_elsewhere=cell_id in self.elsewhere)

    def _read(self, cell_id: str, path: Path, *, is_elsewhere: bool) -> Any:
        import pandas as pd

        found: Path | None = path
        if is_elsewhere and self.problem is None and cell_id in self.tracked:
            name = path.relative_to(self.folders[cell_id]).as_posix()
            found = self.runs.store.file(self.tracked[cell_id], name)
        return pd.read_parquet(found) if found is not None and found.is_file() else None

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
