"""Cells that several runs folders have: whether they are one result, or two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from harness.errors import LONGEST_LIST, StorageError, UsageError
from harness.grid.folders import Runs, cell_folders, runs_folders, stored_label
from harness.records.results import CellResult, read_result


@dataclass(frozen=True)
class Doubles:
    """Cells that were made twice, and whose results differ; one line each.

    A cell that was copied is no double, nor one whose copies hold other evaluations.
    """

    other_scores: tuple[str, ...] = ()
    """The same question has two scores: which of them counts no order of folders may decide."""
    other_training: tuple[str, ...] = ()
    """Trained twice, with equal scores as far as both have them: the folder that is furthest, else
    the first, is used."""

    @property
    def all(self) -> list[str]:
        """Both kinds."""
        return [*self.other_scores, *self.other_training]


def find_doubles(runs: Runs, ids: Iterable[str]) -> Doubles:
    """Where runs folders hold different results of a cell."""
    folders = runs_folders(runs)
    if len(folders) == 1:
        return Doubles()
    known = [cell_folders(folder) for folder in folders]
    used = cell_folders(runs)
    scores, trainings = [], []
    for cell_id in ids:
        places = [found[cell_id] for found in known if cell_id in found]
        results = [(place, result) for place in places if (result := _result(place, cell_id))]
        for (place, one), (second, other) in combinations(results, 2):
            label = stored_label(place) or cell_id
            if said := next(_other_scores(one, other), None):
                scores.append(
                    f"{label}: {said} in {place} and {second}; leave out one of the runs folders, "
                    "or `zbench merge` them into one, which keeps the result that is there"
                )
            elif one.train and other.train and one.train != other.train:
                rest = second if used[cell_id] == place else place
                trainings.append(
                    f"{label}: was trained twice; {used[cell_id]} is used, {rest} is not"
                )
    return Doubles(tuple(scores), tuple(trainings))


def refuse_other_scores(runs: Runs, ids: Iterable[str]) -> None:
    """Stops before it depends on the order of runs folders what a cell's score is.

    Raises:
        UsageError: two of them hold different scores of a cell.
    """
    found = find_doubles(runs, ids).other_scores
    if found:
        more = len(found) - LONGEST_LIST
        told = [f"and {more} more cells likewise"] if more > 0 else []
        raise UsageError("\n".join([*found[:LONGEST_LIST], *told]))


def _result(folder: Path, cell_id: str) -> CellResult | None:
    try:
        return read_result(folder, cell_id)
    except StorageError:  # it is told where the cell is read
        return None


def _other_scores(one: CellResult, other: CellResult) -> Iterator[str]:
    """What differs between two results' scores for the same questions."""
    mine, theirs = (
        {(score.evaluation, score.task, score.metric): score for score in result.scores}
        for result in (one, other)
    )
    for key in mine.keys() & theirs.keys():
        first, second = mine[key].value, theirs[key].value
        if first != second and mine[key].same_items(theirs[key]):
            yield f"{key[1]} {key[2]} is {first:.6g} and {second:.6g}"
