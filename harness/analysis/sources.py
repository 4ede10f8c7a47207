"""Where a report's results come from: the cells' own folders, and MLflow for what they lack."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.analysis.answers import ITEM_KEY, ItemKey
from harness.analysis.frames import scores_of
from harness.analysis.item_clusters import Clusters, stored_clusters
from harness.analysis.item_pictures import Pictures, stored_pictures
from harness.analysis.item_texts import Texts, stored_texts
from harness.errors import StorageError, TrackingError
from harness.evaluation.tasks import TaskSpec
from harness.grid.cell_files import read_table
from harness.grid.folders import items_path
from harness.grid.schema import GridSpec
from harness.grid.status import CellState, LocalInputs
from harness.records.results import CellResult
from harness.tracking.reading import TrackedResults


class ResultSource:
    """Results and per-item records of a grid; nothing is written.

    A cell that is done here is read from its folder. The others may be done on another machine:
    runs in an MLflow store that the user named tell of them, where it answers. The runs folder's
    own database knows no more than the folder, and is not asked.

    Args:
        grid: the grid.
        states: how far its cells are here.
        runs_dir: the runs folder.
        uri: of the store; None to ask none.
    """

    def __init__(
        self,
        grid: GridSpec,
        states: Sequence[CellState],
        *,
        runs_dir: Path,
        uri: str | None,
        data_root: Path | None = None,
    ) -> None:
        self.problem: str | None = None
        """Why MLflow could not be read, if so."""
        self.left_out: dict[str, None] = {}
        """What was gone or damaged of the files that were asked for, one line each."""
        self.only_tracked: list[str] = []
        """Labels of the cells whose result is in MLflow alone."""
        self.folders = {state.cell.id: state.folder for state in states}
        self.tasks = {
            state.cell.id: {task.name: task for task in state.cell.tasks} for state in states
        }
        self._asked = {state.cell.id: state.cell.tasks for state in states}
        self.results: dict[str, CellResult] = {
            state.cell.id: state.shown for state in states if state.shown is not None
        }
        self._inputs, self._data_root = LocalInputs(data_root), data_root
        self._texts = cache(lambda task: stored_texts(task, data_root))
        self._clusters = cache(lambda task: stored_clusters(task, data_root))
        self._tracked: TrackedResults | None = None
        self._elsewhere: set[str] = set()
        undone = [state for state in states if state.status != "done"]
        if uri is None or not undone:
            return
        try:
            self._tracked = TrackedResults(grid, uri, runs_dir)
        except TrackingError as fault:
            self.problem = str(fault)
            return
        for state in undone:
            self._take(state, self._tracked)

    def _take(self, state: CellState, tracked: TrackedResults) -> None:
        """Takes a cell's result from MLflow where that has more of the scores asked for."""
        cell_id, tasks = state.cell.id, state.cell.tasks
        found, here = tracked.runs.get(cell_id), self.results.get(cell_id)
        if found is None:
            return
        shown = self._inputs.shown(state.cell, found.result)
        answered = [
            sum(bool(scores_of(task, result)) for task in tasks) if result else -1
            for result in (shown, here)
        ]
        if answered[0] > answered[1]:
            self.results[cell_id] = shown
            self._elsewhere.add(cell_id)
            self.only_tracked.append(state.cell.label)

    @property
    def lost(self) -> list[str]:
        """Files of MLflow's runs that are gone or cannot be read, one line each."""
        return [] if self._tracked is None else self._tracked.lost

    def items(self, cell_id: str, benchmark: str) -> Any:
        """Per-item records of a cell's benchmark, or None where there are none."""
        result, tasks = self.results.get(cell_id), self.tasks[cell_id]
        return self._items_of(cell_id, tasks[benchmark]) if result and benchmark in tasks else None

    def draws(self, cell_id: str, benchmark: str) -> list[Any]:
        """Those of each draw of sampled responses, where a cell has several."""
        asked = (task for task in self._asked[cell_id] if task.name == benchmark)
        found = (self._items_of(cell_id, task) for task in asked)
        return [frame for frame in found if frame is not None]

    def _items_of(self, cell_id: str, task: TaskSpec) -> Any:
        result, benchmark = self.results.get(cell_id), task.name
        scores = scores_of(task, result) if result else ()
        if not scores:
            return None
        path = items_path(self.folders[cell_id], benchmark, scores[0].evaluation)
        frame = self._read(cell_id, path, expected=True)
        numbers = {score.metric for score in scores} & set(() if frame is None else frame.columns)
        if frame is not None and not (
            set(ITEM_KEY) <= set(frame.columns)
            and all(frame[name].dtype.kind in "biuf" for name in numbers)
        ):
            self.left_out[f"{path}: damaged (its columns are not those of items)"] = None
            return None
        return frame

    def texts(self, cell_id: str, benchmark: str) -> Texts:
        """What the items of a cell's benchmark ask, where the data root has them."""
        task = self.tasks[cell_id].get(benchmark)
        return {} if task is None else self._texts(task)

    def pictures(self, cell_id: str, benchmark: str, wanted: Collection[ItemKey]) -> Pictures:
        """The pictures of items of a cell's benchmark, where the data root has them."""
        task = self.tasks[cell_id].get(benchmark)
        return {} if task is None else stored_pictures(task, self._data_root, wanted)

    def clusters(self, cell_id: str, benchmark: str) -> Clusters:
        """Which items of a cell's benchmark share a source."""
        task = self.tasks[cell_id].get(benchmark)
        return Clusters() if task is None else self._clusters(task)

    def trace(self, cell_id: str, name: str) -> Any:
        """What a method kept of a cell's training, or None where there is nothing."""
        return self._read(cell_id, self.folders[cell_id] / name, expected=False)

    def _read(self, cell_id: str, path: Path, *, expected: bool) -> Any:
        found: Path | None = path
        name = path.relative_to(self.folders[cell_id]).as_posix()
        if self._tracked is not None and cell_id in self._elsewhere:
            found = self._tracked.file(cell_id, name, expected=expected)
        elif expected and not path.is_file():
            self.left_out[f"{path}: is gone"] = None
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
