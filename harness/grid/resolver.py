"""A grid file validated in one pydantic pass: names and defaults resolved, every fault at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from harness.data.spec import DataSpec
from harness.errors import GridError
from harness.grid.checks import NO_DATA, combination_faults
from harness.grid.entries import (
    NON_EMPTY,
    BlockMethod,
    Context,
    GridName,
    KnownData,
    KnownModel,
    Models,
    NamedMethod,
    Task,
    Tasks,
    Train,
    with_labels,
)
from harness.grid.schema import (
    Block,
    DataName,
    DeviceCount,
    Fraction,
    GridSpec,
    MethodChoice,
    Seed,
)
from harness.grid.tracking_uri import TrackingSpec
from harness.spec import Faults, Spec, describe_faults

NO_GRID = "must be a mapping with name, models, tasks and blocks"


class BlockFile(Spec):
    """The keys of one block."""

    models: Annotated[list[KnownModel], NON_EMPTY] | None = None
    """Names of `models`; all of them where absent."""
    methods: Annotated[list[BlockMethod], NON_EMPTY]
    """Method names, labels of the grid's `methods`, or mappings with `method` and options."""
    fractions: Annotated[list[Fraction], NON_EMPTY] = [1.0]
    seeds: Annotated[list[Seed], NON_EMPTY] = [0]
    tasks: Tasks | None = None
    """The grid's tasks where absent."""
    gpus_per_cell: DeviceCount | None = None
    """The grid's where absent."""
    data: KnownData | None = None
    """Name in the grid's `datasets`; the grid's `data` where absent."""


class GridFile(Spec):
    """The keys of a grid file; later ones refer to earlier ones."""

    # Order matters: validators of later fields read what earlier ones filled into the context.
    name: GridName
    title: Annotated[str, Field(max_length=500)] | None = None
    notes: list[Annotated[str, Field(max_length=5000)]] = []
    world: Literal["demo"] | None = None
    models: Models
    data: DataSpec = DataSpec()
    datasets: dict[DataName, DataSpec] = {}
    """Training sets by name, for the blocks that name one."""
    train: Train = {}
    """Training settings for all methods; they take precedence over a method's recipe."""
    methods: Annotated[dict[str, NamedMethod], BeforeValidator(with_labels)] = {}
    """Named settings of methods: label -> `method`, its options, and `train`."""
    tasks: Tasks
    gpus_per_cell: DeviceCount = 1
    """Devices that train a cell, where its block says nothing else."""
    blocks: Annotated[list[BlockFile], NON_EMPTY]
    tracking: TrackingSpec = TrackingSpec()
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

    def spec(self, text: str) -> GridSpec:
        """The grid, with what a block leaves out."""
        blocks = [
            dict(block)
            | {
                "models": block.models or list(self.models),
                "tasks": block.tasks or self.tasks,
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
    results: Path | None = None,
) -> Resolved:
    """The grid that the parsed YAML `raw` means, or what of it is without fault.

    Args:
        raw: what the file holds.
        place: the file's name, the beginning of every fault's line.
        text: the file's text, kept for the report.
        folder: the file's folder, which the paths of `adapter` are relative to.
        known: faults found before, by their place in the file; nothing else is said of these.
        results: the runs folder, where results alone are read: an adapter may be gone since.

    Raises:
        GridError: it is no mapping.
    """
    if not isinstance(raw, Mapping):
        raise GridError([f"{place}: {NO_GRID}"])
    folder, known = folder or Path(), known or {}
    faults = [f"{place}: {where}: {said}" for where, said in known.items()]
    try:
        grid = GridFile.model_validate(raw, context=_new_context(raw, folder, results)).spec(text)
    except ValidationError as error:
        found = describe_faults(error, place, GridFile)
        faults += [fault for fault in found if not _follows(fault, place, known)]
        grid = _sound_part(raw, _new_context(raw, folder))
    faults += [f"{place}: {fault}" for fault in combination_faults(grid)]
    return Resolved(grid, tuple(dict.fromkeys(faults)))  # ordered de-duplication


def _follows(fault: str, place: str, known: Iterable[str]) -> bool:
    """Whether a line is but the consequence of a fault that is told: the value is left out then."""
    for where in known:
        parent, _, key = where.rpartition(".")
        if fault.startswith(f"{place}: {where}: "):
            return True
        if parent and fault.startswith(f"{place}: {parent}: ") and key in fault:
            return True
    return False


def _new_context(raw: Mapping[str, Any], folder: Path, results: Path | None = None) -> Context:
    labels = {key: list(value) if isinstance(value := raw.get(key), Mapping) else []
              for key in ("models", "methods", "datasets")}  # fmt: skip
    methods: dict[str, MethodChoice | None] = dict.fromkeys(labels["methods"])
    datasets = list(map(str, labels["datasets"]))
    return Context(folder, labels["models"], methods, datasets, results=results)


def _sound_part(raw: Mapping[str, Any], context: Context) -> GridSpec:
    """The models, data, tasks and blocks of a faulty file that are without fault.

    So that what is wrong with them together, and with their files, is told with the rest.
    """
    models = {}
    for name, entry in _mapping(raw.get("models")).items():
        for found in _sound(Models, [{"one": entry}], context):
            models[str(name)] = found["one"]
    train: dict[str, Any] = {}
    for key, value in _mapping(raw.get("train")).items():
        train |= next(_sound(Train, [{key: value}], context), {})
    context.train = train
    for label, entry in _mapping(with_labels(raw.get("methods", {}))).items():
        if next(_sound(NamedMethod, [entry], context, prune=False), None) is None:
            context.methods.pop(str(label), None)
    tasks = tuple(_sound(Task, raw.get("tasks"), context))
    datasets = {
        str(name): _sound_data(entry, context)
        for name, entry in _mapping(raw.get("datasets")).items()
    }
    blocks = []
    for entry in raw.get("blocks", ()) if isinstance(raw.get("blocks"), list) else ():
        own = _mapping(entry)
        chosen = own.get("models") or list(models)
        blocks.append(
            Block.model_construct(
                models=tuple(name for name in _sound(str, chosen, context) if name in models),
                methods=tuple(_methods(own.get("methods"), context)),
                fractions=tuple(_sound(Fraction, own.get("fractions"), context)) or (1.0,),
                seeds=tuple(_sound(Seed, own.get("seeds"), context)) or (0,),
                tasks=tuple(_sound(Task, own.get("tasks"), context)) or tasks,
                gpus_per_cell=1,
                data=next((one for one in datasets if one == own.get("data")), None),
            )
        )
    return GridSpec.model_construct(
        name="", title="", notes=(), models=models, blocks=tuple(blocks),
        data=_sound_data(raw.get("data", {}), context), datasets=datasets,
        world=None if raw.get("world") is None else "demo",  # misspelt, it is meant all the same
        tracking=TrackingSpec(), text="",
    )  # fmt: skip


def _sound_data(raw: Any, context: Context) -> DataSpec:
    """The data, unless what is left of a faulty entry would be another set."""
    own, default = _mapping(raw), DataSpec().model_dump()
    found: DataSpec
    for found in _sound(DataSpec, [raw], context):
        meant = found.model_dump()
        keys = [key for key in ("source", "path") if key in own]
        if all(meant[key] == own[key] or meant[key] != default[key] for key in keys):
            return found
    return NO_DATA


def _mapping(raw: Any) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _methods(entries: Any, context: Context) -> Iterator[Any]:
    # Not without a key that has a fault: two methods would have the same settings then.
    yield from filter(None, _sound(BlockMethod, entries, context, prune=False))


def _sound(kind: Any, entries: Any, context: Context, *, prune: bool = True) -> Iterator[Any]:
    """Yields what those entries mean that have no fault, or none without some of their keys.

    Their faults are told by the pass over the whole file.
    """
    adapter = _adapter(kind)
    for entry in entries if isinstance(entries, list | tuple) else ():
        try:
            yield adapter.validate_python(entry, context=context)
        except ValidationError as error:
            pruned = entry
            if not prune:
                continue
            for fault in error.errors(include_url=False, include_context=False):
                pruned = _without(pruned, fault["loc"])
            with contextlib.suppress(ValidationError):
                yield adapter.validate_python(pruned, context=context)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _without(entry: Any, steps: tuple[str | int, ...]) -> Any:
    """The entry without the key that the steps lead to; as it is where they lead to none."""
    if not steps or not isinstance(entry, Mapping) or steps[0] not in entry:
        return entry
    kept = dict(entry)
    if len(steps) == 1:
        del kept[steps[0]]
    else:
        kept[steps[0]] = _without(entry[steps[0]], steps[1:])
    return kept
