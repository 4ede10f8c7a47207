"""Materialises the embedded world as a data root: the same files as the real benchmarks'.

`write_world(folder)` is all that the rest of the package needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from harness.demo.instructions import build_instructions
from harness.demo.items import build_items
from harness.demo.people import SEED, World, build_world
from harness.errors import StorageError

VERSION = 1
"""Raised whenever a file of the world changes."""
CHECKPOINT = Path(__file__).parent / "checkpoint"
TASKS = Path(__file__).parent / "tasks"
CHECKPOINT_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_RECORD = "world.json"


def write_world(folder: Path) -> Path:
    """Writes the data root of the embedded world, unless it is there already.

    The root holds `alpaca/train`, `arc_easy/test`, `arc_challenge/test`, `mmlu/{test,dev}`,
    `hellaswag/{validation,train}` and `truthfulqa_mc/validation` as parquet; `validation/`, a
    data root of its own with other people and herbs, for choosing learning rates; `model/`, the
    checkpoint; and `world.json` with the seed, the version and the sha256 of each file.

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
        if folder.exists() and any(folder.iterdir()) and not (folder / _RECORD).is_file():
            raise StorageError(
                f"{folder}: is not a demo world and is not empty; name another folder"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        aside.chmod(0o755)
        try:
            _write_all(aside)
            _put_in_place(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"{folder}: cannot write the demo world ({reason}); name a folder that can be written"
        ) from error
    return folder


def is_complete(folder: Path) -> bool:
    """Returns whether the folder holds this version's world with every file as recorded."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if (record["version"], record["seed"]) != (VERSION, SEED):
            return False
        digests = dict(record["sha256"])
        shipped = {f"model/{name}": _sha256(CHECKPOINT / name) for name in CHECKPOINT_FILES}
        if not shipped.items() <= digests.items():
            return False
        return all(_sha256(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def build_tables(world: World) -> dict[str, list[dict[str, Any]]]:
    """Returns file stem relative to the data root -> rows, for every parquet of the world."""
    tables = {"alpaca/train": build_instructions(world), **build_items(world, "benchmark")}
    held_out = build_items(world, "validation")
    return tables | {f"validation/{stem}": rows for stem, rows in held_out.items()}


def _write_all(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    for stem, rows in build_tables(build_world(SEED)).items():
        path = folder / f"{stem}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="zstd")
    (folder / "model").mkdir()
    for name in CHECKPOINT_FILES:
        shutil.copyfile(CHECKPOINT / name, folder / "model" / name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    record = {
        "seed": SEED,
        "version": VERSION,
        "sha256": {path.relative_to(folder).as_posix(): _sha256(path) for path in files},
    }
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _put_in_place(aside: Path, folder: Path) -> None:
    """Renames the finished folder; of two processes that do it at once the second one loses."""
    if is_complete(folder):
        return
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        os.replace(folder, old / "world")
        shutil.rmtree(old, ignore_errors=True)
    try:
        os.replace(aside, folder)
    except OSError:
        if not is_complete(folder):
            raise


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def world_folder(runs_dir: Path) -> Path:
    """Returns where the embedded world of this version lies once it is written."""

    return (runs_dir / "world" / f"demo-{VERSION}").resolve()
