"""What of a faulty grid file is without fault, so that what is wrong with files is told too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.data.spec import DataSpec
from harness.evaluation.tasks import TaskSpec
from harness.grid.entries import (
    AllowCode,
    BlockMethod,
    Context,
    Data,
    Include,
    LocalData,
    Models,
    NamedMethod,
    Train,
    with_labels,
)
from harness.grid.gather import Gathered
from harness.grid.inputs import NO_DATA
from harness.grid.noise import NoiseSpec
from harness.grid.questions import ClaimSpec, TableSpec
from harness.grid.remarks import Remarks
from harness.grid.schema import Block, Fraction, GridSpec, Seed
from harness.grid.seed_sd import SeedSdsEntry
from harness.grid.table_columns import Name
from harness.grid.task_entries import read_tasks
from harness.grid.tracking_uri import TrackingSpec

OF_ALL_TASKS = {
    "include": Include,
    "local_data": LocalData,
    "allow_code_execution": AllowCode,
}
"""Keys of a grid that say something of all its tasks."""


def sound_part(raw: Mapping[str, Any], context: Context) -> GridSpec:
    """The models, data, tasks and blocks of a faulty file that are without fault.

    So that what is wrong with them together, and with their files, is told with the rest.
    """
    models = {}
    for name, entry in as_mapping(raw.get("models")).items():
        for found in _sound(Models, [{"one": entry}], context):
            models[str(name)] = found["one"]
    train: dict[str, Any] = {}
    for key, value in as_mapping(raw.get("train")).items():
        train |= next(_sound(Train, [{key: value}], context), {})
    context.train = train
    for label, entry in as_mapping(with_labels(raw.get("methods", {}))).items():
        if next(_sound(NamedMethod, [entry], context, prune=False), None) is None:
            context.methods.pop(str(label), None)
    for key, kind in OF_ALL_TASKS.items():
        list(_sound(kind, [raw[key]] if key in raw else [], context))  # fills the context
    tasks = _sound_tasks(raw.get("tasks"), context)
    datasets = {
        str(name): _sound_data(entry, context)
        for name, entry in as_mapping(raw.get("datasets")).items()
    }
    blocks = []
    for entry in raw.get("blocks", ()) if isinstance(raw.get("blocks"), list) else ():
        own = as_mapping(entry)
        chosen = own.get("models") or list(models)
        blocks.append(
            Block.model_construct(
                models=tuple(name for name in _sound(str, chosen, context) if name in models),
                methods=tuple(_methods(own.get("methods"), context)),
                fractions=tuple(_sound(Fraction, own.get("fractions"), context)) or (1.0,),
                seeds=tuple(_sound(Seed, own.get("seeds"), context)) or (0,),
                tasks=_sound_tasks(own.get("tasks"), context) or tasks,
                gpus_per_cell=1,
                data=next((one for one in datasets if one == own.get("data")), None),
            )
        )
    return GridSpec.model_construct(
        name="", title="", notes=(), models=models, blocks=tuple(blocks),
        data=_sound_data(raw.get("data", {}), context), datasets=datasets,
        world=None if raw.get("world") is None else "demo",  # misspelt, it is meant all the same
        tables=tuple(_sound(TableSpec, raw.get("tables"), context)),
        claims=tuple(_sound(ClaimSpec, raw.get("claims"), context, prune=False)),
        compare=next(_sound(Name, [raw.get("compare")], context), None),
        noise=next(_sound(NoiseSpec, [raw.get("noise")], context, prune=False), None),
        seed_sd=next(_sound(SeedSdsEntry, [raw["seed_sd"]] if "seed_sd" in raw else [], context,
                            prune=False), None),
        remarks=_sound_entries(Remarks, raw.get("remarks"), context),
        left_out=_sound_entries(Remarks, raw.get("left_out"), context),
        gather=_sound_entries(Gathered, raw.get("gather"), context),
        tracking=TrackingSpec(), text="",
    )  # fmt: skip


def _sound_entries(kind: Any, raw: Any, context: Context) -> dict[str, Any]:
    """The entries of a mapping that have no fault."""
    return {
        key: value
        for one, said in as_mapping(raw).items()
        for found in _sound(kind, [{one: said}], context, prune=False)
        for key, value in found.items()
    }


def _sound_tasks(entries: Any, context: Context) -> tuple[TaskSpec, ...]:
    listed = entries if isinstance(entries, list | tuple) else ()
    found: dict[TaskSpec, None] = {}
    for entry in listed:
        try:
            found |= dict.fromkeys(read_tasks([entry], context))
        except ValidationError as error:
            pruned = entry
            for fault in error.errors(include_url=False, include_context=False):
                pruned = _without(pruned, fault["loc"][1:])
            with contextlib.suppress(ValidationError):
                found |= dict.fromkeys(read_tasks([pruned], context))
    return tuple(found)


def _sound_data(raw: Any, context: Context) -> DataSpec:
    """The data, unless what is left of a faulty entry would be another set."""
    own, default = as_mapping(raw), DataSpec().model_dump()
    found: DataSpec
    for found in _sound(Data, [raw], context):
        meant = found.model_dump()
        keys = [key for key in ("source", "path") if key in own]
        if all(meant[key] == own[key] or meant[key] != default[key] for key in keys):
            return found
    return NO_DATA


def as_mapping(raw: Any) -> Mapping[str, Any]:
    """A mapping as it is; an empty one of anything else."""
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
