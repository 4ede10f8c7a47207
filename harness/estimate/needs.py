"""What a grid reads, and which of it is still to fetch: base models, data, benchmarks, access.

Only this machine is looked at: its folders and the hub's cache. The network is never asked, so
whether a repository is gated is said where it is known beforehand, and left open elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.hub import is_cached
from harness.data.spec import DataSpec, data_file, is_there
from harness.errors import DataError, ModelError
from harness.evaluation.task_data import hub_sources, local_files
from harness.evaluation.tasks import TaskSpec
from harness.grid.status import CellState
from harness.methods.zero_init.options import image_encoder_of
from harness.models.checkpoint import HUB_FILES, Located, ModelSpec, local_folder
from harness.models.image_encoder import ImageEncoderSpec, is_encoder_cached
from harness.models.weight_files import read_headers, weight_files
from harness.readers.files import Unreadable

GATED = ("meta-llama/", "google/gemma", "mistralai/Mistral-7B-v0.3", "mistralai/Mistral-Nemo")
"""Beginnings of repositories that ask for their terms to be accepted, when last looked at."""
DOWNLOAD_BYTES = 2.0
"""Size of a weight in a hub repository: half precision."""
UNDER_DATA_ROOT = "its path lies under --data-root"


@dataclass(frozen=True)
class Need:
    """One thing that a grid reads."""

    kind: str
    """model, image encoder, data or benchmark."""
    name: str
    """Its repository, or its file."""
    here: bool
    """Whether it lies on this machine."""
    bytes: float | None = None
    """To be fetched; None where nothing tells."""
    access: str | None = None
    """What has to be done before it can be had, in one line."""


def find_needs(states: Sequence[CellState], data_root: Path | None) -> list[Need]:
    """What the cells that are to do read, each thing once."""
    found: dict[tuple[str, str], Need] = {}
    for state in states:
        if state.status != "done":
            for need in _needs_of(state, data_root):
                found.setdefault((need.kind, need.name), need)
    return list(found.values())


def _needs_of(state: CellState, data_root: Path | None) -> Iterator[Need]:
    yield _model(state.cell.model, data_root)
    if (encoder := image_encoder_of(state.cell.options)) is not None:
        yield _encoder(encoder, data_root)
    if not state.trained:
        yield _data(state.cell.data, data_root)
    for task in state.missing if state.trained else state.cell.tasks:
        yield from _benchmark(task, data_root)


def _model(model: ModelSpec, data_root: Path | None) -> Need:
    folder = local_folder(model, data_root)
    if folder is not None:
        return Need("model", str(folder), folder.is_dir())
    here = local_model(model, data_root) is not None
    return _of_hub("model", model, here, DOWNLOAD_BYTES * model.shape.num_parameters)


def _encoder(encoder: ImageEncoderSpec, data_root: Path | None) -> Need:
    kind, folder = "image encoder", local_folder(encoder, data_root)
    if folder is not None:
        return Need(kind, str(folder), folder.is_dir())
    return _of_hub(kind, encoder, is_encoder_cached(encoder))


def _data(data: DataSpec, data_root: Path | None) -> Need:
    file = data_file(data, data_root)
    if file is not None:
        return Need("data", str(file), is_there(file))
    return _of_hub("data", data, data.source is not None and is_cached(data.source))


def _of_hub(kind: str, spec: Located, here: bool, size: float | None = None) -> Need:
    if spec.source is None:
        return Need(kind, str(spec.path), False, access=UNDER_DATA_ROOT)
    access = None if here else _access(spec.source)
    return Need(kind, f"{spec.source}@{spec.revision}", here, size, access)


def _benchmark(task: TaskSpec, data_root: Path | None) -> Iterator[Need]:
    try:
        sources, files = hub_sources(task, data_root), local_files(task, data_root)
    except DataError:
        yield Need("benchmark", f"{task.name} under {data_root}", False)
        return
    yield from (Need("benchmark", source, is_cached(source)) for source in sources)
    if files:
        where = f" under {data_root}" if data_root is not None and not task.files else ""
        yield Need("benchmark", f"{task.name}{where}", True)
    elif not sources:
        access = "its items are on no hub: give --data-root"
        yield Need("benchmark", task.name, False, access=access)


def local_model(model: ModelSpec, data_root: Path | None) -> Path | None:
    """The folder of a model, its own or in the hub's cache; None where it is not whole there."""
    folder = local_folder(model, data_root)
    if folder is not None or model.source is None:
        return folder
    from huggingface_hub import snapshot_download

    try:
        cached = snapshot_download(
            model.source,
            revision=model.revision,
            allow_patterns=[*HUB_FILES],
            local_files_only=True,
        )
        if read_headers(weight_files(Path(cached)))[1]:
            return None
    except (
        OSError,
        ValueError,
        ModelError,
        Unreadable,
    ):  # not there, cut off, or no name of a repository
        return None
    return Path(cached)


def _access(source: str) -> str | None:
    """What is known without the network of the rights that a repository asks for."""
    from huggingface_hub import get_token

    if not source.startswith(GATED):
        return None
    terms = f"gated: accept its terms at https://huggingface.co/{source}"
    return terms if get_token() else f"{terms}, and give a token (HF_TOKEN or `hf auth login`)"
