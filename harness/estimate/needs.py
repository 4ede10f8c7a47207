"""What a grid needs before it can run: base models and data still to fetch, access, disk.

Only this machine is looked at: its folders and the hub's cache. The network is never asked, so
whether a repository is gated is said where it is known of old, and left open elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError
from harness.estimate.memory import checkpoint_bytes, download_bytes, kept_bytes
from harness.estimate.tokens import scoring_tokens
from harness.evaluation.tasks import local_files
from harness.grid.schema import Cell
from harness.grid.status import CellState
from harness.models.checkpoint import local_folder

GATED = ("meta-llama/", "google/gemma", "mistralai/Mistral-7B-v0.3", "mistralai/Mistral-Nemo")
"""Beginnings of repositories that ask for their terms to be accepted, when last looked at."""


@dataclass(frozen=True)
class Need:
    """One thing that a grid reads."""

    kind: str
    """model, data or benchmark."""
    name: str
    """Its repository, or its file."""
    here: bool
    """Whether it lies on this machine."""
    bytes: float | None
    """To be fetched; None where nothing tells."""
    access: str | None = None
    """What has to be done before it can be had, in one line."""


@dataclass(frozen=True)
class DiskNeeds:
    """Bytes on the disk of the runs folder, and of the hub's cache."""

    results: float
    """Trained tensors and items of the cells that are to do; they stay."""
    checkpoints: float
    """While cells train, at most; removed at the end of each."""
    downloads: float
    """Base models into the hub's cache."""
    free: float
    """On the disk of the runs folder, now."""

    @property
    def suffices(self) -> bool:
        """Whether what is free is enough for all of it."""
        return self.results + self.checkpoints + self.downloads <= self.free


def find_needs(states: Sequence[CellState], data_root: Path | None) -> list[Need]:
    """Returns what the cells that are to do read, each thing once."""
    found: dict[tuple[str, str], Need] = {}
    for state in states:
        if state.status == "done":
            continue
        own = [_model(state.cell, data_root)]
        if state.cell.train is not None and not state.trained:
            own.append(_data(state.cell, data_root))
        own += _benchmarks(state, data_root)
        for need in own:
            found.setdefault((need.kind, need.name), need)
    return list(found.values())


def disk_needs(
    states: Sequence[CellState], needs: Sequence[Need], runs_dir: Path, num_devices: int = 1
) -> DiskNeeds:
    """Returns what the cells that are to do take on disk.

    Args:
        states: the grid's cells.
        needs: of `find_needs`.
        runs_dir: where results go; it need not be there.
        num_devices: cells that train at once.
    """
    work = [state for state in states if state.status != "done"]
    results = 0.0
    for state in work:
        counts = [scoring_tokens([task], state.cell.model.shape) for task in state.missing]
        items = sum(count.items for count in counts if count is not None)
        results += kept_bytes(state.cell, items)
    untrained = sorted((checkpoint_bytes(s.cell) for s in work if not s.trained), reverse=True)
    at_once = max(1, num_devices // max((s.cell.gpus_per_cell for s in work), default=1))
    place = runs_dir
    while not place.is_dir() and place != place.parent:
        place = place.parent if place.parent != Path() else Path.cwd()
    return DiskNeeds(
        results=results,
        checkpoints=sum(untrained[:at_once]),
        downloads=sum(n.bytes or 0.0 for n in needs if not n.here),
        free=float(shutil.disk_usage(place).free),
    )


def _model(cell: Cell, data_root: Path | None) -> Need:
    folder = local_folder(cell.model, data_root)
    if folder is not None:
        return Need("model", str(folder), folder.is_dir(), None)
    if cell.model.source is None:
        return Need("model", str(cell.model.path), False, None, "its path lies under --data-root")
    here = model_cache(cell.model.source, cell.model.revision) is not None
    return Need(
        "model",
        f"{cell.model.source}@{cell.model.revision}",
        here,
        download_bytes(cell),
        None if here else _access(cell.model.source),
    )


def _data(cell: Cell, data_root: Path | None) -> Need:
    data = cell.data
    if data.path is not None and (data_root is not None or Path(data.path).is_absolute()):
        file = Path(data.path) if data_root is None else data_root / data.path
        return Need("data", str(file), file.is_file(), None)
    if data.source is None:
        return Need("data", str(data.path), False, None, "its path lies under --data-root")
    here = in_cache(data.source, "dataset")
    return Need(
        "data", f"{data.source}@{data.revision}", here, None, None if here else _access(data.source)
    )


def _benchmarks(state: CellState, data_root: Path | None) -> list[Need]:
    found = []
    for task in state.missing if state.trained else state.cell.tasks:
        hub = task.benchmark.hub
        if data_root is not None:
            try:
                here = bool(local_files(task, data_root))
            except DataError:
                here = False
            found.append(Need("benchmark", f"{task.name} under {data_root}", here, None))
        elif hub is None:
            access = "its items are on no hub: give --data-root"
            found.append(Need("benchmark", task.name, False, None, access))
        else:
            found.append(Need("benchmark", hub[0], in_cache(hub[0], "dataset"), None))
    return found


def model_cache(source: str, revision: str) -> Path | None:
    """Returns the folder of a model in the hub's cache, or None where it is not whole there."""
    from huggingface_hub import snapshot_download

    from harness.errors import ModelError
    from harness.models.checkpoint import weight_files

    try:
        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
        weight_files(folder)
    except (OSError, ValueError, ModelError):  # not there, cut off, or no name of a repository
        return None
    return folder


def in_cache(source: str, kind: str) -> bool:
    """Returns whether the hub's cache holds something of a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source, repo_type=kind)
    return any((cache / "snapshots").glob("*/*")) if cache.is_dir() else False


def _access(source: str) -> str | None:
    """Returns what is known without the network of the rights that a repository asks for."""
    from huggingface_hub import get_token

    if not source.startswith(GATED):
        return None
    terms = f"gated: accept its terms at https://huggingface.co/{source}"
    return terms if get_token() else f"{terms}, and give a token (HF_TOKEN or `hf auth login`)"
