"""Writes adapter folders, from trained cells and from LLaMA-Adapter checkpoints."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.demo.world import world_folder
from harness.errors import StorageError, UsageError, did_you_mean, one_line, shortened
from harness.evaluation.tasks import TaskSpec
from harness.export.llama_adapter import adapter_config, read_llama_adapter
from harness.export.model_card import CARD_FILE, model_card
from harness.grid.folders import ADAPTER_FOLDER, CELL_FILE
from harness.grid.loader import load_grid, shipped_grids
from harness.grid.schema import Cell
from harness.grid.selection import find_folder
from harness.methods import METHODS
from harness.models.adapter_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_size,
    advising,
    read_adapter_config,
)
from harness.models.checkpoint import read_config
from harness.models.shape import ModelShape, shape_of
from harness.models.trained_files import TRAINED_FILE, check_undamaged
from harness.readers.files import Unreadable, user_path
from harness.readers.json_files import read_json_object
from harness.readers.yaml_files import parse_yaml
from harness.records.files import atomic_folder, save_tensors
from harness.records.results import CellResult, read_result


@dataclass(frozen=True)
class Exported:
    """A folder that was written."""

    folder: Path
    method: str
    num_parameters: int


def export_cell(cell: str, output: Path, *, runs_dir: Path, data_root: Path | None) -> Exported:
    """Writes a trained cell's weights with a model card.

    An adapter becomes a PEFT folder, a fully fine-tuned model a transformers checkpoint.

    Args:
        cell: a cell's name, by the rule of `grid.selection`.
        output: a new or empty folder.
        runs_dir: where cells are kept.
        data_root: where a relative path of the base model begins; for whole models.

    Raises:
        UsageError: there is no such cell, nothing was trained in it, or `output` is in use.
        ModelError: the cell's weights are missing or damaged.
        StorageError: the folder cannot be written.
    """
    folder = find_folder(cell, runs_dir)
    record, result = _read_cell(folder)
    if record.train is None:
        raise UsageError(f"{record.label}: nothing was trained in this cell; there is no adapter")
    if result is None or result.train is None:
        raise UsageError(f"{record.label}: not trained yet; run its grid first")
    trained = folder / ADAPTER_FOLDER
    whole_model = (trained / TRAINED_FILE).is_file() and not (trained / CONFIG_FILE).is_file()
    _check_new(output)
    check_undamaged(trained, result.train.weights_sha256)
    with atomic_folder(output) as temporary:
        if whole_model:
            size = result.train.trainable_parameters
            if data_root is None and record.world is not None:
                data_root = world_folder(runs_dir)
            _write_whole_model(record, result, trained, temporary, data_root)
        else:
            read_adapter_config(trained)
            size = adapter_size(trained)
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                shutil.copyfile(trained / name, temporary / name)
        card = model_card(record, result, whole_model=whole_model)
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
    return Exported(output, record.method, size)


def _read_cell(folder: Path) -> tuple[Cell, CellResult | None]:
    file = folder / CELL_FILE
    with advising("run the cell's grid again, which writes it"):
        raw = read_json_object(file)
    method = raw.get("method")
    if isinstance(method, str) and method not in METHODS:
        raise UsageError(
            f"{file}: its method '{method}' is not installed here; install the package that has it"
            f"{did_you_mean(method, METHODS)}"
        )
    try:
        cell = Cell.model_validate(_with_known_tasks(raw))
    except (ValueError, KeyError) as fault:
        raise StorageError(
            f"{file}: cannot be read ({one_line(fault)}); run the cell's grid again"
        ) from fault
    return cell, read_result(folder)


def _with_known_tasks(raw: dict[str, Any]) -> dict[str, Any]:
    """A stored cell without the benchmarks whose own YAML files are gone since."""
    kept = []
    for task in raw.get("tasks", []):
        with contextlib.suppress(ValueError):
            kept.append(TaskSpec.model_validate(task))
    return {**raw, "tasks": kept}


def _write_whole_model(
    cell: Cell, result: CellResult, trained: Path, output: Path, data_root: Path | None
) -> None:
    """Writes a checkpoint and tokenizer that transformers loads."""
    from harness.models.loading import load_base, load_trained

    base = load_base(cell.model, data_root=data_root, device="cpu", precision="fp32")
    names = set(dict(base.model.named_parameters()))
    model: Any = METHODS[cell.method].apply(
        base.model, cell.options, cell.seed_of("initialization")
    )
    if set(dict(model.named_parameters())) != names:
        raise UsageError(
            f"{cell.label}: {cell.method} adds parts of its own to the model, which no common "
            f"format holds; its tensors are in {trained}, for harness.models.loading.load_trained"
        )
    load_trained(model, trained)
    model.save_pretrained(output)
    base.tokenizer.save_pretrained(output)


def import_llama_adapter(
    file: Path, output: Path, *, model: str, method: str | None, options: list[str]
) -> Exported:
    """Writes a LLaMA-Adapter checkpoint (.pth) as an adapter folder.

    Args:
        file: a dictionary of tensors; see `harness.export.llama_adapter`.
        output: a new or empty folder.
        model: the base model: a model of a shipped grid, its hub repository, or a checkpoint
            folder; only its shape is read.
        method: needed where the file does not determine it.
        options: `name=value` of the method, where they differ from its defaults.

    Raises:
        UsageError: an unknown model, an unknown or contradicting method, a wrong option, or
            `output` is in use.
        ModelError: the file is missing, damaged, or of another layout or base model.
        StorageError: the folder cannot be written.
    """
    shape, base_name = _find_shape(model)
    adapter = read_llama_adapter(file, shape, method=method, options=_parse_options(options))
    _check_new(output)
    with atomic_folder(output) as temporary:
        save_tensors(temporary / WEIGHTS_FILE, adapter.tensors)
        config = adapter_config(adapter, shape, base_name)
        (temporary / CONFIG_FILE).write_text(config, encoding="utf-8")
        card = _llama_adapter_card(file, adapter.method, base_name)
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
    return Exported(output, adapter.method, adapter_size(output))


def _find_shape(model: str) -> tuple[ModelShape, str]:
    """The shape of a base model, and its name on the hub or path."""
    with contextlib.suppress(UsageError, OSError):  # no file can have this path: it is a name
        if (user_path(model) / "config.json").is_file():
            return shape_of(read_config(user_path(model))), model
    known: dict[str, tuple[ModelShape, str]] = {}
    for name in shipped_grids():
        for key, spec in load_grid(name).models.items():
            for name_or_source in filter(None, (key, spec.source)):
                known.setdefault(name_or_source, (spec.shape, spec.source or key))
    if model in known:
        return known[model]
    raise UsageError(
        f"--model {shortened(model)}: no checkpoint folder and no model of a shipped grid"
        f"{did_you_mean(model, known)}"
    )


def _parse_options(options: list[str]) -> Mapping[str, Any]:
    parsed: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        place = f"--option {shortened(option)}"
        if not equals:
            raise UsageError(f"{place}: write it as name=value, such as num_layers=30")
        try:
            read = parse_yaml(value, Path("value"))
        except Unreadable as fault:
            raise UsageError(f"{place}: is no value ({one_line(fault)})") from fault
        if read.faults:
            raise UsageError(f"{place}: is no value ({next(iter(read.faults.values()))})")
        if name.strip() in parsed:
            raise UsageError(f"{place}: '{shortened(name.strip())}' is given twice; keep one")
        parsed[name.strip()] = read.content
    return parsed


def _llama_adapter_card(file: Path, method: str, base_name: str) -> str:
    head = {"base_model": base_name, "library_name": "peft", "tags": ["zbench", method]}
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n"
        f"# {METHODS[method].title} on {base_name}\n\n"
        f"Converted by zbench from the LLaMA-Adapter checkpoint `{file.name}`; trained by its "
        "authors. To score it, name this folder as `adapter` in a grid.\n"
    )


def _check_new(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"{output}: is there already and not empty; give a new folder")
