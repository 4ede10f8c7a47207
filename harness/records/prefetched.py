"""A folder that `zbench prefetch` filled: data root and cache of the hub in one.

Given as the data root, it is where all is read from: a file under it where there is one, else the
hub's copy in it, by the hub's names; no network is asked. Imports nothing heavy.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.readers.json_files import read_json_object
from harness.records.files import write_text

MANIFEST_FILE = "zbench-prefetch.json"
"""What the folder holds, at which commits, with hashes; written whole."""
HUB_FOLDER = "hub"
"""In it: a cache of the hub as huggingface_hub lays it out, without links."""
DATASETS_FOLDER = "datasets"
"""In it: what `datasets` makes of files that it has read once."""
REPOSITORY_FOLDERS = {"model": "models", "dataset": "datasets"}


def is_prefetched(folder: Path | None) -> bool:
    """Whether a folder is one that `zbench prefetch` filled."""
    return folder is not None and (folder / MANIFEST_FILE).is_file()


def use_prefetched(folder: Path | None) -> None:
    """Makes a prefetched folder the hub of this process and of those that it starts.

    Nothing happens where the folder is none. The libraries read their settings when they are
    imported: those that are imported already are told.
    """
    if folder is None or not is_prefetched(folder):
        return
    hub, built = folder / HUB_FOLDER, folder / DATASETS_FOLDER
    os.environ |= {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    _tell("huggingface_hub.constants", HF_HUB_CACHE=str(hub), HF_HUB_OFFLINE=True)
    _tell("datasets.config", HF_HUB_OFFLINE=True, HF_DATASETS_OFFLINE=True)
    if os.access(built, os.W_OK):
        os.environ["HF_DATASETS_CACHE"] = str(built)
        _tell("datasets.config", HF_DATASETS_CACHE=built)


def _tell(module: str, **settings: object) -> None:
    for name, value in settings.items() if module in sys.modules else ():
        setattr(sys.modules[module], name, value)


def repository_folder(hub: Path, kind: str, name: str) -> Path:
    """Where a cache of the hub keeps a repository (`model` or `dataset`)."""
    return hub / "--".join([REPOSITORY_FOLDERS[kind], *name.split("/")])


def cached_snapshot(hub: Path, kind: str, name: str, revision: str = "main") -> Path | None:
    """The folder of a revision in a cache of the hub; None where it is not there."""
    place = repository_folder(hub, kind, name)
    try:
        commit = (place / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = revision
    folder = place / "snapshots" / commit
    return folder if folder.is_dir() else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prefetched folder.

    Raises:
        Unreadable: it is missing or damaged.
    """
    return read_json_object(folder / MANIFEST_FILE)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    write_text(folder / MANIFEST_FILE, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
