"""A validated grid (GridSpec), and the cells that it spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from harness.data.spec import ALPACA, DataSpec
from harness.demo.world import DATA
from harness.demo.world import VERSION as DEMO_VERSION
from harness.evaluation.tasks import TaskSpec
from harness.grid.choices import LONGEST_LABEL as LONGEST_LABEL
from harness.grid.choices import MethodChoice as MethodChoice
from harness.grid.choices import options_on
from harness.grid.names import label_of, slug_of
from harness.grid.questions import ClaimSpec, TableSpec
from harness.grid.tracking_uri import TrackingSpec
from harness.methods import METHODS
from harness.methods.method import MethodOptions
from harness.models.checkpoint import ModelSpec
from harness.records.files import sha256_of_json
from harness.spec import Spec
from harness.training.spec import TrainSpec

RECIPE = 1
"""Incremented by every code change that alters trained weights; all cell ids change then."""

Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
DeviceCount = Annotated[int, Field(ge=1, le=8192)]

DataName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=40)]
RowCounts = Mapping[str | None, int | None]
"""Rows of each training set by its name in `datasets`, None for the grid's one `data`; a size is
None where it is not known."""

NOT_IN_ID = {"token_budget", "checkpoint_minutes"}
"""Training settings that never change the trained weights."""
RETIRED = {"micro_batch_size"}
"""Training settings ignored when reading stored cells."""
OMITTED_FROM_ID_WHEN_UNSET = {"base_quantization"}
"""Training settings that are part of the id only where they are set."""


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

    def draws(self, choice: MethodChoice) -> Iterable[tuple[float | None, int | None]]:
        """Fraction and seed of each cell of a method and a model."""
        return [(None, None)] if choice.train is None else product(self.fractions, self.seeds)

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
    claims: tuple[ClaimSpec, ...] = ()
    """What is tested first."""
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


class Cell(Spec):
    """One model trained one way and scored."""

    model_name: str
    """Name of the model in the grid."""
    model: ModelSpec
    """Where the base model is, and its shape."""
    method: str
    """The method's registry key."""
    method_label: str
    """The name in the grid; the registry key where the grid gives none."""
    options: SerializeAsAny[MethodOptions]
    """The method's options."""
    fraction: Fraction | None
    """Share of the training rows; None for a method that trains nothing (`base`, `adapter`)."""
    seed: Seed | None
    """Seed of all that is drawn; None for a method that trains nothing (`base`, `adapter`)."""
    data: DataSpec
    """The training rows."""
    data_name: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Their name in the grid's `datasets`; None for its one `data`, and where nothing is
    trained."""
    data_sha256: str | None = None
    """SHA-256 of the file of one's own that the rows come from; None for a set of the hub or of the
    embedded world."""
    train: TrainSpec | None
    """The training settings; None for a method that trains nothing."""
    world: str | None
    """Name and version of the embedded world that it lives in, such as `demo-1`."""
    tasks: tuple[TaskSpec, ...]
    """What it is scored on; not part of the id."""
    gpus_per_cell: DeviceCount = 1
    """GPUs that train it together; not part of the id, since any number gives the same weights up
    to rounding."""

    @model_validator(mode="before")
    @classmethod
    def _drop_retired_keys(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and isinstance(raw.get("train"), Mapping):
            kept = {key: value for key, value in raw["train"].items() if key not in RETIRED}
            return {**raw, "train": kept}
        return raw

    @model_validator(mode="before")
    @classmethod
    def _parse_options(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and isinstance(raw.get("options"), Mapping):
            options = METHODS[raw["method"]].options.model_validate(raw["options"])
            return {**raw, "options": options}
        return raw

    def record(self) -> dict[str, Any]:
        """All that decides the trained weights, as plain values."""
        model: dict[str, Any] = {"source": self.model.source, "revision": self.model.revision}
        if self.model.source is None:
            model = {"name": self.model_name, "shape": self.model.shape.identity()}
        data = train = None
        if self.train is not None:
            train = self.train.model_dump(exclude=NOT_IN_ID)
            unset = {key for key in OMITTED_FROM_ID_WHEN_UNSET if not train[key]}
            train = {key: value for key, value in train.items() if key not in unset}
            data = self._data_record() | self.data.stated
        return {
            "recipe": RECIPE,
            "world": self.world,
            "model": model,
            "method": self.method,
            "options": self.options.identity(),
            "fraction": self.fraction,
            "seed": self.seed,
            "data": data,
            "train": train,
        }

    def _data_record(self) -> dict[str, Any]:
        """What the training rows are: their content where they are one's own, never a path.

        A set of the hub is known by its name; status.py compares what is read of it.
        """
        if self.data.source is not None:
            return {"source": self.data.source, "revision": self.data.revision}
        if not is_own_file(self.data, self.world):
            # In the world, whose version says what it holds.
            return {"path": self.data.path}
        return {"sha256": self.data_sha256}

    @cached_property
    def id(self) -> str:
        """Configuration hash: the first 12 hex digits of the SHA-256 of `record()`.

        Not in it: the device that `precision: auto` resolves on, and the content of local weights,
        which status.py compares.
        """
        return sha256_of_json(self.record())[:12]

    @cached_property
    def former_ids(self) -> tuple[str, ...]:
        """Ids that a cell trained on a file of one's own had in earlier versions.

        They named the file's path, or Alpaca where `source` was not given; cells of two files had
        the same one, so that whoever finds a result by it compares the content. None had been
        trained on some of the rows, or on rows in another text.
        """
        own = is_own_file(self.data, self.world)
        if self.train is None or not own or self.data.stated:
            return ()
        was = {"path": self.data.path}, {"source": ALPACA, "revision": self.data.revision}
        return tuple(sha256_of_json(self.record() | {"data": data})[:12] for data in was)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy. Drops the cached ids, so that they are recomputed."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("id", "former_ids"):
            copied.__dict__.pop(name, None)
        return copied

    @property
    def method_title(self) -> str:
        """The method's name on pages; PEFT's type belongs to it."""
        return f"{METHODS[self.method].title} {getattr(self.options, 'peft_type', '')}".strip()

    @property
    def label(self) -> str:
        """What a reader calls the cell, such as `llama-7b/zero-init-linear/10%/seed0`."""
        name = self.data_name
        return label_of(self.model_name, self.method_label, self.fraction, self.seed, name)

    @property
    def slug(self) -> str:
        """The label as a part of a folder's name."""
        return slug_of(self.label)


def is_own_file(data: DataSpec, world: str | None) -> bool:
    """Whether training data are a file of one's own: no set of the hub, nor the world's."""
    if data.source is not None or data.path is None:
        return False
    return not (world and not Path(data.path).is_absolute() and (DATA / data.path).is_file())


def expand(grid: GridSpec, contents: Mapping[str | None, str] | None = None) -> list[Cell]:
    """The grid's cells in the order of its blocks, each once.

    `contents` has the SHA-256 of the files of one's own that they train on, by the set's name in
    `datasets`, None for the grid's one `data`; without it their ids are no more than names.

    A cell that appears in several blocks is scored on the tasks of all of them, and uses the
    largest gpus_per_cell. A method that trains nothing gives one cell per model, whatever
    the fractions and seeds, and needs one device.
    """
    cells: dict[str, Cell] = {}
    for block in grid.blocks:
        for cell in _block_cells(grid, block, contents or {}):
            known = cells.get(cell.id)
            if known is None:
                cells[cell.id] = cell
                continue
            tasks = dict.fromkeys(known.tasks + cell.tasks)  # ordered de-duplication
            devices = max(known.gpus_per_cell, cell.gpus_per_cell)
            update = {"tasks": tuple(tasks), "gpus_per_cell": devices}
            cells[cell.id] = known.model_copy(update=update)
    return list(cells.values())


def count_cells(grid: GridSpec) -> int:
    """The number of cells that `expand` would make; one of several blocks counts in each."""
    return sum(
        len(block.models) * (1 if choice.train is None else len(block.fractions) * len(block.seeds))
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
        for fraction, seed in block.draws(choice):
            yield cell_of(
                grid, model, choice, data=block.data, fraction=fraction, seed=seed,
                tasks=block.tasks, gpus_per_cell=block.gpus_per_cell,
                data_sha256=contents.get(block.data),
            )  # fmt: skip


def is_base(cell: Cell) -> bool:
    """Whether a cell is an untrained base model."""
    return cell.method == "base"
