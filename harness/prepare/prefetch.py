"""Fills a folder with all that a grid reads, so that it runs where there is no network.

First all is asked (`plan_prefetch`), then fetched (`fetch_all`), then loaded without network, as a
run would load it (`check_loads`).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import __version__
from harness.data.pins import training_note
from harness.data.sets import read_instructions
from harness.errors import StorageError, UsageError, ZbenchError
from harness.evaluation.tasks import lm_eval_version
from harness.grid.inputs import Inputs
from harness.models.checkpoint import check_checkpoint, find_checkpoint
from harness.models.image_encoder import check_encoder
from harness.prepare.fetch import PARTS_FOLDER, fetch_file, is_whole, place_of_file, write_revision
from harness.prepare.listing import HubFault, HubFile, Listing, list_repository
from harness.prepare.wants import Copy, Repository, Wants
from harness.readers.files import Unreadable
from harness.records.files import atomic_file, fresh_sha256_of_file, unwritable
from harness.records.prefetched import (
    DATASETS_FOLDER,
    is_prefetched,
    read_manifest,
    use_prefetched,
    write_manifest,
)

ASKED_AT_ONCE, FETCHED_AT_ONCE = 8, 4


@dataclass(frozen=True)
class PrefetchPlan:
    """What is to be fetched, known before anything is."""

    listings: tuple[Listing, ...]
    copies: tuple[Copy, ...]
    faults: tuple[str, ...]
    """What cannot be had, one line each."""
    missing: Mapping[str, int | None]
    """By repository or file of one's own: bytes that are still to come; None where a size is not
    known."""
    free: float
    """Bytes on the folder's disk."""

    @property
    def bytes(self) -> int | None:
        """To be fetched and copied in all; None where one is not known."""
        sizes = self.missing.values()
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def disk_bytes(self) -> int:
        """What it takes on disk, as far as it is known: `datasets` builds its own form of data."""
        data = [found for found in self.listings if found.repository.kind == "dataset"]
        built = sum(self.missing[found.repository.title] or 0 for found in data)
        known = [size or 0 for size in self.missing.values()]
        return sum(known) + built


def manifest_of(folder: Path) -> dict[str, Any]:
    """What a folder's manifest says; that of an empty folder where there is none.

    Raises:
        StorageError: it is damaged.
    """
    empty: dict[str, Any] = {"repositories": {}, "copies": {}}
    if not is_prefetched(folder):
        return empty
    try:
        return empty | read_manifest(folder)
    except Unreadable as fault:
        raise StorageError(f"{fault}; remove it: what is whole is not fetched again") from fault


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps a second prefetch out of a folder; where its disk has no locks, none is kept out.

    Raises:
        UsageError: another one fills the folder.
        StorageError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    parts = folder / PARTS_FOLDER
    lock = FileLock(parts / ".lock", timeout=0)
    try:
        parts.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as fault:
        raise UsageError(f"{folder}: another prefetch fills it; wait for its end") from fault
    except NotImplementedError:
        pass
    except OSError as fault:
        raise unwritable(folder, fault) from fault
    try:
        yield
    finally:
        lock.release()


def plan_prefetch(wants: Wants, folder: Path, *, update: bool) -> PrefetchPlan:
    """Asks the hub for all repositories at once. Commits that are in the manifest are kept, unless
    `update`.

    Raises:
        StorageError: the folder's manifest is damaged.
    """
    known = manifest_of(folder)["repositories"]

    def ask(repository: Repository) -> Listing | str:
        commit = None if update else known.get(repository.title, {}).get("commit")
        try:
            return list_repository(repository, commit)
        except ZbenchError as fault:
            return str(fault)

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        answers = list(pool.map(ask, wants.repositories))
    listings = tuple(one for one in answers if isinstance(one, Listing))
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    return PrefetchPlan(
        listings,
        wants.copies,
        (*wants.faults, *(one for one in answers if isinstance(one, str))),
        {found.repository.title: _missing(folder, found) for found in listings}
        | {copy.name: _uncopied(folder, copy) for copy in wants.copies},
        float(shutil.disk_usage(place).free),
    )


def _missing(folder: Path, found: Listing) -> int | None:
    """Bytes of the files that are not there in full size."""
    left = 0
    for file in found.files:
        if file.size is None:
            return None
        with contextlib.suppress(OSError, HubFault):
            if place_of_file(folder, found, file).stat().st_size == file.size:
                continue
        left += file.size
    return left


def _uncopied(folder: Path, copy: Copy) -> int:
    """Bytes of a file of one's own that is not there in full size."""
    size = copy.path.stat().st_size
    with contextlib.suppress(OSError):
        if (folder / copy.name).stat().st_size == size:
            return 0
    return size


@dataclass(frozen=True)
class Told:
    """Who is told how far it is."""

    came: Callable[[int], None]
    """Bytes that came."""
    whole: Callable[[str, int], None]
    """A repository or file that is whole, and its bytes."""


def fetch_all(plan: PrefetchPlan, folder: Path, told: Told, grid: str) -> list[str]:
    """Fetches and copies what is missing; what fails is told, a line each, and the rest fetched.

    Raises:
        StorageError: the folder cannot be written.
    """
    manifest = manifest_of(folder)
    manifest |= {"zbench": __version__, "lm_eval": lm_eval_version()}
    manifest["grids"] = sorted({*manifest.get("grids", ()), grid})
    entries = manifest["repositories"]
    for found in plan.listings:
        entries[found.repository.title] = _entry(found, complete=False)
    try:
        (folder / DATASETS_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise unwritable(folder, fault) from fault
    write_manifest(folder, manifest)
    faults: list[str] = []
    for copy in plan.copies:
        try:
            manifest["copies"][copy.name] = _copy(copy, folder)
            told.whole(copy.name, copy.path.stat().st_size)
        except (OSError, ZbenchError) as fault:
            faults.append(f"{copy.name}: cannot be copied ({fault})")
        write_manifest(folder, manifest)
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        for found in plan.listings:
            wrong = [*filter(None, pool.map(_fetching(folder, found, told), found.files))]
            faults += wrong
            if not wrong:
                write_revision(folder, found)
                entries[found.repository.title] = _entry(found, complete=True)
                told.whole(found.repository.title, found.size or 0)
            write_manifest(folder, manifest)
    return faults


def _fetching(folder: Path, found: Listing, told: Told) -> Callable[[HubFile], str | None]:
    def fetch(file: HubFile) -> str | None:
        try:
            if not is_whole(place_of_file(folder, found, file), file):
                fetch_file(folder, found, file, told.came)
        except ZbenchError as fault:
            return str(fault)
        return None

    return fetch


def _entry(found: Listing, *, complete: bool) -> dict[str, Any]:
    """What the manifest says of a repository."""
    repository = found.repository
    return {
        "kind": repository.kind,
        "name": repository.name,
        "revision": repository.revision,
        "commit": found.commit,
        "licence": found.licence,
        "gate": found.gate,
        "complete": complete,
        "files": {
            file.name: {"bytes": file.size, "sha256": file.sha256}
            if file.sha256 is not None
            else {"bytes": file.size, "git": file.blob}
            for file in found.files
        },
    }


def _copy(copy: Copy, folder: Path) -> str:
    """Copies a file of one's own into the folder; returns its SHA-256."""
    place, content = folder / copy.name, fresh_sha256_of_file(copy.path)
    if place.is_file() and fresh_sha256_of_file(place) == content:
        return content
    with atomic_file(place) as temporary:
        shutil.copyfile(copy.path, temporary)
        if fresh_sha256_of_file(temporary) != content:
            raise StorageError(f"{place}: differs from {copy.path} once it is copied")
    return content


def check_loads(
    inputs: Inputs, folder: Path, *, without: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Loads what a run would, from the folder alone; yields (`fault` or `warning`, line).

    Data are read whole and their content compared with the pinned versions. What `datasets` builds
    stays in the folder, so that no job has to. The process has no hub but the folder from then on.

    Args:
        without: names of repositories that were not fetched; what reads them is left out.
    """
    use_prefetched(folder)
    for name, model in inputs.models.items():
        if model.source not in without:
            try:
                notes = check_checkpoint(model, find_checkpoint(model, folder), before_run=True)
                yield from (("warning", f"{name}: {note}") for note in notes)
            except ZbenchError as fault:
                yield from (("fault", line) for line in str(fault).splitlines())
    for encoder in inputs.encoders:
        if encoder.source not in without:
            try:
                check_encoder(encoder, folder)
            except ZbenchError as fault:
                yield "fault", str(fault)
    for data in inputs.data:
        if data.spec.source not in without:
            try:
                identity = read_instructions(data.spec, data_root=folder).identity
                note = training_note(data.spec.published, identity["sha256"])
                yield from [("warning", note)] if note else []
            except ZbenchError as fault:
                yield "fault", str(fault)
    if not inputs.tasks:
        return
    from harness.evaluation.loading import load_benchmark
    from harness.evaluation.task_data import hub_sources

    for task in inputs.tasks:
        try:
            if {*hub_sources(task, folder)} & {*without}:
                continue
            found = load_benchmark(task, folder)
            yield from (("warning", f"{task.name}: {one}") for one in found.mismatches)
        except ZbenchError as fault:
            yield "fault", str(fault)
