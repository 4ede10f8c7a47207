"""What is checked of a grid: its combinations as it is read, and what it reads before it runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path

from harness.data.hub import NotHere
from harness.data.places import check_place
from harness.data.sets import count_rows, inspect_data, num_examples, training_mismatch
from harness.data.spec import DataSpec, data_file, is_there
from harness.data.validation import (
    num_training_rows,
    rows_in_both,
    validation_fault,
    validation_set,
)
from harness.demo.world import world_folder
from harness.errors import DataError, MethodError, ModelError, UsageError, ZbenchError
from harness.evaluation.data_versions import local_mismatches
from harness.evaluation.task_data import check_items, reads_local
from harness.evaluation.tasks import TaskSpec
from harness.grid.folders import Runs, runs_folders
from harness.grid.inputs import DataInput, Inputs, trained_fractions
from harness.grid.names import data_place, label_of
from harness.grid.optimizer_parts import sharding_faults
from harness.grid.own_encoders import check_encoder_input
from harness.grid.schema import Cell, GridSpec, MethodChoice, cell_of, count_cells
from harness.grid.text_checks import check_chats, check_rows, check_texts
from harness.methods import METHODS, check_options
from harness.methods.pass_through import PeftOptions
from harness.models.checkpoint import ModelSpec, check_checkpoint, local_folder
from harness.readers.files import instead_of, user_path
from harness.records.prefetched import use_prefetched

DATA_ROOT_VARIABLE = "ZBENCH_DATA_ROOT"
ABSENT = "not on this machine"
MAX_CELLS = 10_000
"""Of a grid: each takes minutes at least, so that more are a slip of the pen."""
ALLOW = "bring that version, or give --allow-data-mismatch: the note then stands with every score"


def combination_faults(grid: GridSpec) -> Iterator[str]:
    """Yields one line per fault: twins, options that do not fit a model, labels used twice."""
    yield from _twins(grid)
    yield from dict.fromkeys(sharding_faults(grid))
    seen: set[tuple[str, int]] = set()
    for block in grid.blocks:
        for model, choice in product(block.models, block.methods):
            if (model, id(choice)) not in seen:
                seen.add((model, id(choice)))
                yield from misfit(grid, model, choice)
    yield from _same_sets(grid)
    yield from dict.fromkeys(_keeps_without_rows(grid))
    for name in grid.data_names:
        data = grid.data_of(name)
        for fraction in trained_fractions(grid, name):
            if (fault := fraction_fault(fraction, data, data.num_rows)) is not None:
                yield fault
    if (count := count_cells(grid)) > MAX_CELLS:
        yield (
            f"blocks: span {count:,} cells, which is too many: at most {MAX_CELLS:,}; give fewer "
            "fractions or seeds, or several grids"
        )
        return
    yield from _labels_used_twice(grid)


def misfit(grid: GridSpec, model: str, choice: MethodChoice) -> Iterator[str]:
    """Yields why a method does not fit a model, if it does not."""
    folder = getattr(choice.options, "adapter", None)
    if folder is not None and not Path(folder).exists():
        return  # `entries` lets it pass for a command that reads results alone
    try:
        cell = cell_of(grid, model, choice)
        check_options(METHODS[cell.method], cell.options, cell.model.shape)
        _check_quantization(cell)
    except ZbenchError as misfit:
        yield f"{model} with {choice.label}: {misfit}"


def _labels_used_twice(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for every label that stands for two different cells; the first of a method."""
    meanings: dict[tuple[str, int, str | None], str] = {}
    labels: dict[str, tuple[str, float | None]] = {}
    choices: dict[tuple[str, str, str | None], MethodChoice] = {}
    told = set()
    for block in grid.blocks:
        for model, choice in product(block.models, block.methods):
            one = model, id(choice), block.data
            if (meaning := meanings.get(one)) is None:
                try:
                    meaning = meanings[one] = cell_of(grid, model, choice, data=block.data).id
                except MethodError:
                    continue  # told with what does not fit
                same = choices.setdefault((meaning, model, block.data), choice)
                if same.label != choice.label and (same.match or choice.match):
                    yield (
                        f"methods '{same.label}' and '{choice.label}' are one cell on {model}: "
                        "`match` chose what the other has; keep one"
                    )
            for fraction, seed in block.draws(choice):
                label = label_of(
                    model, choice.label, fraction, seed, block.data,
                    fixed_seeds=block.fixed(seed).text,
                )  # fmt: skip
                known = labels.setdefault(label, (meaning, fraction))
                if known != (meaning, fraction) and choice.label not in told:
                    told.add(choice.label)
                    yield (
                        f"two different cells are called '{label}'; give one of the methods a "
                        "`label`"
                    )


def _same_sets(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for every pair of names that stand for the same rows."""
    names: dict[str, str] = {}
    for name, spec in grid.datasets.items():
        same = repr((spec.source, spec.revision, spec.path, spec.stated))
        if (other := names.setdefault(same, name)) != name:
            yield f"datasets.{name}: is the same set as datasets.{other}; keep one"


def _twins(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for every pair of labels that stand for the same cells."""
    labels: dict[str, str] = {}
    for choice in grid.choices:
        meaning = choice.model_dump_json(exclude={"label"}, serialize_as_any=True)
        other = labels.setdefault(meaning, choice.label)
        if other != choice.label:
            yield f"methods '{other}' and '{choice.label}' have the same settings; keep one"


def _check_quantization(cell: Cell) -> None:
    """Checks that there is something frozen to quantise, and that the method knows such layers.

    Raises:
        MethodError: every parameter is trained, or PEFT has the type for plain layers alone.
    """
    if cell.train is None or cell.train.base_quantization is None:
        return
    method, shape = METHODS[cell.method], cell.model.shape
    if method.count_parameters(shape, cell.options) == shape.num_parameters:
        raise MethodError(
            f"train.base_quantization: nothing is frozen in '{method.name}'; leave it out"
        )
    if isinstance(cell.options, PeftOptions) and (fault := cell.options.quantisation_fault):
        raise MethodError(f"train.base_quantization: {fault}; leave it out")


def _keeps_without_rows(grid: GridSpec) -> Iterator[str]:
    """Yields a fault for every method that keeps the best epoch, and has no rows to tell it by."""
    for block in grid.blocks:
        if grid.data_of(block.data).validation is None:
            for choice in block.methods:
                if choice.train is not None and choice.train.keep == "best":
                    yield (
                        f"{choice.label}: train.keep: best is told by validation rows, and none "
                        f"are held out; add `validation: {{fraction: 0.02}}` to "
                        f"{data_place(block.data)}, or keep: last"
                    )


def fraction_fault(fraction: float, data: DataSpec, num_rows: int | None) -> str | None:
    """Why a fraction selects no example, as far as the size of the data set is known."""
    num_rows = num_rows and num_training_rows(data, num_rows)
    if not num_rows or num_examples(fraction, num_rows) > 0:
        return None
    return (
        f"fraction {fraction:g} of {num_rows} rows selects no example; it must be more than "
        f"{0.5 / num_rows:.2g}"
    )


def resolve_data_root(grid: GridSpec, option: Path | None, runs: Runs) -> Path | None:
    """The data root: the option's, else that of the environment, else the embedded world's.

    Raises:
        UsageError: the folder that was named is not there.
    """
    name = "--data-root"
    if option is None and grid.world is not None:
        places = [world_folder(folder) for folder in runs_folders(runs)]
        return next((place for place in places if place.is_dir()), places[0])
    if option is None and (named := os.environ.get(DATA_ROOT_VARIABLE)):
        name = DATA_ROOT_VARIABLE
        try:
            option = user_path(named)
        except UsageError as fault:
            raise UsageError(f"{DATA_ROOT_VARIABLE}: {fault}") from fault
    if option is not None and not option.is_dir():
        what = "no such folder" if not option.exists() else "is no folder"
        raise UsageError(f"{name} {option}: {what}")
    root = option and option.resolve()
    use_prefetched(root)
    return root


@dataclass
class Found:
    """What checks have found: faults that stop a run, and what a reader must know, a line each."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Sets of the hub that are neither here nor to be fetched."""

    def look(self, check: Callable[..., list[str] | None], *arguments: object) -> None:
        """Runs a check: it raises a ZbenchError of one or more lines, and may return notes."""
        try:
            self.notes += check(*arguments) or ()
        except NotHere as fault:
            self.absent.append(fault.what)
        except ZbenchError as fault:
            self.faults += str(fault).splitlines()


def look_at(inputs: Inputs, data_root: Path | None) -> Found:
    """Looks at the models, data and items that cells read, as far as they are on this machine.

    Small files and headers are read, and nothing is loaded. A check is a line here.
    """
    found, checked = Found(), cache(check_checkpoint)  # many models may be one folder
    for name, model in inputs.models.items():
        found.look(_check_model, name, model, inputs.longest.get(name), data_root, checked)
    for encoder in inputs.encoders:
        found.look(check_encoder_input, encoder, data_root)
    for data in inputs.data:
        faults = len(found.faults)
        found.look(_check_data, data, data_root)
        found.look(_check_validation, data, data_root)
        if len(found.faults) == faults:  # its rows can be read
            found.look(check_rows, data, data_root)
            place = data_place(data.name)
            for name in data.models:
                found.look(check_texts, data.spec, place, name, inputs.models[name], data_root)
        stated = data.spec.num_rows  # then it is told already of fractions
        rows = None if stated else count_rows(data.spec, data_root)
        found.faults += filter(None, (fraction_fault(n, data.spec, rows) for n in data.fractions))
        if (fault := validation_fault(data.spec, stated or rows)) is not None:
            found.faults.append(f"{data_place(data.name)}.{fault}")
    for task in inputs.tasks:
        found.look(_check_items, task, data_root)
        for name, model in inputs.models.items():
            found.look(check_chats, task, name, model, data_root)
    if found.absent:
        found.faults.append(
            f"{ABSENT}, and the network is switched off (HF_HUB_OFFLINE): "
            f"{', '.join(dict.fromkeys(found.absent))}; where there is network, run "
            "`zbench prefetch GRID --to DIR`, then give --data-root DIR"
        )
    return found


def version_faults(inputs: Inputs, data_root: Path | None) -> list[str]:
    """The local data sets that are not the pinned version, one line each.

    What a cell trains on counts where the grid says that it is a copy of a pinned data set. A file
    that cannot be read counts as none: it is told as that.
    """
    found: dict[str, None] = {}
    for spec in (data.spec for data in inputs.data):
        with contextlib.suppress(ZbenchError):
            other = training_mismatch(spec, data_root)
            found |= {} if other is None else {str(other): None}
    for task in inputs.tasks:
        if task.benchmark.hub is None:
            continue  # on no hub, as the embedded world: nobody's data set, so that it has no pin
        with contextlib.suppress(ZbenchError):
            found |= dict.fromkeys(map(str, local_mismatches(task, data_root)))
    return list(found)


_PLACE = "--data-root names the folder of local data and models, or put it beside the grid file"


def _check_model(
    name: str,
    model: ModelSpec,
    max_length: int | None,
    data_root: Path | None,
    checked: Callable[..., list[str]],
) -> list[str]:
    folder = local_folder(model, data_root)
    if folder is None:
        if model.source is None:
            raise UsageError(f"models.{name}.path: {model.path} is relative; {_PLACE}")
        return []  # the hub is read
    if not folder.exists():
        raise UsageError(f"models.{name}.path: no folder {folder}{instead_of(folder)}")
    try:
        notes = checked(model, folder, max_length=max_length, before_run=True)
    except ModelError as fault:
        lines = str(fault).splitlines()
        raise ModelError("\n".join(f"models.{name}: {line}" for line in lines)) from fault
    return [f"{name}: {note}" for note in notes]


def _check_data(data: DataInput, data_root: Path | None) -> None:
    file = data_file(data.spec, data_root)
    if file is not None and not is_there(file):
        raise UsageError(f"{data_place(data.name)}.path: no file {file}{instead_of(file)}")
    try:
        check_place(data.spec, data_root)
        inspect_data(data.spec, data_root)
    except NotHere:
        raise
    except ZbenchError as fault:
        if data.name is None:
            raise
        raise DataError(f"{data_place(data.name)}: {fault}") from fault


def _check_validation(data: DataInput, data_root: Path | None) -> list[str]:
    """Looks at validation rows that are no share of the training data."""
    if data.spec.validation is None or data.spec.validation.fraction is not None:
        return []
    place, spec = f"{data_place(data.name)}.validation", validation_set(data.spec)
    file = data_file(spec, data_root)
    if file is not None and not is_there(file):
        raise UsageError(f"{place}.path: no file {file}{instead_of(file)}")
    try:
        check_place(spec, data_root)
        inspect_data(spec, data_root)
        same, count = rows_in_both(data.spec, data_root)
    except ZbenchError as fault:
        raise DataError(f"{place}: {fault}") from fault
    if same and same == count:
        raise DataError(f"{place}: all of its {count:,} rows are trained on; hold out other rows")
    return [f"{place}: {same:,} of {count:,} rows are trained on too"] if same else []


def _check_items(task: TaskSpec, data_root: Path | None) -> None:
    check_items(task, data_root)
    if task.benchmark.hub is not None and reads_local(task, data_root):
        local_mismatches(task, data_root)  # the columns that the content is compared by
