"""What a grid reads that is not part of zbench: repositories of the hub, and files of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.data.places import data_files, is_here
from harness.data.spec import DataSpec, data_file
from harness.data.validation import validation_set
from harness.errors import DataError, ZbenchError
from harness.evaluation.task_data import hub_sources, local_files
from harness.evaluation.tasks import TaskSpec
from harness.grid.inputs import Inputs
from harness.models.checkpoint import ModelSpec, local_folder
from harness.models.encoder_files import encoder_files
from harness.models.image_encoder import ImageEncoderSpec

IMAGE_ENCODER = "image encoder"


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, at a revision."""

    kind: str
    """model or dataset."""
    name: str
    revision: str
    used_as: str
    """model, image encoder, data or benchmark: what a grid reads it as, where it is first named."""

    @property
    def title(self) -> str:
        return f"{self.used_as} {self.name}@{self.revision}"


@dataclass(frozen=True)
class Copy:
    """A file of one's own that lies under a data root."""

    path: Path
    """Where it lies."""
    name: str
    """Its place under a data root."""


@dataclass(frozen=True)
class Wants:
    """What is to be fetched and copied for a grid, and what can be neither."""

    repositories: tuple[Repository, ...]
    copies: tuple[Copy, ...]
    faults: tuple[str, ...]


def find_wants(inputs: Inputs, data_root: Path | None) -> Wants:
    """What cells read: of their own files those under `data_root`, all else from the hub."""
    found: dict[tuple[str, str, str], Repository] = {}
    copies: dict[str, Copy] = {}
    faults: list[str] = []
    looks: list[Callable[[], Iterator[Repository | Copy]]] = []
    looks += [partial(_of_model, name, one, data_root) for name, one in inputs.models.items()]
    looks += [partial(_of_encoder, one, data_root) for one in inputs.encoders]
    looks += [partial(_of_data, one.spec, data_root) for one in inputs.data]
    looks += [partial(_of_task, task, data_root) for task in inputs.tasks]
    for look in looks:
        try:
            for want in look():
                if isinstance(want, Repository):
                    found.setdefault((want.kind, want.name, want.revision), want)
                else:
                    copies.setdefault(want.name, want)
        except ZbenchError as fault:
            faults += str(fault).splitlines()
    return Wants(tuple(found.values()), tuple(copies.values()), tuple(dict.fromkeys(faults)))


def _of_model(name: str, model: ModelSpec, data_root: Path | None) -> Iterator[Repository | Copy]:
    folder = local_folder(model, data_root)
    if model.source is not None and (folder is None or not folder.is_dir()):
        yield Repository("model", model.source, model.revision, "model")
    elif folder is None or not folder.is_dir():
        raise ZbenchError(
            f"models.{name}.path: {folder or model.path} is on no hub and not here; give its "
            "folder's place as --data-root"
        )
    else:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        yield from _under(files, data_root)


def _of_encoder(encoder: ImageEncoderSpec, data_root: Path | None) -> Iterator[Repository | Copy]:
    folder = local_folder(encoder, data_root)
    if encoder.source is not None and (folder is None or not folder.is_dir()):
        yield Repository("model", encoder.source, encoder.revision, IMAGE_ENCODER)
    elif folder is None or not folder.is_dir():
        raise ZbenchError(
            f"image_encoder.path: {folder or encoder.path} is on no hub and not here; give its "
            "folder's place as --data-root"
        )
    else:
        yield from _under(encoder_files(folder, pretrained=encoder.pretrained), data_root)


def _of_data(data: DataSpec, data_root: Path | None) -> Iterator[Repository | Copy]:
    sets = [data]
    if data.validation is not None and data.validation.fraction is None:
        sets.append(validation_set(data))
    for one in sets:
        if is_here(one, data_root):
            yield from _under(data_files(one, data_root), data_root)
        elif one.source is not None:
            yield Repository("dataset", one.source, one.revision, "data")
        else:
            place = data_file(one, data_root) or one.path
            raise ZbenchError(
                f"data.path: {place} is on no hub and not here; give its folder's place as "
                "--data-root"
            )


def _of_task(task: TaskSpec, data_root: Path | None) -> Iterator[Repository | Copy]:
    try:
        sources, files = hub_sources(task, data_root), [*local_files(task, data_root).values()]
    except DataError:  # a split is not under the data root: of the hub, all of them are the same
        if not task.benchmark.hub or task.files:
            raise
        sources, files = [task.benchmark.hub[0]], []
    for source in sources:
        yield Repository("dataset", source, "main", "benchmark")
    yield from _under(files, data_root)
    for member in task.benchmark.members:
        if not sources and not files and not member.files:
            why = member.needs_files or "its items are on no hub"
            raise ZbenchError(f"{member.name}: {why}")


def _under(files: Iterable[Path], root: Path | None) -> Iterator[Copy]:
    """The files that lie under the data root; those beside the grid go with the grid."""
    for path in files:
        if root is not None and path.absolute().is_relative_to(root.absolute()):
            yield Copy(path, path.absolute().relative_to(root.absolute()).as_posix())
