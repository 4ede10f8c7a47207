"""Validates the parsed YAML in one pydantic pass, and resolves names and defaults.

A validator that finds a fault, or validates a part of its own, raises it with its place, and
pydantic continues with the rest of the file: all errors are reported together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
)

from harness.data.spec import DataSpec
from harness.errors import GridError, MethodError, ModelError, did_you_mean
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.tasks import TaskSpec, unknown_benchmark
from harness.grid.checks import combination_faults
from harness.grid.schema import (
    LONGEST_LABEL,
    DeviceCount,
    Fraction,
    GridSpec,
    MethodChoice,
    Seed,
    TrackingSpec,
)
from harness.methods import METHODS
from harness.methods.imported import adapter_sha256
from harness.methods.method import MethodOptions
from harness.models.checkpoint import ModelSpec
from harness.spec import Fault, Faults, Spec, describe_faults
from harness.training.spec import TrainSpec

EXCLUSIVE = (
    ("learning_rate", "base_learning_rate"),
    ("warmup_epochs", "warmup_ratio", "warmup_steps"),
)
"""Mutually exclusive groups: setting one drops the lower layer's others."""


@dataclass
class _Context:
    """What the entries of a file refer to; filled as the file is validated from top to bottom."""

    folder: Path
    models: list[str]
    methods: dict[str, MethodChoice | None]
    """Choices by label; None where one is not validated yet, or has faults. No None survives into
    a GridSpec: `methods` is validated before `blocks`, and its faults refuse the file."""
    train: dict[str, Any] = field(default_factory=dict)
    """The grid's training settings; empty where they have faults."""


def _context(info: ValidationInfo) -> _Context:
    assert isinstance(info.context, _Context)
    return info.context


def _free_name(name: str) -> str:
    if name == "theory":
        raise Fault("'theory' is the name of `zbench theory`'s own report; take another")
    return name


def _known_model(name: str, info: ValidationInfo) -> str:
    models = _context(info).models
    if name not in models:
        raise Fault(f"no such model '{name}'{did_you_mean(name, models)}")
    return name


def _grid_train(settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    faults = Faults()
    # A dummy rate: TrainSpec needs one; the method's recipe supplies it later.
    faults.validate(TrainSpec, merge_settings({"learning_rate": 1.0}, settings))
    faults.check()
    _context(info).train = settings
    return settings


def _task(entry: Any) -> Any:
    record = {"name": entry} if isinstance(entry, str) else entry
    if isinstance(record, Mapping):
        name = record.get("name")
        if not isinstance(name, str) or name not in BENCHMARKS:
            raise Fault(unknown_benchmark(name))
    return record


def _unique_tasks(tasks: Sequence[TaskSpec]) -> Sequence[TaskSpec]:
    names, faults = [task.name for task in tasks], Faults()
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        faults.add(f"'{name}' stands {names.count(name)} times; keep one")
    faults.check()
    return tasks


def _parse_block_method(entry: Any, info: ValidationInfo) -> MethodChoice | None:
    """What an entry of a block's methods means; None for a label that has faults."""
    context = _context(info)
    if isinstance(entry, Mapping):
        return _read_method(dict(entry), context)
    if isinstance(entry, str) and entry in context.methods:
        return context.methods[entry]
    if isinstance(entry, str) and entry in METHODS:
        return _read_method({"method": entry}, context)
    names = [*context.methods, *(name for name in METHODS if name not in context.methods)]
    raise Fault(f"no such method '{entry}'{did_you_mean(str(entry), names)}")


def _parse_named_method(entry: Any, info: ValidationInfo) -> MethodChoice:
    """What an entry of the grid's `methods` means, for the blocks that name its label."""
    if not isinstance(entry, Mapping):
        raise Fault("must be a mapping of keys to values")
    choice = _read_method(dict(entry), _context(info))
    _context(info).methods[str(entry["label"])] = choice
    return choice


def _with_labels(methods: Any) -> Any:
    """Puts each label into its entry, as the default of its `label` and `method`."""
    if not isinstance(methods, Mapping):
        return methods
    return {
        label: {"label": label, **entry} if isinstance(entry, Mapping) else entry
        for label, entry in methods.items()
    }


def _read_method(raw: dict[str, Any], context: _Context) -> MethodChoice:
    """A method with its options and its training settings, from the keys of its entry.

    Raises:
        ValidationError: every fault of the entry.
    """
    label = raw.pop("label", None)
    # Without `method`, the name is `adapter` if that key is there, else the label.
    name = raw.pop("method", "adapter" if "adapter" in raw else label)
    own = raw.pop("train", {})
    if not isinstance(name, str) or name not in METHODS:
        said = "`method` is missing" if name is None else f"no such method '{name}'"
        raise Fault(f"{said}{did_you_mean(str(name), METHODS)}")
    try:
        method, train, faults = METHODS[name], None, Faults()
    except MethodError as fault:  # of another package, which is broken
        raise Fault(str(fault)) from fault
    if not isinstance(own, Mapping):
        faults.add("must be a mapping of keys to values", "train")
        own = {}
    if name == "adapter" and isinstance(raw.get("adapter"), str):
        folder = (context.folder / Path(raw["adapter"]).expanduser()).resolve()
        label = label or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name)
        raw |= {"adapter": str(folder), "sha256": ""}
        try:
            raw["sha256"] = adapter_sha256(folder)
        except ModelError as fault:
            faults.add(str(fault), "adapter")
    options = faults.validate(method.options, raw)
    if method.trains:
        settings = merge_settings(merge_settings(method.recipe, context.train), own)
        train = faults.validate(TrainSpec, settings, "train")
    elif own:
        faults.add(f"'{name}' trains nothing; leave it out", "train")
    faults.check()
    assert options is not None
    label = label or _default_label(name, options, own)
    return MethodChoice.model_validate(
        {"label": label, "method": name, "options": options, "train": train}
    )


def merge_settings(lower: Mapping[str, object], upper: Mapping[str, object]) -> dict[str, object]:
    """`lower` overridden by `upper`; setting one of an EXCLUSIVE group drops `lower`'s others."""
    replaced = {
        name
        for group in EXCLUSIVE
        for name in group
        if any(upper.get(other) is not None for other in group)
    }
    return {name: value for name, value in lower.items() if name not in replaced} | dict(upper)


def _default_label(name: str, options: MethodOptions, train: Mapping[str, Any]) -> str:
    """The method's name, with what the entry changes in brackets."""
    changed = {
        key: value
        for key, value in options.model_dump(exclude_unset=True).items()
        if value != type(options).model_fields[key].default
    } | dict(train)
    parts = ",".join(f"{key}={_format_value(value)}" for key, value in changed.items())
    label = f"{name}[{parts}]" if parts else name
    if len(label) <= LONGEST_LABEL:
        return label
    return label[: LONGEST_LABEL - 7] + "+" + hashlib.sha256(label.encode()).hexdigest()[:6]


def _format_value(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


NON_EMPTY = Field(min_length=1)
Tasks = Annotated[
    list[Annotated[TaskSpec, BeforeValidator(_task)]], NON_EMPTY, AfterValidator(_unique_tasks)
]
BlockMethod = Annotated[MethodChoice, PlainValidator(_parse_block_method)]
NamedMethod = Annotated[MethodChoice, PlainValidator(_parse_named_method)]


class BlockFile(Spec):
    """The keys of one block."""

    models: Annotated[list[Annotated[str, AfterValidator(_known_model)]], NON_EMPTY] | None = None
    """Names of `models`; all of them where absent."""
    methods: Annotated[list[BlockMethod], NON_EMPTY]
    """Method names, labels of the grid's `methods`, or mappings with `method` and options."""
    fractions: Annotated[list[Fraction], NON_EMPTY] = [1.0]
    seeds: Annotated[list[Seed], NON_EMPTY] = [0]
    tasks: Tasks | None = None
    """The grid's tasks where absent."""
    gpus_per_cell: DeviceCount | None = None
    """The grid's where absent."""


class GridFile(Spec):
    """The keys of a grid file; later ones refer to earlier ones."""

    # Order matters: validators of later fields read what earlier ones filled into the context.
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=80),
        AfterValidator(_free_name),
    ]
    title: str | None = None
    notes: list[str] = []
    world: Literal["demo"] | None = None
    models: Annotated[dict[str, ModelSpec], NON_EMPTY]
    data: DataSpec = DataSpec()
    train: Annotated[dict[str, Any], AfterValidator(_grid_train)] = {}
    """Training settings for all methods; they take precedence over a method's recipe."""
    methods: Annotated[dict[str, NamedMethod], BeforeValidator(_with_labels)] = {}
    """Named settings of methods: label -> `method`, its options, and `train`."""
    tasks: Tasks
    gpus_per_cell: DeviceCount = 1
    """Devices that train a cell, where its block says nothing else."""
    blocks: Annotated[list[BlockFile], NON_EMPTY]
    tracking: TrackingSpec = TrackingSpec()

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


def resolve_grid(raw: Any, *, place: str, text: str = "", folder: Path | None = None) -> GridSpec:
    """The grid that the parsed YAML `raw` means.

    Args:
        place: the file's name, the beginning of every fault's line.
        text: the file's text, kept for the report.
        folder: the file's folder, which the paths of `adapter` are relative to.

    Raises:
        GridError: every fault of the file.
    """
    if not isinstance(raw, Mapping):
        raise GridError([f"{place}: must be a mapping with name, models, tasks and blocks"])
    labels = {key: list(value) if isinstance(value := raw.get(key), Mapping) else []
              for key in ("models", "methods")}  # fmt: skip
    context = _Context(folder or Path(), labels["models"], dict.fromkeys(labels["methods"]))
    try:
        grid = GridFile.model_validate(raw, context=context).spec(text)
    except ValidationError as error:
        raise GridError(dict.fromkeys(describe_faults(error, place, GridFile))) from None
    if faults := [f"{place}: {fault}" for fault in combination_faults(grid)]:
        raise GridError(dict.fromkeys(faults))  # ordered de-duplication
    return grid
