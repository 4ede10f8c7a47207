"""The entries of a grid file: names, models, data, tasks and methods, each validated by itself.

A validator that finds a fault, or validates a part of its own, raises it with its place, and
pydantic continues with the rest of the file: all errors are reported together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from harness.data.spec import DataSpec
from harness.errors import ZbenchError, did_you_mean, one_line, shortened
from harness.evaluation.tasks import TaskSpec
from harness.grid.folders import Runs
from harness.grid.gone import adapter_folder, stored_adapter
from harness.grid.names import grid_name_fault, method_key, model_name_faults
from harness.grid.own_encoders import beside_grid, check_entry
from harness.grid.schema import LONGEST_LABEL, MethodChoice
from harness.grid.task_entries import include_folder, local_data, read_tasks
from harness.methods import METHODS
from harness.methods.imported import adapter_sha256
from harness.methods.matching import MatchSpec
from harness.methods.method import MethodOptions
from harness.methods.pass_through import PeftOptions
from harness.methods.peft_settings import MATCHED
from harness.methods.zero_init.options import image_encoder_of
from harness.models.checkpoint import ModelSpec
from harness.spec import Fault, Faults
from harness.training.spec import IMAGE_RATE, TrainSpec

EXCLUSIVE = (
    ("epochs", "max_steps"),
    ("learning_rate", "base_learning_rate"),
    ("warmup_epochs", "warmup_ratio", "warmup_steps"),
    ("decay_ratio", "decay_steps"),
)
"""Mutually exclusive groups: setting one drops the lower layer's others."""


@dataclass
class Context:
    """What the entries of a file refer to; filled as the file is validated from top to bottom."""

    folder: Path
    models: list[str]
    methods: dict[str, MethodChoice | None]
    """Choices by label; None where one is not validated yet, or has faults. No None survives into
    a GridSpec: `methods` is validated before `blocks`, and its faults refuse the file."""
    datasets: list[str] = field(default_factory=list)
    data_folder: Path | None = None
    """What a path of training data may be relative to, before the data root."""
    train: dict[str, Any] = field(default_factory=dict)
    """The grid's training settings; empty where they have faults."""
    results: Runs | None = None
    """The runs folders, for a command that reads results alone: an adapter may be gone since."""
    include: str | None = None
    """Folder of task YAMLs of the grid's own."""
    local_data: dict[str, dict[str, str]] = field(default_factory=dict)
    """Files by task and split."""
    allow_code_execution: bool = False


def _context(info: ValidationInfo) -> Context:
    assert isinstance(info.context, Context)
    return info.context


def _free_name(name: str) -> str:
    if (fault := grid_name_fault(name)) is not None:
        raise Fault(fault)
    return name


def _models(raw: Any, info: ValidationInfo) -> dict[str, ModelSpec]:
    """The models by name; all faults of their names, paths and shapes are told together."""
    if not isinstance(raw, Mapping):
        raise Fault("must be a mapping of keys to values")
    if not raw:
        raise Fault("is empty; add at least one")
    found, faults, folder = {}, Faults(), _context(info).data_folder
    for name, said in model_name_faults(map(str, raw)):
        faults.add(said, name)
    for name, entry in raw.items():
        spec = faults.validate(ModelSpec, entry, str(name))
        if spec is not None:
            found[str(name)] = spec if folder is None else spec.beside(folder)
    faults.check()
    return found


def _known_model(name: str, info: ValidationInfo) -> str:
    models = _context(info).models
    if name not in models:
        raise Fault(f"no such model '{name}'{did_you_mean(name, models)}")
    return name


def _data(raw: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> DataSpec:
    spec: DataSpec = handler(raw)
    folder = _context(info).data_folder
    own = raw if isinstance(raw, Mapping) else {}
    states = own.get("path") is not None or (spec.validation and spec.validation.path is not None)
    return spec.beside(folder) if states and folder is not None else spec


def _known_data(name: str, info: ValidationInfo) -> str:
    datasets = _context(info).datasets
    if name not in datasets:
        known = did_you_mean(name, datasets) if datasets else "; list it under `datasets`"
        raise Fault(f"no such data set '{shortened(name)}'{known}")
    return name


def _grid_train(settings: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    faults = Faults()
    # A dummy rate: TrainSpec needs one; the method's recipe supplies it later.
    faults.validate(TrainSpec, merge_settings({"learning_rate": 1.0}, settings))
    faults.check()
    _context(info).train = settings
    return settings


def _include(raw: Any, info: ValidationInfo) -> str | None:
    context = _context(info)
    context.include = None if raw is None else include_folder(raw, context.folder)
    return context.include


def _local_data(raw: Any, info: ValidationInfo) -> dict[str, dict[str, str]]:
    context = _context(info)
    context.local_data = local_data(raw, context.folder)
    return context.local_data


def _allow_code(allow: bool, info: ValidationInfo) -> bool:
    _context(info).allow_code_execution = allow
    return allow


def _tasks(raw: Any, info: ValidationInfo) -> list[TaskSpec]:
    return read_tasks(raw, _context(info))


def _parse_block_method(entry: Any, info: ValidationInfo) -> MethodChoice | None:
    """What an entry of a block's methods means; None for a label that has faults."""
    context = _context(info)
    if isinstance(entry, Mapping):
        return _read_method(dict(entry), context)
    if isinstance(entry, str) and entry in context.methods:
        return context.methods[entry]
    if isinstance(entry, str) and entry in METHODS:
        return _read_method({"method": entry}, context)
    if not isinstance(entry, str):
        raise Fault("must be a method's name, or a mapping of keys to values")
    names = [*context.methods, *(name for name in METHODS if name not in context.methods)]
    raise Fault(f"no such method '{shortened(entry)}'{did_you_mean(entry, names)}")


def _parse_named_method(entry: Any, info: ValidationInfo) -> MethodChoice:
    """What an entry of the grid's `methods` means, for the blocks that name its label."""
    if not isinstance(entry, Mapping):
        raise Fault("must be a mapping of keys to values")
    choice = _read_method(dict(entry), _context(info))
    _context(info).methods[str(entry["label"])] = choice
    return choice


def with_labels(methods: Any) -> Any:
    """Puts each label into its entry, as the default of its `label` and `method`."""
    if not isinstance(methods, Mapping):
        return methods
    return {
        label: {"label": label, **entry} if isinstance(entry, Mapping) else entry
        for label, entry in methods.items()
    }


def _read_method(raw: dict[str, Any], context: Context) -> MethodChoice:
    """A method with its options and its training settings, from the keys of its entry.

    Raises:
        ValidationError: every fault of the entry.
    """
    label = raw.pop("label", None)
    name = raw.pop("method", method_key(raw) or label)
    own, match = raw.pop("train", {}), raw.pop("match", None)
    if name is None or not isinstance(name, str):
        said = "`method` is missing" if name is None else "`method` must be a method's name"
        raise Fault(f"{said}{did_you_mean('', METHODS)}")
    if name not in METHODS:
        raise Fault(f"no such method '{shortened(name)}'{did_you_mean(name, METHODS)}")
    try:
        method, train, faults = METHODS[name], None, Faults()
    except ZbenchError as fault:  # of another package, which is broken
        raise Fault(str(fault)) from fault
    if not isinstance(own, Mapping):
        faults.add("must be a mapping of keys to values", "train")
        own = {}
    if name == "adapter" and isinstance(raw.get("adapter"), str):
        try:
            folder, name_of_folder = adapter_folder(raw["adapter"], context.folder)
            label = label or name_of_folder
            raw |= {"adapter": str(folder), "sha256": ""}
            gone = context.results if not folder.exists() else None
            stored = gone and stored_adapter(gone, folder, str(label))
            raw["sha256"] = stored or adapter_sha256(folder)
        except ZbenchError as fault:
            faults.add(str(fault), "adapter")
        except (OSError, RuntimeError) as fault:  # a circle of links, a folder that none may enter
            faults.add(f"{raw['adapter']}: cannot be read ({one_line(fault)})", "adapter")
    raw = check_entry(raw, method, faults)
    if name == "peft" and "peft" not in raw:
        faults.add("is missing; add `peft: {peft_type: ...}` with its options", "peft")
    options = faults.validate(method.options, raw, context=None if match is None else MATCHED)
    matching = None if match is None else faults.validate(MatchSpec, match, "match")
    if method.trains:
        settings = merge_settings(merge_settings(method.recipe, context.train), own)
        if options is not None and image_encoder_of(options) is None:
            if own.get(IMAGE_RATE) is not None:
                said = "is the rate of an image_encoder's projection, and the method has none"
                faults.add(f"{said}; leave it out, or give the method one", "train", IMAGE_RATE)
            settings.pop(IMAGE_RATE, None)  # the grid's is for its methods with pictures
        train = faults.validate(TrainSpec, settings, "train")
    elif own:
        faults.add(f"'{name}' trains nothing; leave it out", "train")
    faults.check()
    assert options is not None
    options = beside_grid(options, context.data_folder)
    label = label or _default_label(name, options, own, matching)
    return MethodChoice.model_validate(
        {"label": label, "method": name, "options": options, "train": train, "match": matching}
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


def _default_label(
    name: str, options: MethodOptions, train: Mapping[str, Any], match: MatchSpec | None
) -> str:
    """The method's name, with what the entry changes in brackets."""
    changed = {
        key: value
        for key, value in options.model_dump(exclude_unset=True).items()
        if value != type(options).model_fields[key].default
    }
    if isinstance(options, PeftOptions):
        name, changed = options.peft_type.lower().replace("_", "-"), options.settings
    encoder = image_encoder_of(options)
    if encoder is not None and "image_encoder" in changed:
        changed["image_encoder"] = encoder.name
    changed |= dict(train) | ({} if match is None else {"match": match.params})
    parts = ",".join(f"{key}={_format_value(value)}" for key, value in changed.items())
    label = f"{name}[{parts}]" if parts else name
    if len(label) <= LONGEST_LABEL:
        return label
    return label[: LONGEST_LABEL - 7] + "+" + hashlib.sha256(label.encode()).hexdigest()[:6]


def _format_value(value: object) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return re.sub(r"[^A-Za-z0-9._=,\[\]+-]+", "-", text)


NON_EMPTY = Field(min_length=1)
GridName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=80),
    AfterValidator(_free_name),
]
Models = Annotated[
    dict[str, ModelSpec],
    PlainValidator(_models, json_schema_input_type=Annotated[dict[str, ModelSpec], NON_EMPTY]),
]
KnownModel = Annotated[str, AfterValidator(_known_model)]
Data = Annotated[DataSpec, WrapValidator(_data)]
KnownData = Annotated[str, AfterValidator(_known_data)]
Train = Annotated[dict[str, Any], AfterValidator(_grid_train)]
Include = Annotated[str | None, PlainValidator(_include, json_schema_input_type=str | None)]
LocalData = Annotated[
    dict[str, dict[str, str]],
    PlainValidator(_local_data, json_schema_input_type=dict[str, dict[str, str]]),
]
AllowCode = Annotated[bool, AfterValidator(_allow_code)]
Tasks = Annotated[
    list[TaskSpec],
    PlainValidator(_tasks, json_schema_input_type=Annotated[list[str | TaskSpec], NON_EMPTY]),
]
BlockMethod = Annotated[MethodChoice, PlainValidator(_parse_block_method)]
NamedMethod = Annotated[MethodChoice, PlainValidator(_parse_named_method)]
