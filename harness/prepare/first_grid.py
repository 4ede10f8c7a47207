"""A first grid file: its text from a few answers, checked as `plan` checks it before it is written.

What an answer means is looked up here: a checkpoint's shape in its config.json, the form of a
file's rows in its first rows.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.data.forms import SAMPLE_ROWS, guessed_columns
from harness.data.places import data_files
from harness.data.reading import RowReport
from harness.data.sets import inspect_data
from harness.data.spec import ALPACA, Columns, DataSpec, is_there
from harness.errors import DataError, UsageError, did_you_mean, plain_message, shortened
from harness.grid.inputs import inputs_of_grid
from harness.grid.loader import refuse, shipped_grids
from harness.grid.names import file_name
from harness.grid.resolver import Resolved, resolve
from harness.grid.workspace import check_inputs
from harness.methods import METHODS, MethodError, ModelShape, check_options
from harness.models.checkpoint import ModelSpec
from harness.models.checkpoint_folder import check_folder, read_settings, stated_shape
from harness.prepare.schema import SHIPPED as SCHEMAS
from harness.prepare.schema import schema_text
from harness.readers.files import user_path
from harness.readers.records import open_records
from harness.readers.yaml_files import parse_yaml, read_yaml_text
from harness.records.files import atomic_file
from harness.spec import is_hub_name

COLUMNS = "# columns: {instruction: question, output: answer}    # where they are called otherwise"
METHODS_TO_BEGIN_WITH = ("lora", "zero-init-nonlinear")
BENCHMARKS_TO_BEGIN_WITH = ("arc_easy", "hellaswag")


@dataclass(frozen=True)
class ChosenModel:
    """What an answer says of the base model."""

    name: str
    """In the grid."""
    place: dict[str, str]
    """`source` and `revision`, or `path`."""
    shape: ModelShape
    found_in: str
    """Where the shape is from."""


@dataclass(frozen=True)
class ChosenData:
    """What an answer says of the training data."""

    entry: dict[str, Any]
    """The grid's `data`; empty for Alpaca."""
    found: str
    """What is known of its rows."""


@dataclass(frozen=True)
class FirstGrid:
    """The answers that a first grid is made of."""

    model: ChosenModel
    data: ChosenData
    methods: Sequence[str]
    benchmarks: Sequence[str]
    fractions: Sequence[float] = (1.0,)
    seeds: Sequence[int] = (0,)


def shipped_models() -> dict[str, ChosenModel]:
    """The models of the grids that ship and that the hub has, by name."""
    found: dict[str, ChosenModel] = {}
    for grid, file in shipped_grids().items():
        # Their models alone: the methods of some take PEFT to validate.
        models = parse_yaml(read_yaml_text(file), Path(file.name)).content["models"]
        for name, entry in models.items():
            spec = ModelSpec.model_validate(entry)
            if spec.source is not None and name not in found:
                place = {"source": spec.source, "revision": spec.revision}
                found[name] = ChosenModel(name, place, spec.shape, f"the shipped grid {grid}")
    return found


def choose_model(answer: str, folder: Path) -> ChosenModel:
    """The model that an answer means: a checkpoint folder, a shipped model, or one of the hub.

    Args:
        answer: what the user wrote.
        folder: the grid file's.

    Raises:
        UsageError: it is none of them.
        ModelError: the folder holds no checkpoint of a family that zbench knows.
    """
    path = user_path(answer)
    if path.exists():
        check_folder(path)
        shape = _shape(path, answer)
        return ChosenModel(_named(path), {"path": _beside(path, folder)}, shape, "its config.json")
    known = shipped_models()
    for chosen in known.values():
        if answer in (chosen.name, chosen.place["source"]):
            return chosen
    if "/" in answer and is_hub_name(answer):
        shape = _shape(_config_of_hub(answer), answer)
        name = _named(Path(answer))
        return ChosenModel(name, {"source": answer, "revision": "main"}, shape, "its config.json")
    raise UsageError(
        f"--model {shortened(answer)}: no checkpoint folder, no model of a shipped grid and no "
        f"owner/name of the hub{did_you_mean(answer, known)}"
    )


def choose_data(answer: str, folder: Path) -> ChosenData:
    """The training data that an answer means: a file or folder of one's own, or a set of the hub.

    Raises:
        UsageError: it is neither.
        DataError: the file has rows of no form, or bad ones.
    """
    path = user_path(answer)
    if is_there(path):
        columns: dict[str, str] = {}
        absolute = Path(os.path.abspath(path))
        try:
            report = _inspected(absolute, columns)
        except DataError:
            columns = guessed_columns(_columns_of(absolute))
            if not columns:
                raise
            report = _inspected(absolute, columns)
        said = f"{report.rows:,} rows of the form {report.form}"
        if report.pictures:
            said += f", {report.pictures:,} with a picture (for methods with an `image_encoder`)"
        if columns:
            named = " and ".join(columns.values())
            said += f", if {named} are the columns that are meant: see `zbench preview`"
        mapped = {"columns": columns} if columns else {}
        return ChosenData({"path": _beside(path, folder), **mapped}, said)
    if is_hub_name(answer) and "/" in answer and not path.suffix:
        said = "Stanford Alpaca, 52,002 rows" if answer == ALPACA else "a data set of the hub"
        return ChosenData({} if answer == ALPACA else {"source": answer}, said)
    raise UsageError(
        f"--data {shortened(answer)}: no such file or folder, and no owner/name of a data set of "
        "the hub"
    )


def default_methods(shape: ModelShape) -> tuple[str, ...]:
    """Methods to begin with that the model can have."""
    return tuple(name for name in METHODS_TO_BEGIN_WITH if _fits(name, shape))


def _fits(name: str, shape: ModelShape) -> bool:
    try:
        check_options(METHODS[name], METHODS[name].options(), shape)
    except MethodError:
        return False
    return True


def _shape(folder: Path, answer: str) -> ModelShape:
    try:
        return stated_shape(read_settings(folder))
    except ValidationError as fault:
        raise UsageError(
            f"--model {shortened(answer)}: its config.json describes no usable model "
            f"({plain_message(fault)})"
        ) from fault


def _config_of_hub(name: str) -> Path:
    """The folder of a hub model's config.json, the one file of it that is fetched."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json")).parent
    except Exception as fault:  # no network, a gated model, no such name: of many libraries' kinds
        raise UsageError(
            f"--model {name}: its config.json is neither in the local cache nor to be had from the "
            f"hub ({plain_message(fault)}); give a checkpoint folder, or a shipped model: "
            f"{', '.join(shipped_models())}"
        ) from fault


def _named(path: Path) -> str:
    """A model's name in the grid, after its folder's or repository's."""
    return file_name(Path(os.path.abspath(path)).name).strip("-.")[:40] or "model"


def _beside(path: Path, folder: Path) -> str:
    """A path as a grid file in a folder names it: relative where it lies in that folder."""
    own, base = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return own.relative_to(base).as_posix() if own.is_relative_to(base) else str(own)


def _inspected(path: Path, columns: dict[str, str]) -> RowReport:
    spec = DataSpec(path=str(path), columns=Columns(**columns) if columns else None)
    report = inspect_data(spec, None).report
    return RowReport() if report is None else report


def _columns_of(path: Path) -> list[str]:
    """The columns of a file's first rows."""
    file = data_files(DataSpec(path=str(path)), None)[0]
    with open_records(file) as records:
        if records.types is not None:
            return list(records.types)
        first = itertools.islice(records.read(()), SAMPLE_ROWS)
        return list(dict.fromkeys(name for row in first for name in row))


def grid_text(name: str, answers: FirstGrid) -> str:
    """The text of a grid file with comments."""
    model, data = answers.model, answers.data
    shape = model.shape.model_dump(exclude_none=True, exclude_defaults=True)
    place = "\n".join(f"    {key}: {_scalar(value)}" for key, value in model.place.items())
    if "source" in data.entry:
        entry = f"\ndata:\n  source: {_flow(data.entry['source'])}\n  {COLUMNS}"
    elif data.entry:
        entry = "\ndata:\n" + "\n".join(f"  {key}: {_flow(v)}" for key, v in data.entry.items())
    else:
        entry = "\ndata: {}    # Alpaca"
    return f"""\
# yaml-language-server: $schema=./{SCHEMAS["grid"]}
# A first grid, by `zbench init`. The line above lets editors complete, explain and check the keys.
#   zbench plan {name}.yaml        what will run, and whether all that it reads is there
#   zbench run-grid {name}.yaml    train and score; the same command resumes
#   zbench report {name}.yaml      tables, figures, comparisons
name: {_scalar(name)}

models:
  {_scalar(model.name)}:
{place}
    shape: {_flow(shape)}    # from {model.found_in}

# {data.found}{entry}
  # validation: {{fraction: 0.1}}    # rows to measure the loss on after every epoch

train:    # for every method; what is not said here is the method's published recipe
  epochs: 3
  batch_size: 16
  max_length: 512        # tokens; longer rows are cut
  warmup_ratio: 0.03

tasks: {_flow(list(answers.benchmarks))}    # any task of lm-eval, and some of zbench's own

blocks:
  - methods: [base]      # the model as it is, which the others are compared with
  - methods: {_flow(list(answers.methods))}
    fractions: {_flow(list(answers.fractions))}    # shares of the rows, such as [0.1, 1.0]
    seeds: {_flow(list(answers.seeds))}    # one decides little; [0, 1, 2] give intervals
"""


def _scalar(value: Any) -> str:
    """A value in YAML; text is quoted where YAML would read something else."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][\w./-]*", value) is not None
    known = (
        isinstance(value, str) and parse_yaml(f"a: {value}" if plain else "a: x", Path()).content
    )
    if plain and known == {"a": value}:
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _flow(value: Any) -> str:
    """A value in YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def check_answers(file: Path, answers: FirstGrid) -> Resolved:
    """The grid that answers make.

    Raises:
        UsageError: it has faults, as `plan` tells them.
    """
    text = grid_text(file.stem, answers)
    found = resolve(
        parse_yaml(text, Path(file.name)).content, place=file.name, text=text, folder=file.parent
    )
    refuse(found.faults)
    return found


def write_first_grid(file: Path, answers: FirstGrid) -> list[Path]:
    """Writes a grid file, and beside it the schema that its first line names.

    Returns:
        The files that were written.

    Raises:
        UsageError: there is such a file, or what would be written has faults, as `plan` tells them.
    """
    check_new(file)
    text, found = grid_text(file.stem, answers), check_answers(file, answers)
    refuse(check_inputs(inputs_of_grid(found.grid), file.parent, None).faults)
    written = [file]
    with atomic_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    schema = file.parent / SCHEMAS["grid"]
    if not schema.exists():
        with atomic_file(schema) as temporary:
            temporary.write_text(schema_text("grid"), encoding="utf-8")
        written.append(schema)
    return written


def check_new(file: Path) -> None:
    """Refuses a file that is there, or that would not be found as a grid.

    Raises:
        UsageError: so it is.
    """
    if file.suffix not in (".yaml", ".yml"):
        name = file.name if file.name and not file.is_dir() else "grid"
        raise UsageError(f"{file}: a grid file ends in .yaml; name it {name}.yaml")
    if file.exists() or file.is_symlink():
        raise UsageError(f"{file}: is there already, and is not overwritten; give another name")
    if not file.parent.is_dir():
        raise UsageError(f"{file}: no folder {file.parent}; make it, or give another name")
