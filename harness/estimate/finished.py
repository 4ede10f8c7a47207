"""The spread of a claim's difference as finished cells of the grid show it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.claims import source_text
from harness.analysis.columns import stated_sd
from harness.analysis.frames import (
    ReportInput,
    cells_frame,
    losses_frame,
    rows_of,
    scores_frame,
    without_noise,
)
from harness.analysis.power import Spread, spread_of
from harness.analysis.variants import name_of
from harness.estimate.power import Key, PlannedClaim, key_of
from harness.grid.seed_sd import SeedSds
from harness.grid.workspace import OpenGrid


def finished_spreads(
    grid: OpenGrid, planned: Sequence[PlannedClaim]
) -> dict[Key, tuple[Spread, str]]:
    """The spread of each claim both sides of which have scores, and where it is from in words.

    Nothing of the results is read where no claim has scores of both sides: planning stays quick.
    """
    scored = {
        (cell.model_name, cell.method_label)
        for state in grid.states
        if state.shown is not None and state.shown.scores
        for cell in rows_of([state.cell])
    }
    known = [
        one
        for one in planned
        if {(one.model, one.left.method), (one.model, one.right.method)} <= scored
    ]
    return _measured(grid, known) if known else {}


def _measured(grid: OpenGrid, planned: Sequence[PlannedClaim]) -> dict[Key, tuple[Spread, str]]:
    from harness.analysis.measurements import Measurements
    from harness.analysis.sources import ResultSource
    from harness.evaluation.benchmarks import BENCHMARKS

    source = ResultSource(
        grid.spec, grid.states, runs_dir=grid.runs_dir, uri=None, data_root=grid.data_root
    )
    own = {task.name: task.benchmark for cell in grid.cells for task in cell.tasks}
    data = ReportInput(
        grid_name=grid.spec.name,
        grid_title=grid.spec.title,
        grid_yaml="",
        scores=scores_frame(grid.cells, source.results),
        cells=cells_frame(grid.states, source.results),
        losses=losses_frame(grid.cells, source.results),
        items=source.items,
        tables=grid.spec.tables,
        compare=grid.spec.compare,
        claims=grid.spec.claims,
        seed_sd=grid.spec.seed_sd or SeedSds(),
        benchmarks=own,
    )
    measured = Measurements(without_noise(data), {**BENCHMARKS, **own})
    found: dict[Key, tuple[Spread, str]] = {}
    for one in planned:
        named = {name_of(variant): variant for variant in measured.table_variants(one.model)}
        left, right = (named.get(name_of(side)) for side in (one.left, one.right))
        groups = [
            group for group in measured.groups
            if (group.protocol, group.rank) == (one.group.protocol, 0)
            and one.column in group.columns
        ]  # fmt: skip
        if left is None or right is None or not groups:
            continue
        components = measured.components(left, right, groups[0], one.column)
        difference = measured.difference(left, right, groups[0], one.column)
        if components is not None and difference is not None:
            stated = stated_sd(data.seed_sd, groups[0], one.column)
            told = f"finished cells: {source_text(components.basis, stated)}"
            found[key_of(one)] = spread_of(components, difference.estimate.num_seeds), told
    return found
