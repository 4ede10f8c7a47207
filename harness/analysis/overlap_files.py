"""Test items that the training rows hold, and the scores with and without them.

What was found lies in the runs folder: `harness.cell.overlap` writes it as a cell is scored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.analysis.frames import scores_of
from harness.analysis.overlap import Overlap, OverlapLine, OverlapScore
from harness.errors import StorageError
from harness.grid.cell_files import read_table
from harness.grid.folders import Runs, runs_folders
from harness.grid.schema import Cell
from harness.records.overlap import overlap_file
from harness.records.results import CellResult
from harness.records.scores import TaskScore

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["task", "doc_id"]
FLAGS = ["ngram", "question"]
Items = Callable[[str, str], "pd.DataFrame | None"]


def find_overlap(
    cells: Sequence[Cell], results: Mapping[str, CellResult], runs: Runs, items: Items
) -> Overlap:
    """Overlap of every data set and benchmark of a grid's trained cells, as far as it is kept.

    Args:
        items: per-item records of (cell id, benchmark).
    """
    frames: dict[tuple[str, str], pd.DataFrame | None] = {}
    lines: list[OverlapLine] = []
    scores: list[OverlapScore] = []
    for cell in cells:
        result = results.get(cell.id)
        rows_sha256 = result and result.train and result.train.data_content_sha256
        if result is None or not rows_sha256:
            continue
        name = cell.data_name or cell.data.source or str(cell.data.path)
        for task in cell.tasks:
            found = scores_of(task, result)
            if not found or found[0].content_sha256 is None:
                continue
            key = task.name, name
            if key not in frames:
                frames[key] = _read(runs, task.name, found[0].content_sha256, rows_sha256)
                if (frame := frames[key]) is not None:
                    counts = (int(frame[flag].sum()) for flag in FLAGS)
                    lines.append(OverlapLine(name, task.name, len(frame), *counts))
            frame = frames[key]
            if frame is not None and frame[FLAGS].to_numpy().any():
                primary = task.benchmark.primary_metric
                own = next((one for one in found if one.metric == primary), found[0])
                scores += _score(cell, own, frame, items(cell.id, task.name))
    unknown = tuple(f"{task} ({data})" for (task, data), one in frames.items() if one is None)
    return Overlap(tuple(lines), tuple(scores), unknown)


def _read(runs: Runs, benchmark: str, items_sha256: str, rows_sha256: str) -> pd.DataFrame | None:
    for runs_dir in runs_folders(runs):
        file = overlap_file(runs_dir, benchmark, items_sha256, rows_sha256)
        with contextlib.suppress(StorageError):
            frame = read_table(file, None).to_pandas() if file.is_file() else None
            if frame is not None and {*KEYS, *FLAGS} <= {*frame.columns}:
                return frame
    return None


def _score(
    cell: Cell, score: TaskScore, frame: pd.DataFrame, asked: pd.DataFrame | None
) -> list[OverlapScore]:
    """The scores of a cell, where some of the items that it was asked were found, and some not."""
    if asked is None or score.metric not in asked.columns:
        return []
    joined = asked[[*KEYS, score.metric]].merge(frame, on=KEYS, how="left")
    hit, values = joined[FLAGS].fillna(value=False).any(axis=1), joined[score.metric].astype(float)
    if not 0 < int(hit.sum()) < len(joined):
        return []
    means = (float(part.mean()) for part in (values, values[~hit], values[hit]))
    return [
        OverlapScore(cell.label, score.benchmark, score.metric, int(hit.sum()), len(hit), *means)
    ]
