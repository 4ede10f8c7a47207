"""A grid as one command sees it: its chosen cells, their states, its data; each found out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from harness.data.places import is_here
from harness.data.reading import RowReport, template_title
from harness.data.sets import inspect_data
from harness.data.spec import DataSpec
from harness.data.validation import count_training_rows
from harness.demo.world import readable_root, world_folder, write_world
from harness.errors import UsageError
from harness.grid.checks import (
    ALLOW,
    look_at,
    resolve_data_root,
    version_faults,
)
from harness.grid.folders import Runs, check_writable, runs_folders, stored_label, write_cell_file
from harness.grid.inputs import Inputs, inputs_of_cells, inputs_of_grid
from harness.grid.loader import read_grid, refuse
from harness.grid.names import data_place
from harness.grid.own_data import OwnData, find_own_data
from harness.grid.resolver import Resolved
from harness.grid.schema import Cell, GridSpec, RowCounts, is_own_file
from harness.grid.selection import is_chosen, select_cells
from harness.grid.several_folders import Doubles, find_doubles
from harness.grid.status import CellState, read_states
from harness.grid.trials import settled_trials, stored_results, unfold_stored
from harness.grid.tuned_methods import TunedMethod
from harness.methods import METHODS


@dataclass(frozen=True)
class OpenGrid:
    """A grid with the places that the command line gave."""

    argument: str
    """What the user called it."""
    spec: GridSpec
    cells: list[Cell]
    """The chosen ones."""
    runs_dir: Path
    data_root: Path | None
    own_data: OwnData = field(default_factory=OwnData)
    """The content of the files of one's own that cells train on; where it is not known, neither are
    their ids."""
    thorough: bool = True
    """Whether every file of a finished cell is read; else those that changed since its result."""
    left_out: tuple[str, ...] = ()
    """Methods of the grid that are not here, one line each."""
    only: str | None = None
    """What the cells were chosen by."""
    more_runs: tuple[Path, ...] = ()
    """Further runs folders that are read; see `grid.folders.Runs`."""
    tunings: tuple[TunedMethod, ...] = ()
    """How far each of the grid's tunings is, whatever cells are chosen."""

    @property
    def runs(self) -> Runs:
        """All runs folders that are read."""
        return (self.runs_dir, *self.more_runs)

    @cached_property
    def twice(self) -> Doubles:
        """Where the runs folders have made a cell twice, and not the same of it."""
        return find_doubles(self.runs, [cell.id for cell in self.cells])

    @property
    def notices(self) -> list[str]:
        """What a command says of its grid whatever it does: what is left out, broken plug-ins."""
        told, used = "\n".join(self.left_out), self.spec.data_names
        idle = [f"{data_place(n)}: no block names it" for n in self.spec.datasets if n not in used]
        if self.spec.datasets and self.spec.data != DataSpec() and None not in used:
            idle.append("data: no block trains on it: each names one of `datasets`")
        broken = (line for line in METHODS.broken() if line not in told)
        return [*self.left_out, *idle, *broken, *self.twice.all]

    @cached_property
    def waiting(self) -> list[tuple[Cell, str]]:
        """The chosen ones of the cells that a tuning will decide, each with what it waits for: with
        the settings of the published recipe, which stand in for what is not known yet."""
        return [
            (cell, tuning.waits_for)
            for tuning in self.tunings
            for cell in tuning.waiting
            if is_chosen(cell, self.only)
        ]

    @property
    def expected(self) -> list[CellState]:
        """The states of all cells that will be run: those that wait are to do."""
        place = self.runs_dir / "cells"
        stand_ins = [
            CellState(cell, place / cell.slug, None, "to do", cell.tasks)
            for cell, _ in self.waiting
        ]
        return [*self.states, *stand_ins]

    @property
    def left(self) -> list[CellState]:
        """The expected cells but the trials that ended without a result: what a run may cost."""
        passed = self.settled
        return [
            state
            for state in self.expected
            if state.status != "pruned" and state.cell.id not in passed
        ]

    @property
    def pauses(self) -> dict[str, int]:
        """By cell id: after how many epochs the training of a trial stops, until all trials have
        come as far and the pruner decides."""
        return {key: epochs for one in self.tunings for key, epochs in one.pauses.items()}

    @property
    def takes_on(self) -> list[CellState]:
        """The cells that a run may take on: no trials that have ended, nor those that wait until
        others have come as far."""
        trials = (trial for one in self.tunings for trial in one.trials if trial.holds)
        held = {cell.id for trial in trials for cell in trial.cells}
        passed = self.settled | held
        return [s for s in self.states if s.status != "pruned" and s.cell.id not in passed]

    @cached_property
    def settled(self) -> frozenset[str]:
        """Ids of the chosen trials that ended without a result, and would do so again."""
        found = settled_trials(self.tunings, stored_results(self.runs))
        return found & {cell.id for cell in self.cells}

    def unfolded(self) -> OpenGrid:
        """The same grid, with the cells that its results let know by now."""
        found = unfold_stored(self.spec, self.own_data.contents, self.runs)
        chosen = select_cells(found.cells, self.only, found.tunings)
        return replace(self, cells=chosen, tunings=found.tunings)

    @cached_property
    def states(self) -> list[CellState]:
        """How far each cell was when this was first asked."""
        return self.read_states()

    def read_states(self) -> list[CellState]:
        """How far each cell is now.

        Raises:
            UsageError: it is not known what they are trained on.
        """
        if (fault := self.own_data.fault_of(self.cells)) is not None:
            raise UsageError(fault)
        found = read_states(
            self.cells,
            runs_dir=self.runs,
            data_root=self.data_root,
            thorough=self.thorough,
        )
        stopped = {key: said for one in self.tunings for key, said in one.pruned.items()}
        return [
            replace(state, status="pruned", fault=stopped[state.cell.id])
            if state.cell.id in stopped and state.status not in ("stale", "running")
            else state
            for state in found
        ]

    @cached_property
    def data_contents(self) -> dict[str, str]:
        """What rows the cells were trained on so far, by the name of their set of the hub."""
        found: dict[str, str] = {}
        for state in self.states:
            train, data = state.result and state.result.train, state.cell.data
            if train and train.data_content_sha256 and data.hub_name is not None:
                found.setdefault(data.hub_name, train.data_content_sha256)
        return found

    @cached_property
    def num_rows(self) -> RowCounts:
        """Rows of each training set that are left to train on, where their number is known."""
        sets = {name: self.spec.data_of(name) for name in self.spec.data_names}
        return {name: count_training_rows(data, self.data_root) for name, data in sets.items()}

    @cached_property
    def data_reports(self) -> dict[str, RowReport]:
        """What is found of the rows of each set of one's own that the cells train on."""
        found: dict[str, RowReport] = {}
        for name in dict.fromkeys(cell.data_name for cell in self.cells if cell.train is not None):
            data = self.spec.data_of(name)
            if is_own_file(data, self.spec.world) and is_here(data, self.data_root):
                report = inspect_data(data, self.data_root).report
                if report is not None:
                    title = template_title(report.form, data.template)
                    found[data_place(name)] = replace(report, template=title)
        return found

    @property
    def data_lines(self) -> list[str]:
        """What is known of the rows of each set that has a name, or is one's own."""
        found = {place: str(report) for place, report in self.data_reports.items()}
        for name, left in self.num_rows.items():
            place, data = data_place(name), self.spec.data_of(name)
            parts = left is not None and data.validation and data.validation.fraction
            if place in found and parts:
                found[place] += f"; {left:,} left to train on, the others are for validation"
            elif place not in found and name is not None:
                known = "rows unknown until they are read" if left is None else f"{left:,} rows"
                known += " left to train on" if parts else ""
                rest = "; the others are for validation" if parts else ""
                found[place] = f"{known}, of {data.source or data.path}{rest}"
        return [f"{place}: {said}" for place, said in found.items()]

    @cached_property
    def inputs(self) -> InputCheck:
        """What is wrong with what the cells read, looked at once."""
        return check_inputs(inputs_of_cells(self.cells), self.runs_dir, self.data_root)


@dataclass(frozen=True)
class InputCheck:
    """What is found of what cells read, one line each."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]
    """What a reader must know of it."""
    versions: tuple[str, ...]
    """Data sets of another version than the pinned one, which a user may allow."""

    def refused(self, *, allow_data_mismatch: bool) -> list[str]:
        """What stops a run."""
        other = [] if allow_data_mismatch else [f"{text}; {ALLOW}" for text in self.versions]
        return [*self.faults, *other]

    @property
    def warnings(self) -> list[str]:
        """What is told of it where nothing stops a run."""
        return [*self.notes, *(f"{text}; scores made with it say so" for text in self.versions)]


def check_inputs(inputs: Inputs, runs_dir: Path, data_root: Path | None) -> InputCheck:
    """Looks at all that cells read: nothing is loaded, and nothing is written."""
    data_root = readable_root(runs_dir, data_root)
    found = look_at(inputs, data_root)
    versions = version_faults(inputs, data_root)
    return InputCheck(*(tuple(dict.fromkeys(p)) for p in (found.faults, found.notes, versions)))


def open_grid(
    grid: str,
    runs: Runs,
    data_root: Path | None,
    only: str | None,
    *,
    results_alone: bool = False,
) -> OpenGrid:
    """The grid, validated, with its chosen cells.

    With `results_alone`, for a command that runs nothing: what was scored may be gone since, and
    methods that are not installed here are left out, and told in `notices`.

    Raises:
        UsageError: the grid has faults, or nothing is chosen, or a folder is not there.
    """
    found = read_grid(grid, results=runs if results_alone else None)
    return _opened(grid, found, runs, data_root, only)


def _opened(
    argument: str, found: Resolved, runs: Runs, data_root: Path | None, only: str | None
) -> OpenGrid:
    refuse(found.faults)
    root = resolve_data_root(found.grid, data_root, runs)
    own = find_own_data(found.grid, root, runs)
    runs_dir, *more_runs = runs_folders(runs)
    return OpenGrid(
        argument=argument,
        spec=own.settle(found.grid),
        cells=[],
        runs_dir=runs_dir,
        data_root=root,
        own_data=own,
        left_out=found.left_out,
        only=only,
        more_runs=tuple(more_runs),
    ).unfolded()


def open_to_run(
    grid: str,
    runs_dir: Path,
    data_root: Path | None,
    only: str | None,
    *,
    allow_data_mismatch: bool = False,
) -> OpenGrid:
    """The grid, with all that it reads looked at: for `plan` and for what runs cells.

    Raises:
        UsageError: the grid, or what its cells read, has faults; all of them are told at once.
    """
    found = read_grid(grid)
    if found.faults:
        faults = list(found.faults)
        try:
            root = resolve_data_root(found.grid, data_root, runs_dir)
            looked = check_inputs(inputs_of_grid(found.grid), runs_dir, root)
            faults += looked.refused(allow_data_mismatch=allow_data_mismatch)
        except UsageError as fault:
            faults.append(str(fault))
        found = replace(found, faults=tuple(dict.fromkeys(faults)))
    opened = _opened(grid, found, runs_dir, data_root, only)
    refuse(opened.inputs.refused(allow_data_mismatch=allow_data_mismatch))
    return opened


def prepare_run(grid: OpenGrid, *, allow_data_mismatch: bool = False) -> list[str]:
    """Checks what can be checked before anything runs, and writes the embedded world.

    Returns:
        Warnings: a runs folder without file locks, and local data that are not the pinned version,
        where that is allowed.

    Raises:
        UsageError: a folder cannot be written, a local file that cells read is not there, or is
            another version of its data set.
    """
    without_locks = check_writable(grid.runs_dir)
    world = world_folder(grid.runs_dir)
    if grid.spec.world is not None and grid.data_root == world:
        write_world(world)
    refuse(grid.inputs.refused(allow_data_mismatch=allow_data_mismatch))
    for state in grid.states:
        done = state.status == "done"  # another cell's file is written when it runs
        if done and stored_label(state.folder) is None:
            write_cell_file(state.folder, state.cell)
    return [*filter(None, [without_locks]), *grid.inputs.warnings]


def refuse_changed_inputs(states: Sequence[CellState]) -> None:
    """Stops before numbers of different data or weights meet in one grid.

    Raises:
        UsageError: what the results were made from has changed since; the message names the first.
    """
    stale = [state.fault for state in states if state.status == "stale"]
    if stale:
        more = f" ({len(stale) - 1} more cells have changed too)" if len(stale) > 1 else ""
        raise UsageError(f"{stale[0]}{more}")
