"""A grid file validated in one pydantic pass: names and defaults resolved, every fault at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from harness.data.spec import DataSpec
from harness.errors import GridError
from harness.evaluation.benchmark import Benchmark
from harness.grid.checks import combination_faults
from harness.grid.entries import (
    NON_EMPTY,
    AllowCode,
    BlockMethod,
    Context,
    Data,
    GridName,
    Include,
    KnownData,
    KnownModel,
    LocalData,
    Models,
    NamedMethod,
    Tasks,
    Train,
    with_labels,
)
from harness.grid.folders import Runs
from harness.grid.gather import Gathered, gather_faults
from harness.grid.noise import NoiseSpec, Vary, noise_faults, vary_fault
from harness.grid.questions import ClaimSpec, TableSpec, question_faults
from harness.grid.remarks import Remarks, remark_faults
from harness.grid.schema import (
    DataName,
    DeviceCount,
    Fraction,
    GridSpec,
    MethodChoice,
    Seed,
    noisy_blocks,
)
from harness.grid.seed_sd import SeedSdsEntry, seed_sd_faults
from harness.grid.sound_part import as_mapping, sound_part
from harness.grid.table_columns import Name
from harness.grid.task_entries import unused_local_data
from harness.grid.tracking_uri import TrackingSpec
from harness.grid.tune_checks import tuning_faults
from harness.grid.tune_entries import Tune
from harness.spec import Faults, Spec, describe_faults
from harness.training.spec import IMAGE_RATE

SHIPPED = Path(__file__).resolve().parent.parent / "grids"
NO_GRID = "must be a mapping with name, models, tasks and blocks"


class BlockFile(Spec):
    """The keys of one block."""

    models: Annotated[list[KnownModel], NON_EMPTY] | None = None
    """Names of `models`; all of them where absent."""
    methods: Annotated[list[BlockMethod], NON_EMPTY]
    """Method names, labels of the grid's `methods`, or mappings with `method` and options."""
    fractions: Annotated[list[Fraction], NON_EMPTY] = [1.0]
    """Shares of the training set, from 0 to 1."""
    seeds: Annotated[list[Seed], NON_EMPTY] = [0]
    """Each is a training of its own."""
    tasks: Tasks | None = None
    """The grid's tasks where absent."""
    gpus_per_cell: DeviceCount | None = None
    """The grid's where absent."""
    data: KnownData | None = None
    """Name in the grid's `datasets`; the grid's `data` where absent."""
    vary: Vary | None = None
    """What takes the seeds: of `initialization`, `order`, `subset` one or two; all of them where
    absent."""
    tune: Tune | None = None
    """How its trained methods are tuned, each from a space of its own."""


class GridFile(Spec):
    """The keys of a grid file; later ones refer to earlier ones."""

    # Order matters: validators of later fields read what earlier ones filled into the context.
    name: GridName
    """Of its report's folder and its MLflow experiment."""
    title: Annotated[str, Field(max_length=500)] | None = None
    """Of the report; the name where absent."""
    notes: list[Annotated[str, Field(max_length=5000)]] = []
    """Caveats printed in the report."""
    world: Literal["demo"] | None = None
    """The embedded world that stands in for the data root."""
    models: Models
    """Base models by name."""
    data: Data = DataSpec()
    """What the blocks that name no set train on; Alpaca where absent."""
    datasets: dict[DataName, Data] = {}
    """Training sets by name, for the blocks that name one."""
    train: Train = {}
    """Training settings for all methods; they take precedence over a method's recipe."""
    methods: Annotated[dict[str, NamedMethod], BeforeValidator(with_labels)] = {}
    """Named settings of methods: label -> `method`, its options, and `train`."""
    include: Include = None
    """Folder of lm-eval task YAMLs of one's own; beside the grid file where it is relative."""
    local_data: LocalData = {}
    """Files of benchmarks, by lm-eval's task and split; beside the grid file, else under the data
    root, where they are relative."""
    allow_code_execution: AllowCode = False
    """Whether benchmarks may run code that a model has written."""
    tasks: Tasks
    """Benchmarks: names, or mappings with `name` and settings."""
    gpus_per_cell: DeviceCount = 1
    """Devices that train a cell, where its block says nothing else."""
    blocks: Annotated[list[BlockFile], NON_EMPTY]
    """Which methods are trained on which models, with which fractions and seeds."""
    tables: list[TableSpec] = []
    """Tables of the report; one with all benchmarks where absent."""
    compare: Name | None = None
    """The method that all others are compared with, by label or registry name; or `all`."""
    remarks: Remarks = {}
    """What a reader must know of a method, by its label; `plan` and the report print it."""
    left_out: Remarks = {}
    """Methods that one would look for in the grid, and why each is not in it."""
    gather: Gathered = {}
    """Rows that are one method under several settings, by a name; read as that method's tuning."""
    published_runs: Literal["peft-suite"] | None = None
    """Published runs whose labels the methods have; the report puts them beside the measured."""
    claims: list[ClaimSpec] = []
    """What the report tests first, and corrects for the number of."""
    noise: NoiseSpec | None = None
    """The cell that is trained again, with the same and with another seed: below what that moves
    differences are noise."""
    seed_sd: SeedSdsEntry | None = None
    """The standard deviation of one model's score over re-trainings, in points: a prior for what
    the grid's own seeds do not tell."""
    tracking: TrackingSpec = TrackingSpec()
    """Where runs are logged."""
    budgets: bool = False
    """Whether `plan` and the report say how equal the methods' budgets are."""

    @model_validator(mode="after")
    def _says_its_data(self) -> Self:
        faults = Faults()
        for index, block in enumerate(self.blocks):
            trains = any(choice and choice.train for choice in block.methods)
            stated = block.data is not None or "data" in self.model_fields_set
            if self.datasets and trains and not stated:
                names = ", ".join(self.datasets)
                faults.add(f"say which set it trains on, by `data` ({names})", "blocks", index)
        faults.check()
        return self

    @model_validator(mode="after")
    def _local_data_is_used(self) -> Self:
        lists = (self.tasks, *(block.tasks or () for block in self.blocks))
        tasks = [task for tasks in lists for task in tasks]
        tasks += [task for block in self.blocks if block.tune for task in block.tune.tasks]
        faults = Faults()
        for name, said in unused_local_data(self.local_data, tasks):
            faults.add(said, "local_data", name)
        faults.check()
        return self

    @model_validator(mode="after")
    def _image_rate_is_used(self) -> Self:
        faults, methods = Faults(), [one for block in self.blocks for one in block.methods]
        looking = [one is None or getattr(one.options, "image_encoder", None) for one in methods]
        if self.train.get(IMAGE_RATE) is not None and not any(looking):
            said = "no method of the blocks has an image_encoder; leave it out"
            faults.add(said, "train", IMAGE_RATE)
        faults.check()
        return self

    @model_validator(mode="after")
    def _varies_something(self) -> Self:
        faults = Faults()
        for index, block in enumerate(self.blocks):
            trains = any(choice and choice.train for choice in block.methods)
            said = vary_fault(block.vary or (), block.seeds, block.fractions, trains=trains)
            if said is not None:
                faults.add(said, "blocks", index, "vary")
        faults.check()
        return self

    def spec(self, text: str) -> GridSpec:
        """The grid, with what a block leaves out."""
        blocks = [
            dict(block)
            | {
                "models": block.models or list(self.models),
                "tasks": block.tasks or self.tasks,
                "vary": block.vary or (),
                "gpus_per_cell": block.gpus_per_cell or self.gpus_per_cell,
            }
            for block in self.blocks
        ]
        shared = {name: value for name, value in self if name in GridSpec.model_fields}
        made = {"title": self.title or self.name, "blocks": blocks, "text": text}
        return GridSpec.model_validate(shared | made)


@dataclass(frozen=True)
class Resolved:
    """What a grid file means."""

    grid: GridSpec
    """Where there are faults, the part of it that has none."""
    faults: tuple[str, ...]
    """One line each, with its place."""
    left_out: tuple[str, ...] = ()
    """Methods that are not here, one line each: see `absent_methods`."""


def resolve_grid(raw: Any, *, place: str, text: str = "", folder: Path | None = None) -> GridSpec:
    """The grid that the parsed YAML `raw` means: see `resolve`.

    Raises:
        GridError: every fault of the file.
    """
    found = resolve(raw, place=place, text=text, folder=folder)
    if found.faults:
        raise GridError(found.faults)
    return found.grid


def resolve(
    raw: Any,
    *,
    place: str,
    text: str = "",
    folder: Path | None = None,
    known: Mapping[str, str] | None = None,
    results: Runs | None = None,
    whole: Mapping[str, Any] | None = None,
) -> Resolved:
    """The grid that the parsed YAML `raw` means, or what of it is without fault.

    Args:
        raw: what the file holds.
        place: the file's name, the beginning of every fault's line.
        text: the file's text, kept for the report.
        folder: the file's folder, which the paths of `adapter` are relative to.
        known: faults found before, by their place in the file; nothing else is said of these.
        results: the runs folders, where results alone are read: an adapter may be gone since.
        whole: the file with the methods that were left out of `raw`, which its tables and claims
            may name.

    Raises:
        GridError: it is no mapping.
    """
    if not isinstance(raw, Mapping):
        raise GridError([f"{place}: {NO_GRID}"])
    known = known or {}
    faults = [f"{place}: {where}: {said}" for where, said in known.items()]
    try:
        grid = GridFile.model_validate(raw, context=_new_context(raw, folder, results)).spec(text)
    except ValidationError as error:
        found = describe_faults(error, place, GridFile)
        faults += [fault for fault in found if not _follows(fault, place, known)]
        grid = sound_part(raw, _new_context(raw, folder))
    faults += [f"{place}: {fault}" for fault in (*combination_faults(grid), *tuning_faults(grid))]
    faults += [f"{place}: {fault}" for fault in _questions(grid, whole or raw)]
    trained = {name: choice.train is not None for choice in grid.choices
               for name in (choice.label, choice.method)}  # fmt: skip
    wrong = list(noise_faults(grid.noise, grid.models, trained))
    if grid.noise is not None and not wrong and not any(noisy_blocks(grid)):
        wrong = ["noise: no block trains that method on that model; name another"]
    faults += [f"{place}: {fault}" for fault in wrong]
    return Resolved(grid, tuple(dict.fromkeys(faults)))  # ordered de-duplication


def _questions(grid: GridSpec, raw: Mapping[str, Any]) -> Iterator[str]:
    """Yields faults of tables, comparisons and claims.

    What the file names may have a fault of its own, and so be missing in the grid: `raw` is asked
    too, so that nothing is told twice.
    """
    methods = {name: None for block in grid.blocks for choice in block.methods
               for name in (choice.label, choice.method)}  # fmt: skip
    methods |= {f"{label}[tuned]": None for one in grid.blocks if one.tune
                for label in one.tune.space}  # fmt: skip
    tasks: dict[str, Benchmark | None] = {
        task.name: task.benchmark for block in grid.blocks for task in block.tasks
    }
    written: list[Any] = []
    named: list[Any] = list(_entries(raw.get("tasks")))
    for block in map(as_mapping, _entries(raw.get("blocks"))):
        written += _entries(block.get("methods"))
        named += _entries(block.get("tasks"))
        space = as_mapping(as_mapping(block.get("tune")).get("space"))  # the tuning may have faults
        methods |= dict.fromkeys(f"{label}[tuned]" for label in space)
    for entry in written:
        known = [entry] if isinstance(entry, str) else map(as_mapping(entry).get, _METHOD_NAMES)
        methods |= dict.fromkeys(name for name in known if isinstance(name, str))
    for entry in named:
        name = entry if isinstance(entry, str) else as_mapping(entry).get("name")
        if isinstance(name, str) and name not in tasks:
            tasks |= {name: None}
    yield from question_faults(grid.tables, grid.compare, grid.claims, methods=methods, tasks=tasks)
    yield from seed_sd_faults(grid.seed_sd, grid.tables, tasks)
    blocks = [{choice.label: choice for choice in block.methods} for block in grid.blocks]
    labels = dict.fromkeys(label for block in blocks for label in block)
    labels |= dict.fromkeys(label for label in map(_label, written) if isinstance(label, str))
    yield from remark_faults(grid.remarks, grid.left_out, labels=labels)
    yield from gather_faults(grid.gather, blocks, labels=labels)


_METHOD_NAMES = ("label", "method", "adapter")


def _label(entry: Any) -> Any:
    """What a method that a block lists is called, as far as the entry says so itself."""
    if isinstance(entry, str):
        return entry
    return next(filter(None, map(as_mapping(entry).get, _METHOD_NAMES)), None)


def _entries(raw: Any) -> Iterable[Any]:
    return raw if isinstance(raw, list) else ()


def _follows(fault: str, place: str, known: Iterable[str]) -> bool:
    """Whether a line is but the consequence of a fault that is told: the value is left out then."""
    for where in known:
        parent, _, key = where.rpartition(".")
        if fault.startswith(f"{place}: {where}: "):
            return True
        if parent and fault.startswith(f"{place}: {parent}: ") and key in fault:
            return True
    return False


def _new_context(
    raw: Mapping[str, Any], folder: Path | None, results: Runs | None = None
) -> Context:
    labels = {key: list(value) if isinstance(value := raw.get(key), Mapping) else []
              for key in ("models", "methods", "datasets")}  # fmt: skip
    methods: dict[str, MethodChoice | None] = dict.fromkeys(labels["methods"])
    datasets = list(map(str, labels["datasets"]))
    # The world's paths are its own, and so are those of grids that ship, which lie beside no data.
    of_user = raw.get("world") is None and folder is not None and folder.resolve() != SHIPPED
    beside = folder.resolve() if folder is not None and of_user else None
    return Context(folder or Path(), labels["models"], methods, datasets, beside, results=results)
