"""Which items of a benchmark share a source: a subject, a task, an activity, a passage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.item_texts import stored_rows
from harness.errors import ZbenchError
from harness.evaluation.tasks import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

USUAL = ("activity_label", "passage", "article", "story")
"""Columns that say which items share a source, where a benchmark's data has one of them."""


@dataclass(frozen=True)
class Clusters:
    """Which items of a benchmark share a source."""

    source: str = ""
    """What they share, such as `subject`; empty where nothing is known to be shared."""
    labels: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By `task/number` and question id, as `item_texts.Texts`; empty where `by_task`."""
    by_task: bool = False
    """Whether the items of one lm-eval task share it, as those of a subject do."""
    problem: str | None = None
    """Why it is not known of the items, in one line."""

    def codes(self, index: pd.Index) -> np.ndarray | None:
        """(n,) numbers of the clusters of items (task, number, question); None where one has none,
        or all have the same."""
        import numpy as np

        found: list[str | None]
        if self.by_task:
            found = [str(task) for task, _, _ in index]
        else:
            found = [self.labels.get((f"{t}/{n}", str(q))) for t, n, q in index]
        if None in found:
            return None
        codes = np.unique([str(one) for one in found], return_inverse=True)[1]
        return codes if codes.max(initial=0) > 0 else None


ClustersOf = Callable[[str, str], Clusters]
"""By cell and benchmark."""


def no_clusters(_cell: str, _benchmark: str) -> Clusters:
    """Nothing is known to be shared."""
    return Clusters()


def stored_clusters(task: TaskSpec, data_root: Path | None) -> Clusters:
    """Which items of a benchmark share a source: by the column that the grid names, by subject or
    task, or by one of USUAL, as far as the data root has its rows."""
    benchmark = task.benchmark
    if task.cluster is None and benchmark.subject_column is not None:
        return Clusters("subject", by_task=True)
    if task.cluster is None and len(benchmark.members) > 1:
        return Clusters("task", by_task=True)
    wanted = [task.cluster] if task.cluster is not None else list(USUAL)
    known = [name for name in wanted if task.cluster or name in benchmark.columns]
    try:
        rows = list(stored_rows(task, data_root))
    except (ZbenchError, OSError, KeyError, TypeError, ValueError):
        rows = []  # the run itself tells what is wrong with them
    if not rows:
        where = "it is not under the data root"
        return Clusters(known[0], problem=where) if known else Clusters()
    column = next((name for name in wanted if all(name in row for _, row in rows)), None)
    if column is None:
        return Clusters(known[0], problem="no such column") if known else Clusters()
    return Clusters(column, {key: str(row[column]) for key, row in rows})
