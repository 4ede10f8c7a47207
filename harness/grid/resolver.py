"""What the keys of a grid file mean: names looked up, settings merged, every fault collected."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from harness.data.instructions import DataSpec
from harness.errors import GridError, MethodError, ModelError, did_you_mean
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.tasks import TaskSpec, unknown_benchmark
from harness.grid.schema import (
    LONGEST_LABEL,
    Block,
    Cell,
    DeviceCount,
    GridSpec,
    MethodChoice,
    TrackingSpec,
    expand,
)
from harness.methods import METHODS, check_options
from harness.methods.imported import adapter_sha256
from harness.methods.method import MethodOptions
from harness.models.checkpoint import ModelSpec
from harness.spec import Spec, describe_faults
from harness.training.spec import TrainSpec

if TYPE_CHECKING:
    from harness.methods.method import Method, MethodOptions
    from harness.models.shape import ModelShape
    from harness.training.spec import TrainSpec

EXCLUSIVE = (
    ("learning_rate", "base_learning_rate"),
    ("warmup_epochs", "warmup_ratio", "warmup_steps"),
)
"""Settings of which one replaces the others when a later layer sets it."""


class GridFile(Spec):
    """The keys of a grid file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=80)]
    title: str | None = None
    notes: list[str] = []
    world: Literal["demo"] | None = None
    models: dict[str, ModelSpec]
    data: DataSpec = DataSpec()
    train: dict[str, Any] = {}
    """Training settings for all methods of the grid; they go before a method's recipe."""
    methods: dict[str, dict[str, Any]] = {}
    """Named settings of methods: label -> `method`, its options, and `train`."""
    tasks: list[Any]
    gpus_per_cell: DeviceCount = 1
    """Devices that train a cell, where its block says nothing else."""
    blocks: list[BlockFile]
    tracking: TrackingSpec = TrackingSpec()


class BlockFile(Spec):
    """The keys of one block."""

    models: list[str] | None = None
    """Names of `models`; all of them where absent."""
    methods: list[Any]
    """Method names, labels of the grid's `methods`, or mappings with `method` and options."""
    fractions: list[float] = [1.0]
    seeds: list[int] = [0]
    tasks: list[Any] | None = None
    """The grid's tasks where absent."""
    gpus_per_cell: DeviceCount | None = None
    """The grid's where absent."""


def resolve_grid(raw: Any, *, place: str, text: str = "", folder: Path | None = None) -> GridSpec:
    """Returns the grid that the parsed YAML `raw` means.

    Args:
        raw: what the YAML parser gave.
        place: the file's name, the beginning of every fault's line.
        text: the file's text, kept for the report.
        folder: the file's folder, which the paths of `adapter` are relative to.

    Raises:
        GridError: every fault of the file.
    """
    if not isinstance(raw, Mapping):
        raise GridError([f"{place}: must be a mapping with name, models, tasks and blocks"])
    resolver = _Resolver(dict(raw), place, folder or Path())
    grid = resolver.resolve(text)
    if resolver.faults or grid is None:
        raise GridError(dict.fromkeys(resolver.faults))
    faults = _cell_faults(grid, place)
    if faults:
        raise GridError(dict.fromkeys(faults))
    return grid


class _Resolver:
    """One pass over a grid file that collects faults instead of stopping at the first."""

    def __init__(self, raw: dict[str, Any], place: str, folder: Path) -> None:
        self.raw = raw
        self.place = place
        self.folder = folder
        self.faults: list[str] = []
        default = raw.get("gpus_per_cell", 1)
        self.gpus_per_cell = max(1, default) if isinstance(default, int) else 1
        self.train: dict[str, Any] = dict(raw["train"]) if _is_mapping(raw.get("train")) else {}

    def resolve(self, text: str) -> GridSpec | None:
        file = self._validated(GridFile, self.raw, self.place)
        named = {label: self._choice({"label": label, **entry}, f"{self.place}: methods.{label}")
                 for label, entry in _mapping(self.raw.get("methods")).items()
                 if _is_mapping(entry)}  # fmt: skip
        tasks = self._tasks(self.raw.get("tasks"), f"{self.place}: tasks")
        blocks = [
            self._block(block, f"{self.place}: blocks[{index}]", named, tasks)
            for index, block in enumerate(_list(self.raw.get("blocks")))
            if _is_mapping(block)
        ]
        if file is None or self.faults:
            return None
        if file.name == "theory":
            taken = "'theory' is the name of `zbench theory`'s own report; take another"
            self.faults.append(f"{self.place}: name: {taken}")
        for key, value in (("models", file.models), ("blocks", file.blocks)):
            if not value:
                self.faults.append(f"{self.place}: {key}: is empty; add at least one")
        return GridSpec(
            name=file.name,
            title=file.title or file.name,
            notes=tuple(file.notes),
            world=file.world,
            models=file.models,
            data=file.data,
            blocks=tuple(block for block in blocks if block is not None),
            tracking=file.tracking,
            text=text,
        )

    def _validated(self, spec: type[BaseModel], raw: Any, place: str) -> Any:
        try:
            return spec.model_validate(raw)
        except ValidationError as error:
            self.faults += describe_faults(error, place, spec)
            return None

    def _block(
        self,
        raw: Mapping[str, Any],
        place: str,
        named: dict[str, MethodChoice | None],
        grid_tasks: tuple[TaskSpec, ...],
    ) -> Block | None:
        known_models = list(_mapping(self.raw.get("models")))
        models = raw.get("models") or known_models
        for index, model in enumerate(_list(models)):
            if model not in known_models:
                hint = did_you_mean(str(model), known_models)
                self.faults.append(f"{place}.models[{index}]: no such model '{model}'{hint}")
        methods = [
            self._entry(entry, f"{place}.methods[{index}]", named)
            for index, entry in enumerate(_list(raw.get("methods")))
        ]
        if raw.get("methods") == []:
            self.faults.append(f"{place}.methods: is empty; add at least one")
        own_tasks = raw.get("tasks")
        tasks = grid_tasks if own_tasks is None else self._tasks(own_tasks, f"{place}.tasks")
        resolved = {
            "models": _list(models),
            "methods": [choice for choice in methods if choice is not None],
            "fractions": raw.get("fractions", [1.0]),
            "seeds": raw.get("seeds", [0]),
            "tasks": tasks,
            "gpus_per_cell": raw.get("gpus_per_cell", self.gpus_per_cell),
        }
        for key in ("fractions", "seeds"):
            if resolved[key] == []:
                self.faults.append(f"{place}.{key}: is empty; add at least one")
        return self._validated(Block, resolved, place)

    def _entry(
        self, entry: Any, place: str, named: dict[str, MethodChoice | None]
    ) -> MethodChoice | None:
        if _is_mapping(entry):
            return self._choice(dict(entry), place)
        if entry in named:
            return named[entry]
        if entry in METHODS:
            return self._choice({"method": entry}, place)
        known = [*named, *(name for name in METHODS if name not in named)]
        self.faults.append(f"{place}: no such method '{entry}'{did_you_mean(str(entry), known)}")
        return None

    def _choice(self, raw: dict[str, Any], place: str) -> MethodChoice | None:
        label = raw.pop("label", None)
        name = raw.pop("method", "adapter" if "adapter" in raw else label)
        train = raw.pop("train", {})
        if name not in METHODS:
            said = "`method` is missing" if name is None else f"no such method '{name}'"
            self.faults.append(f"{place}: {said}{did_you_mean(str(name), METHODS)}")
            return None
        try:
            method = METHODS[name]
        except MethodError as fault:  # of another package, which is broken
            self.faults.append(f"{place}: {fault}")
            return None
        if name == "adapter":
            raw = self._found_adapter(raw, place)
            label = label or re.sub(r"[^A-Za-z0-9._-]+", "-", Path(str(raw.get("adapter"))).name)
        if not _is_mapping(train):
            self.faults.append(f"{place}.train: must be a mapping of keys to values")
            return None
        if train and not method.trains:
            self.faults.append(f"{place}.train: '{name}' trains nothing; leave it out")
        options = self._validated(method.options, raw, place)
        spec = self._train(method.recipe, dict(train), place) if method.trains else None
        if options is None or (method.trains and spec is None):
            return None
        label = label or _default_label(name, options, dict(train))
        return self._validated(
            MethodChoice,
            {"label": label, "method": name, "options": options, "train": spec},
            place,
        )

    def _found_adapter(self, raw: dict[str, Any], place: str) -> dict[str, Any]:
        """Completes an adapter's folder to an absolute path, and adds what identifies it."""
        if not isinstance(raw.get("adapter"), str):
            return raw
        folder = (self.folder / Path(raw["adapter"]).expanduser()).resolve()
        try:
            return raw | {"adapter": str(folder), "sha256": adapter_sha256(folder)}
        except ModelError as fault:
            self.faults.append(f"{place}.adapter: {fault}")
            return raw | {"sha256": ""}

    def _train(
        self, recipe: Mapping[str, object], own: dict[str, Any], place: str
    ) -> TrainSpec | None:
        merged = merge_settings(merge_settings(recipe, self.train), own)
        try:
            return TrainSpec.model_validate(merged)
        except ValidationError as error:
            for fault, line in zip(
                error.errors(), describe_faults(error, "\0", TrainSpec), strict=True
            ):
                key = fault["loc"][0] if fault["loc"] else None
                at_grid = key in self.train and key not in own
                where = f"{self.place}: train" if at_grid else f"{place}.train"
                within = f"{where}." if fault["loc"] else f"{where}: "
                self.faults.append(line.replace("\0: ", within, 1))
            return None

    def _tasks(self, raw: Any, place: str) -> tuple[TaskSpec, ...]:
        if not isinstance(raw, list):
            return ()
        tasks = []
        for index, entry in enumerate(raw):
            where = f"{place}[{index}]"
            record = {"name": entry} if isinstance(entry, str) else entry
            if _is_mapping(record) and record.get("name") not in BENCHMARKS:
                self.faults.append(f"{where}: {unknown_benchmark(record.get('name'))}")
                continue
            task = self._validated(TaskSpec, record, where)
            if task is not None:
                tasks.append(task)
        if not raw:
            self.faults.append(f"{place}: is empty; add at least one")
        names = [task.name for task in tasks]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            self.faults.append(f"{place}: '{name}' stands {names.count(name)} times; keep one")
        return tuple(tasks)


def merge_settings(lower: Mapping[str, object], upper: Mapping[str, object]) -> dict[str, object]:
    """Returns `lower` overridden by `upper`; one of exclusive settings replaces the others."""
    replaced = {
        name
        for group in EXCLUSIVE
        for name in group
        if any(upper.get(other) is not None for other in group)
    }
    return {name: value for name, value in lower.items() if name not in replaced} | dict(upper)


def _default_label(name: str, options: MethodOptions, train: Mapping[str, Any]) -> str:
    """Returns the method's name, with what the entry changes in brackets."""
    changed = {
        key: value
        for key, value in options.model_dump(exclude_unset=True).items()
        if value != type(options).model_fields[key].default
    } | dict(train)
    parts = ",".join(f"{key}={_short(value)}" for key, value in changed.items())
    label = f"{name}[{parts}]" if parts else name
    if len(label) <= LONGEST_LABEL:
        return label
    return label[: LONGEST_LABEL - 7] + "+" + hashlib.sha256(label.encode()).hexdigest()[:6]


def _short(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _cell_faults(grid: GridSpec, place: str) -> list[str]:
    """Faults that show only when models and methods meet."""
    faults = [f"{place}: {fault}" for fault in _twins(grid)]
    labels: dict[str, Cell] = {}
    for cell in expand(grid):
        method = METHODS[cell.method]
        try:
            check_options(method, cell.options, cell.model.shape)
            check_quantization(method, cell.options, cell.model.shape, cell.train)
        except MethodError as fault:
            faults.append(f"{place}: {cell.model_name} with {cell.method_label}: {fault}")
        other = labels.setdefault(cell.label, cell)
        if other.id != cell.id:
            faults.append(
                f"{place}: two different cells are called '{cell.label}'; give one of the "
                "methods a `label`"
            )
        rows = grid.data.num_rows
        if cell.fraction is not None and rows is not None and round(cell.fraction * rows) < 1:
            faults.append(
                f"{place}: fraction {cell.fraction:g} of {rows} rows selects no example; "
                f"it must be more than {0.5 / rows:.2g}"
            )
    return faults


def _twins(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for every pair of labels that stand for the same cells."""
    labels: dict[str, str] = {}
    for block in grid.blocks:
        for choice in block.methods:
            meaning = choice.model_dump_json(exclude={"label"}, serialize_as_any=True)
            other = labels.setdefault(meaning, choice.label)
            if other != choice.label:
                yield f"methods '{other}' and '{choice.label}' have the same settings; keep one"


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def check_quantization(
    method: Method, options: MethodOptions, shape: ModelShape, train: TrainSpec | None
) -> None:
    """Checks that there is something frozen to quantise, without loading anything.

    Raises:
        MethodError: every parameter is trained.
    """
    if train is None or train.base_quantization is None:
        return
    if method.count_parameters(shape, options) == shape.num_parameters:
        raise MethodError(
            f"train.base_quantization: nothing is frozen in '{method.name}'; leave it out"
        )
