"""Each tuned method beside its published recipe: scores, their difference, and what it took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.columns import Group, is_missing
from harness.analysis.comparisons import Comparison
from harness.analysis.measurements import Measurements
from harness.analysis.stats import Estimate
from harness.analysis.tuning import Tuning
from harness.analysis.variants import Variant, label_of, name_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TunedLine:
    """A method in one column, by its published recipe and with the chosen settings."""

    tuning: Tuning
    group: Group
    column: str
    published: Estimate | None
    tuned: Estimate | None
    difference: Estimate | None
    """Tuned minus published, paired by item and seed."""
    p_value: float | None
    is_same: bool
    """Whether the published recipe itself was chosen: both are the same trainings."""


@dataclass(frozen=True)
class TuningCost:
    """What a tuning took beside one training, in seconds of the device."""

    tuning: float | None
    training: float | None
    """Mean over the trainings with the chosen settings."""
    device: str
    """`CPU` or `GPU`; empty where it is not known."""


def variant_named(measured: Measurements, tuning: Tuning, label: str) -> Variant | None:
    """The variant of a label that is trained on what a tuning was."""
    place = tuning.model, tuning.data, tuning.fraction
    return next(
        (v for v in measured.cells if v.method == label and (v.model, v.data, v.fraction) == place),
        None,
    )


def is_published_recipe(measured: Measurements, tuning: Tuning) -> bool:
    """Whether the chosen settings are those of the published recipe: they are the same cells."""
    published = variant_named(measured, tuning, tuning.method)
    tuned = variant_named(measured, tuning, tuning.winner)
    if published is None or tuned is None:
        return False
    return measured.are_same(published, tuned)


def tuned_lines(
    measured: Measurements, comparisons: Mapping[Group, Sequence[Comparison]]
) -> Iterator[TunedLine]:
    """Yields each tuned method with a score in each column, in the order of the groups."""
    for group in comparisons:
        for tuning in measured.data.tunings:
            if tuning.gathered:  # its rows stand in the tables as they are
                continue
            published = variant_named(measured, tuning, tuning.method)
            tuned = variant_named(measured, tuning, tuning.winner)
            if tuned is None:
                continue
            is_same = is_published_recipe(measured, tuning)
            for column in group.columns:
                ours = measured.estimate(tuned, group, column)
                theirs = None if published is None else measured.estimate(published, group, column)
                if ours is None and theirs is None:
                    continue
                estimate, p_value = None, None
                if published is not None and not is_same:
                    estimate, p_value = _difference(
                        measured, comparisons[group], tuned, published, group, column
                    )
                yield TunedLine(tuning, group, column, theirs, ours, estimate, p_value, is_same)


def _difference(
    measured: Measurements,
    comparisons: Sequence[Comparison],
    tuned: Variant,
    published: Variant,
    group: Group,
    column: str,
) -> tuple[Estimate | None, float | None]:
    """That of the report's comparisons, which knows what the others tell of the seeds; else its
    own."""
    names = {label_of(tuned), name_of(tuned)}
    for entry in comparisons:
        if (entry.model, entry.column, entry.right) == (
            tuned.model,
            column,
            name_of(published),
        ) and (entry.left in names):
            return entry.estimate, entry.p_value
    found = measured.difference(tuned, published, group, column)
    return (None, None) if found is None else (found.estimate, found.p_value)


def tuning_cost(measured: Measurements, tuning: Tuning) -> TuningCost:
    """What the trials of a tuning took together, and one training with the chosen settings."""
    known = [trial.seconds for trial in tuning.trials if trial.seconds is not None]
    tuned = variant_named(measured, tuning, tuning.winner)
    tried = variant_named(measured, tuning, tuning.method) if tuned is None else tuned
    cells: pd.DataFrame = measured.data.cells
    mine = cells[cells["cell_id"].isin(measured.cells[tried].values() if tried else ())]
    seconds = [float(one) for one in mine["seconds"] if not is_missing(one)]
    devices = {str(one) for one in mine["device"] if not is_missing(one)}
    kinds = {"CPU" if name.startswith("cpu") else "GPU" for name in devices}
    return TuningCost(
        tuning=math.fsum(known) if known else None,
        training=math.fsum(seconds) / len(seconds) if seconds else None,
        device=kinds.pop() if len(kinds) == 1 else "",
    )
