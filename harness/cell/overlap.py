"""Which test items the training rows hold: found once per data set and benchmark, and kept."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cell.settings import CellContext
from harness.data.sets import WHOLE_ROWS, inspect_data, read_drawn
from harness.data.spec import DataSpec
from harness.evaluation.tasks import TaskSpec
from harness.records.files import write_frame
from harness.records.overlap import overlap_file
from harness.records.results import CellResult

if TYPE_CHECKING:
    from harness.evaluation.overlap import TrainingText

logger = logging.getLogger(__name__)


def find_overlap(context: CellContext, task: TaskSpec, result: CellResult) -> None:
    """Keeps which items of a benchmark are in the rows of a cell's data set, all of them.

    Nothing is done where the file is there, or the rows are not at hand or more than a million:
    the report says so. No score depends on it.
    """
    from harness.evaluation.loading import load_benchmark
    from harness.evaluation.overlap import overlap_frame, questions_of

    data, root = context.cell.data, context.settings.data_root
    rows_sha256 = None if result.train is None else result.train.data_content_sha256
    if rows_sha256 is None:
        return
    try:
        loaded = load_benchmark(task, root)
        file = overlap_file(
            context.settings.runs_dir, task.name, loaded.content_sha256, rows_sha256
        )
        if file.is_file() or (inspect_data(data, root).rows or 0) > WHOLE_ROWS:
            return
        write_frame(file, overlap_frame(questions_of(loaded), _training(data, root, rows_sha256)))
    except Exception as fault:  # templates raise any kind; no cell fails for it
        logger.info("%s: its overlap with the training rows is not known (%s)", task.name, fault)


@lru_cache(maxsize=1)  # the benchmarks of one cell follow each other
def _training(data: DataSpec, data_root: Path | None, _rows_sha256: str) -> TrainingText:
    from harness.evaluation.overlap import training_text

    return training_text(read_drawn(data, lambda count: range(count), data_root).rows)
