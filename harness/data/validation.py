"""The validation share of a data set: rows that no cell trains on, the same for all of its cells.

A fraction of a cell is one of the rows that are left. No torch here: planning imports this file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from harness.data.places import is_here
from harness.data.sets import (
    Instructions,
    chosen_rows,
    count_rows,
    inspect_data,
    num_examples,
    read_drawn,
    read_instructions,
    shuffled,
)
from harness.data.spec import DataSpec

COMPARED_ROWS = 200_000
"""Larger sets are not searched for rows that are held out and trained on."""


@cache
def held_out(num_rows: int, fraction: float) -> frozenset[int]:
    """The numbers of the rows that are held out; a smaller fraction's are some of a larger one's.

    They depend on nothing but the two: neither on a cell's seed nor on its fraction.
    """
    return frozenset(shuffled(num_rows, "validation", first=num_examples(fraction, num_rows)))


def num_training_rows(spec: DataSpec, num_rows: int) -> int:
    """How many rows are left of so many to train on."""
    share = spec.validation and spec.validation.fraction
    return num_rows - (num_examples(share, num_rows) if share else 0)


def training_rows(spec: DataSpec, num_rows: int, fraction: float, seed: int) -> list[int]:
    """The numbers of the rows that a cell trains on, in the order in which they are drawn.

    Without a validation share they are those of `chosen_rows`; with one, drawn in the same way of
    the rows that are left.

    Raises:
        DataError: the fraction is less than half a row.
    """
    share = spec.validation and spec.validation.fraction
    if not share:
        return chosen_rows(num_rows, fraction, seed)
    out = held_out(num_rows, share)
    left = [row for row in range(num_rows) if row not in out]
    return [left[index] for index in chosen_rows(len(left), fraction, seed)]


def count_training_rows(spec: DataSpec, data_root: Path | None) -> int | None:
    """How many rows there are to train on, where `count_rows` tells the size of the data set."""
    rows = count_rows(spec, data_root)
    return None if rows is None else num_training_rows(spec, rows)


def read_training(
    spec: DataSpec, fraction: float, seed: int, data_root: Path | None
) -> Instructions:
    """The rows that a cell trains on; the identity is that of the whole set.

    Raises:
        ZbenchError: as `read_instructions`, or the fraction is less than half a row.
    """
    return read_drawn(spec, lambda count: training_rows(spec, count, fraction, seed), data_root)


def read_validation(spec: DataSpec, data_root: Path | None) -> Instructions | None:
    """The validation rows, in the order of the data; None without any.

    Raises:
        ZbenchError: as `read_instructions`.
    """
    if spec.validation is None:
        return None
    if (share := spec.validation.fraction) is not None:
        return read_drawn(spec, lambda count: sorted(held_out(count, share)), data_root)
    return read_instructions(validation_set(spec), data_root=data_root)


def validation_set(spec: DataSpec) -> DataSpec:
    """The set that validation rows are of: the training data's own, where they are its share."""
    assert spec.validation is not None
    if spec.validation.fraction is not None:
        return spec
    own: dict[str, object] = {"validation": None, "num_rows": None}
    if spec.validation.split is not None:
        own["split"] = spec.validation.split
    else:
        own |= {"source": None, "subset": None, "split": None, "path": spec.validation.path}
    return spec.model_copy(update=own)


def rows_in_both(spec: DataSpec, data_root: Path | None) -> tuple[int, int]:
    """How many of the validation rows of a file or split are training rows too, and of how many.

    None of none where one of the two is not here, or they are too many to look at.

    Raises:
        ZbenchError: as `read_instructions`.
    """
    sets = spec, validation_set(spec)
    sizes = [inspect_data(one, data_root).rows or 0 for one in sets if is_here(one, data_root)]
    if len(sizes) < 2 or max(sizes) > COMPARED_ROWS:
        return 0, 0
    trained, held_out = (read_instructions(one, data_root=data_root).rows for one in sets)
    return sum(map(set(trained).__contains__, held_out)), len(held_out)


def validation_fault(spec: DataSpec, num_rows: int | None) -> str | None:
    """Why a share holds out no row, or all of them, as far as the data's size is known."""
    share = spec.validation and spec.validation.fraction
    if not share or not num_rows or 0 < num_examples(share, num_rows) < num_rows:
        return None
    which = "no row" if not num_examples(share, num_rows) else "all of them"
    return f"validation.fraction {share:g} of {num_rows} rows holds out {which}"
