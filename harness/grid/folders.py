"""The folders of cells: where they are, and what is in them."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import StorageError, UsageError
from harness.grid.cells import FixedSeeds
from harness.grid.locks import check_locks, is_running
from harness.grid.names import label_of
from harness.grid.schema import Cell
from harness.readers.files import Unreadable, unreadable
from harness.readers.json_files import read_json_object
from harness.records.checkpoints import checkpoint_folders, step_of
from harness.records.files import write_text
from harness.records.results import read_result

CELL_FILE = "cell.json"
"""The cell as its grid described it."""
LOG_FILE = "log.txt"
STEPS_FILE = "steps.parquet"
"""One row per optimizer step."""
ADAPTER_FOLDER = "adapter"
"""The trained tensors."""
CHECKPOINTS_FOLDER = "checkpoints"
"""The checkpoints of a training run that is under way."""
ITEMS_FOLDER = "items"
"""The per-item records, one parquet file per evaluation."""
RESPONSES_FOLDER = "responses"
"""Answers to instructions, one parquet file per set of them (`zbench generate`)."""
VERDICTS_LOG = Path("judge") / "verdicts.jsonl"
"""Inside the runs folder: verdicts cost money, and are kept where trained weights are."""

Runs = Path | Sequence[Path]
"""A runs folder, or several that are read as one: whatever is written goes to the first."""


def runs_folders(runs: Runs) -> tuple[Path, ...]:
    """The runs folders, the first one first."""
    return (runs,) if isinstance(runs, Path) else tuple(runs)


def runs_text(runs: Runs) -> str:
    """What a message calls them."""
    return ", ".join(map(str, runs_folders(runs)))


def cell_folders(runs: Runs) -> dict[str, Path]:
    """The folders of the cells that were begun, by id: one listing of each runs folder.

    Of a cell in several runs folders it is the one in which the cell is furthest; of those that are
    as far the first (`several_folders` tells where they differ).

    Raises:
        StorageError: one cannot be listed.
    """
    first, *others = runs_folders(runs)
    found = _listed(first)
    for place in others:
        for cell_id, folder in _listed(place).items():
            known = found.setdefault(cell_id, folder)
            if known != folder and _progress(folder) > _progress(known):
                found[cell_id] = folder
    return found


def _progress(folder: Path) -> tuple[bool, int, bool, int]:
    """How far a cell is: trained, its evaluations, whether it runs, its newest checkpoint."""
    steps = [step_of(path) for path in checkpoint_folders(folder / CHECKPOINTS_FOLDER)[:1]]
    result, running = None, False
    with contextlib.suppress(StorageError):  # it is told where the cell is read
        result = read_result(folder, id_of(folder))
    with contextlib.suppress(StorageError):
        running = is_running(folder)
    evaluations = {score.evaluation for score in result.scores} if result is not None else ()
    trained = result is not None and result.train is not None
    return trained, len(evaluations), running, max(steps, default=-1)


def _listed(runs_dir: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    place = runs_dir / "cells"
    try:
        names = sorted(os.listdir(place))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as fault:
        raise StorageError(str(unreadable(place, fault))) from fault
    for name in names:
        _, dashes, cell_id = name.rpartition("--")
        if dashes and not name.startswith("."):  # a copy that is being made
            found.setdefault(cell_id, place / name)
    return found


def cell_folder(runs: Runs, cell: Cell, known: dict[str, Path] | None = None) -> Path:
    """The folder of a cell, begun or not: found by id, even if its label has changed.

    One of its former ids does as well, where the result in the folder is of the same training
    data. `known` is `cell_folders(runs)`, for whoever asks for many.
    """
    known = cell_folders(runs) if known is None else known
    found = known.get(cell.id) or _former_folder(cell, known)
    return found or runs_folders(runs)[0] / "cells" / f"{cell.slug}--{cell.id}"


def id_of(folder: Path) -> str | None:
    """The id of the cell that a folder is named for; None where it is named for none."""
    _, dashes, cell_id = folder.name.rpartition("--")
    return cell_id if dashes else None


def _former_folder(cell: Cell, known: dict[str, Path]) -> Path | None:
    for folder in filter(None, map(known.get, cell.former_ids)):
        with contextlib.suppress(StorageError):  # it is told where the folder's own cell is read
            result = read_result(folder)
            train = result.train if result is not None else None
            if train is not None and train.data_file_sha256 == cell.data_sha256 is not None:
                return folder
    return None


def items_path(folder: Path, benchmark: str, evaluation: str) -> Path:
    """The file of the per-item records of one evaluation, by its name (TaskScore.evaluation)."""
    return folder / ITEMS_FOLDER / f"{benchmark}--{evaluation}.parquet"


def stored_cells(runs: Runs) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields the folders of all cells that were begun, with what `cell.json` holds there.

    One that cannot be read is left out: reading its cell says what is wrong.
    """
    for folder in cell_folders(runs).values():
        with contextlib.suppress(Unreadable):
            yield folder, read_json_object(folder / CELL_FILE)


def stored_label(folder: Path) -> str | None:
    """The label of the cell that a folder says it holds; None where it cannot be read."""
    try:
        record = read_json_object(folder / CELL_FILE)
        model, method, data = record["model_name"], record["method_label"], record.get("data_name")
        fixed = FixedSeeds.model_validate(record.get("fixed_seeds", {})).text
        return label_of(
            model, method, record["fraction"], record["seed"], data,
            fixed_seeds=fixed, repeat=record.get("repeat"),
        )  # fmt: skip
    except (Unreadable, ValueError, KeyError, TypeError):  # reading the cell says what is wrong
        return None


def write_cell_file(folder: Path, cell: Cell) -> None:
    """Writes `cell.json`: the cell as its grid describes it.

    Raises:
        StorageError: it cannot be written.
    """
    record = cell.model_dump(mode="json", serialize_as_any=True)
    write_text(folder / CELL_FILE, json.dumps(record, indent=1) + "\n")


def check_writable(folder: Path) -> str | None:
    """Makes the folder and checks that a file can be written in it, and how it can be locked.

    Returns:
        What there is to know of a file system without locks, in one line.

    Raises:
        UsageError: it cannot.
    """
    for place in (folder, folder / "cells"):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place, prefix=".probe-") as probe:
                probe.write(b"x")
        except OSError as fault:
            no_folder = isinstance(fault, FileExistsError | NotADirectoryError)
            said = "is no folder" if no_folder else f"cannot be written ({fault.strerror})"
            raise UsageError(f"{place}: {said}; choose another folder with --runs-dir") from fault
    return check_locks(folder / "cells")
