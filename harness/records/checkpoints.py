"""The names of checkpoints in a cell's folder; `harness.training.checkpoint` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import sha256_of_json

TEMPORARY = (".step-*", ".aside-*", ".best-*")
"""Checkpoints and best weights that are being written: this version's, and those of older ones."""
RECORD_FILE = "checkpoint.json"
"""In a checkpoint: which run it belongs to, and all steps so far."""
_BEST = re.compile(r"best-([0-9]{8})\.safetensors")
_NAME = re.compile(r"step-([0-9]{8,18})")


def checkpoint_folders(folder: Path) -> list[Path]:
    """The folders of a cell's checkpoints, the newest first."""
    found = (path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))
    return sorted((path for path in found if path.is_dir()), key=step_of, reverse=True)


def validation_losses(folder: Path) -> tuple[float, ...]:
    """The validation losses after each epoch of an unfinished training, by its newest checkpoint.

    Of a damaged one nothing is known, and the one before is read, as a resume would.
    """
    for checkpoint in checkpoint_folders(folder):
        try:
            record = read_json_object(checkpoint / RECORD_FILE)
            if record["sha256"] == sha256_of_json(record["content"]):
                return tuple(map(float, record["content"]["progress"]["validation_losses"]))
        except (Unreadable, KeyError, TypeError, ValueError):  # the run itself tells of it
            continue
    return ()


def other_entries(folder: Path) -> list[Path]:
    """What lies there and only looks like a checkpoint."""
    return sorted({*folder.glob("step-*")} - {*checkpoint_folders(folder)})


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix("step-"))


def best_file(folder: Path, epoch: int) -> Path:
    """The trained weights after an epoch (from 0) whose validation loss was the lowest so far."""
    return folder / f"best-{epoch:08d}.safetensors"


def best_files(folder: Path) -> dict[int, Path]:
    """Those files by their epoch."""
    found = {path: _BEST.fullmatch(path.name) for path in folder.glob("best-*")}
    return {int(name[1]): path for path, name in found.items() if name}
