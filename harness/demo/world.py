"""The embedded world as a data root: the same files as the real benchmarks', and a checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from harness.errors import StorageError
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object

VERSION = 1
"""Raised whenever a file of the world changes; `python -m scripts.make_demo_world` writes them."""
DATA = Path(__file__).parent / "data"
"""The files that ship. What runs read is a copy of them, which stays as it was when the package
is updated."""
CHECKPOINT = DATA / "model"
IMAGE_ENCODER = DATA / "image_encoder"
TASKS = Path(__file__).parent / "tasks"
RECORD = "world.json"
"""In the root: the seed, the version, and the sha256 of each other file."""


def world_folder(runs_dir: Path) -> Path:
    """Where the embedded world of this version lies once it is written."""
    return (runs_dir / "world" / f"demo-{VERSION}").resolve()


def readable_root(runs_dir: Path, data_root: Path | None) -> Path | None:
    """The data root; for an embedded world that is not written yet, or lacks a file that came to it
    later, what it will hold."""
    world = world_folder(runs_dir)
    if data_root != world or all((world / name).is_file() for name in _record_of(DATA)["sha256"]):
        return data_root
    return DATA


def write_world(folder: Path) -> Path:
    """Copies the data root of the embedded world into a folder, unless it is there already.

    The root holds `alpaca/train`, `arc_easy/test`, `arc_challenge/test`, `mmlu/{test,dev}`,
    `hellaswag/{validation,train}`, `truthfulqa_mc/validation` and `pictures/{train,test}` as
    parquet; `validation/`, a data root of its own with other people and herbs, for choosing
    learning rates; `model/` and `image_encoder/`, the checkpoints; and `world.json`. To a world
    that lacks files which came to this version later, these are added; all others stay.

    Args:
        folder: where the root is to be; an incomplete or older world there is replaced.

    Returns:
        `folder`.

    Raises:
        StorageError: the folder cannot be written, or holds something else.
    """
    folder = Path(folder)
    if is_complete(folder):
        return folder
    try:
        if _is_sound(folder):
            _add_missing(folder)
            return folder
        if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).is_file():
            raise StorageError(
                f"{folder}: is not a demo world and is not empty; name another folder"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
        ) as temporary:
            _copy_into(Path(temporary) / "new")
            _replace(folder, Path(temporary))
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"{folder}: cannot write the demo world ({reason}); name a folder that can be written"
        ) from error
    return folder


def is_complete(folder: Path) -> bool:
    """Whether the folder holds this version's world with every file as its record has it.

    The parquet files may differ in their bytes from those that ship: another version of pyarrow
    wrote the same rows.
    """
    return _is_sound(folder) and not _missing(folder)


def _is_sound(folder: Path) -> bool:
    """Whether a world of this version is there, whole as its record has it."""
    shipped = _record_of(DATA)
    try:
        found = _record_of(folder)
        if any(found[key] != shipped[key] for key in ("version", "seed")):
            return False
        weights = {name for name in shipped["sha256"] if name.startswith("model/")}
        weights |= {name for name in found["sha256"] if name.startswith("image_encoder/")}
        if any(found["sha256"][name] != shipped["sha256"][name] for name in weights):
            return False
        return all(_sha256(folder / name) == digest for name, digest in found["sha256"].items())
    except (OSError, Unreadable, ValueError, KeyError, TypeError, AttributeError):
        return False


def _missing(folder: Path) -> list[str]:
    """The files that ship and that the folder's record does not name."""
    held = _record_of(folder)["sha256"]
    return [name for name in _record_of(DATA)["sha256"] if name not in held]


def _add_missing(folder: Path) -> None:
    """Adds what ships and is not there, the record last; other files stay, results know them."""
    record, shipped = _record_of(folder), _record_of(DATA)["sha256"]
    missing = {name: shipped[name] for name in _missing(folder)}
    record["sha256"] |= missing
    with tempfile.TemporaryDirectory(dir=folder, prefix=".", ignore_cleanup_errors=True) as place:
        new = Path(place) / "new"
        for name in missing:
            shutil.copyfile(DATA / name, new)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new, folder / name)
        new.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(new, folder / RECORD)


def _record_of(root: Path) -> dict[str, Any]:
    return read_json_object(root / RECORD)


def _copy_into(root: Path) -> None:
    for name in (*_record_of(DATA)["sha256"], RECORD):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DATA / name, root / name)


def _replace(folder: Path, temporary: Path) -> None:
    """Puts `temporary/new` in the folder's place; of two processes at once the second one loses."""
    if is_complete(folder):
        return
    try:
        if folder.exists():
            os.replace(folder, temporary / "old")
        os.replace(temporary / "new", folder)
    except OSError:
        if not is_complete(folder):
            raise


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
