"""A validated grid (GridSpec), and the cells that it spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Literal

from harness.data.spec import DataSpec
from harness.demo.world import VERSION as DEMO_VERSION
from harness.evaluation.tasks import TaskSpec, joined
from harness.grid.cells import RECIPE as RECIPE
from harness.grid.cells import Alias, DataName, DeviceCount, FixedSeeds, Fraction, Seed, Source
from harness.grid.cells import Cell as Cell
from harness.grid.cells import is_base as is_base
from harness.grid.cells import is_own_file as is_own_file
from harness.grid.choices import LONGEST_LABEL as LONGEST_LABEL
from harness.grid.choices import MethodChoice as MethodChoice
from harness.grid.choices import options_on
from harness.grid.gather import Gathered
from harness.grid.noise import NoiseSpec, fixed_seeds, noise_cells, other_seed
from harness.grid.questions import ClaimSpec, TableSpec
from harness.grid.remarks import Remarks
from harness.grid.seed_sd import SeedSdsEntry
from harness.grid.tracking_uri import TrackingSpec
from harness.grid.tuning import TuneSpec
from harness.models.checkpoint import ModelSpec
from harness.spec import Spec

RowCounts = Mapping[str | None, int | None]
"""Rows of each training set by its name in `datasets`, None for the grid's one `data`; a size is
None where it is not known."""


class Block(Spec):
    """A product of models, methods, fractions and seeds, scored on the same tasks."""

    models: tuple[str, ...]
    methods: tuple[MethodChoice, ...]
    fractions: tuple[Fraction, ...]
    seeds: tuple[Seed, ...]
    tasks: tuple[TaskSpec, ...]
    gpus_per_cell: DeviceCount = 1
    """Devices that train each of its cells together."""
    data: DataName | None = None
    """Name in the grid's `datasets`; None for its one `data`."""
    vary: tuple[Source, ...] = ()
    """What takes the seeds, while all else keeps the first of them; empty: everything does."""
    tune: TuneSpec | None = None
    """How its trained methods are tuned."""

    def fixed(self, seed: int | None) -> FixedSeeds:
        """The seeds of what does not vary with a cell's seed."""
        return fixed_seeds(self.vary, seed, self.seeds[0])

    def draws(self, choice: MethodChoice) -> Iterable[tuple[float | None, int | None]]:
        """Fraction and seed of each cell of a method and a model."""
        return [(None, None)] if choice.train is None else product(self.fractions, self.seeds)

    @property
    def num_trainings(self) -> int:
        """Cells of one trained method on one model."""
        drawn = len(self.fractions) * len(self.seeds)
        return drawn if self.tune is None else 2 * drawn + self.tune.trials * self.tune.seeds

    @property
    def trains(self) -> bool:
        """Whether a method of it trains something."""
        return any(choice.train is not None for choice in self.methods)


class GridSpec(Spec):
    """A grid, validated: every name is known and every number within its bounds."""

    name: str
    title: str
    notes: tuple[str, ...]
    """Caveats printed in the report."""
    world: Literal["demo"] | None
    """The embedded world that stands in for the data root."""
    models: dict[str, ModelSpec]
    data: DataSpec
    """What the blocks that name no set train on."""
    datasets: dict[DataName, DataSpec] = {}
    """Sets by name, for the blocks that name one."""
    blocks: tuple[Block, ...]
    tracking: TrackingSpec
    tables: tuple[TableSpec, ...] = ()
    """Tables of scores; one with all benchmarks where empty."""
    compare: str | None = None
    """The method that all others are compared with, or `all`."""
    remarks: Remarks = {}
    """What a reader must know of a method, by its label."""
    left_out: Remarks = {}
    """Why methods are not in the grid."""
    gather: Gathered = {}
    """Labels of rows that are one method's tuning, by a name."""
    published_runs: Literal["peft-suite"] | None = None
    """Published runs that stand beside the measured ones."""
    claims: tuple[ClaimSpec, ...] = ()
    """What is tested first."""
    noise: NoiseSpec | None = None
    """Which cell is trained again, to tell what noise does."""
    seed_sd: SeedSdsEntry | None = None
    """The stated spread of a score over re-trainings, where nothing measures it."""
    budgets: bool = False
    """Whether `plan` and the report say how equal the methods' budgets are."""
    text: str
    """The file as its author wrote it."""

    @property
    def choices(self) -> Iterator[MethodChoice]:
        """The methods of all blocks, in order."""
        return (choice for block in self.blocks for choice in block.methods)

    @property
    def pairs(self) -> list[tuple[str, MethodChoice]]:
        """Each model with each of its methods, once, in the order of the blocks."""
        found: dict[tuple[str, str], MethodChoice] = {}
        for block in self.blocks:
            for model, choice in product(block.models, block.methods):
                found.setdefault((model, choice.label), choice)
        return [(model, choice) for (model, _), choice in found.items()]

    def data_of(self, name: str | None) -> DataSpec:
        """The set of a name in `datasets`; the grid's one `data` for None."""
        return self.data if name is None else self.datasets[name]

    @property
    def data_names(self) -> list[str | None]:
        """The names of the sets that some block trains on, in the order of the blocks."""
        return list(dict.fromkeys(block.data for block in self.blocks if block.trains))


def expand(grid: GridSpec, contents: Mapping[str | None, str] | None = None) -> list[Cell]:
    """The cells that a grid names, in the order of its blocks, each once; `unfold` in trials.py
    adds those of tunings.

    `contents` has the SHA-256 of the files of one's own that they train on, by the set's name in
    `datasets`, None for the grid's one `data`; without it their ids are no more than names.

    A cell that appears in several blocks is scored on the tasks of all of them, and uses the
    largest gpus_per_cell. A method that trains nothing gives one cell per model, whatever
    the fractions and seeds, and needs one device.
    """
    cells: dict[str, Cell] = {}
    for block in grid.blocks:
        for cell in _block_cells(grid, block, contents or {}):
            add_cell(cells, cell)
    for cell in _noise_cells(grid, list(cells.values())):
        cells.setdefault(cell.id, cell)
    return list(cells.values())


def noisy_blocks(grid: GridSpec) -> Iterator[tuple[str, MethodChoice, Block]]:
    """Yields what the noise floor is measured on: of each model a method, and its first block."""
    if (noise := grid.noise) is None:
        return
    for model in grid.models if noise.model is None else [noise.model]:
        found = [
            (model, choice, block)
            for block in grid.blocks
            for choice in block.methods
            if model in block.models and choice.train is not None
        ]
        wanted = noise.method
        own = [one for one in found if one[1].label == wanted]
        named = [one for one in found if one[1].method == wanted]
        yield from (found if wanted is None else own or named)[:1]


def _noise_cells(grid: GridSpec, cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yields the cells that the noise floor needs beside those of the blocks."""
    for model, choice, block in noisy_blocks(grid):
        assert grid.noise is not None
        place = model, choice.label, block.data, max(block.fractions), block.seeds[0]
        for cell in cells:
            own = cell.model_name, cell.method_label, cell.data_name, cell.fraction, cell.seed
            if own == place and not cell.is_varied:
                seed = other_seed(block.seeds, varies=bool(block.vary))
                yield from noise_cells(cell, grid.noise, seed)


def add_cell(cells: dict[str, Cell], cell: Cell) -> None:
    """Puts a cell among others by its id; of one that is there it becomes another name."""
    known = cells.setdefault(cell.id, cell)
    if known is cell:
        return
    names = {one.method_label for one in known.listings}
    alias = Alias(method_label=cell.method_label, tuning=cell.tuning)
    update = {
        "tasks": joined(known.tasks + cell.tasks),
        "gpus_per_cell": max(known.gpus_per_cell, cell.gpus_per_cell),
        "aliases": (*known.aliases, *[alias] * (cell.method_label not in names)),
    }
    cells[cell.id] = known.model_copy(update=update)


def count_cells(grid: GridSpec) -> int:
    """The number of cells that `expand` would make; one of several blocks counts in each."""
    repeats = 0 if grid.noise is None else grid.noise.repeats * len(list(noisy_blocks(grid)))
    return repeats + sum(
        len(block.models) * (1 if choice.train is None else block.num_trainings)
        for block in grid.blocks
        for choice in block.methods
    )


def cell_of(
    grid: GridSpec,
    model: str,
    choice: MethodChoice,
    *,
    data: str | None = None,
    fraction: float | None = None,
    seed: int | None = None,
    tasks: tuple[TaskSpec, ...] = (),
    gpus_per_cell: int = 1,
    data_sha256: str | None = None,
    fixed: FixedSeeds | None = None,
) -> Cell:
    """One cell of a grid, trained on the set of this name in `datasets`.

    `data_sha256` is that of the file of one's own that it trains on.
    """
    name = None if choice.train is None else data
    spec = grid.data_of(name)
    own = choice.train is not None and is_own_file(spec, grid.world)
    return Cell(
        model_name=model,
        model=grid.models[model],
        method=choice.method,
        method_label=choice.label,
        options=options_on(choice, grid.models[model].shape, grid.choices),
        fraction=fraction,
        seed=seed,
        fixed_seeds=fixed or FixedSeeds(),
        data=spec,
        data_name=name,
        data_sha256=data_sha256 if own else None,
        train=choice.train,
        world=grid.world and f"{grid.world}-{DEMO_VERSION}",
        tasks=tasks,
        gpus_per_cell=1 if choice.train is None else gpus_per_cell,
    )


def _block_cells(
    grid: GridSpec, block: Block, contents: Mapping[str | None, str]
) -> Iterator[Cell]:
    for model, choice in product(block.models, block.methods):
        (fraction, seed), *others = block.draws(choice)
        first = cell_of(
            grid, model, choice, data=block.data, fraction=fraction, seed=seed, tasks=block.tasks,
            gpus_per_cell=block.gpus_per_cell, data_sha256=contents.get(block.data),
            fixed=block.fixed(seed),
        )  # fmt: skip
        yield first
        for fraction, seed in others:  # validated in the block: a copy is enough
            update = {"fraction": fraction, "seed": seed, "fixed_seeds": block.fixed(seed)}
            yield first.model_copy(update=update)
