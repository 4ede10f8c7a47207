"""Copies finished cells from one runs folder into another, each whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import StorageError, UsageError, one_line
from harness.grid import draws
from harness.grid.folders import (
    CELL_FILE,
    CHECKPOINTS_FOLDER,
    VERDICTS_LOG,
    cell_folders,
    check_writable,
    stored_label,
)
from harness.grid.locks import CellBusy, is_running, locked
from harness.grid.merging_answers import merge_answers, merge_verdicts, whole_answers
from harness.grid.upkeep import verify_files
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records import overlap, picture_files
from harness.records.event_file import EVENTS_FILE
from harness.records.files import atomic_folder, write_bytes
from harness.records.results import DAMAGED_FILE, RESULT_FILE, CellResult, read_result

NOT_COPIED = (CHECKPOINTS_FOLDER, DAMAGED_FILE, EVENTS_FILE)
"""Of a finished cell nobody needs them; nor hidden files, its lock among them."""

Kind = Literal["copied", "there", "running", "unfinished", "kept"]
"""`there`: the result is in the folder already. `kept`: another result is, or the copy is not what
was written: nothing was changed."""


@dataclass(frozen=True)
class Merged:
    """What became of a cell, or of a file beside the cells."""

    kind: Kind
    source: Path
    label: str
    text: str = ""
    """Why it was not copied, in one line."""
    size_bytes: int = 0
    """Of what was copied, or would be."""


def check_places(sources: Sequence[Path], target: Path, *, dry_run: bool) -> None:
    """Looks at the runs folders before anything is copied.

    Raises:
        UsageError: one is not there, or is the target or holds it, or that cannot be written.
    """
    for source in sources:
        if not (source / "cells").is_dir():
            raise UsageError(
                f"{source}: no runs folder (it has no cells/); name one that has cells"
            )
        if source.resolve() == target.resolve():
            raise UsageError(f"{source}: is to be copied into itself; name another folder last")
        if source.resolve() in target.resolve().parents:
            raise UsageError(
                f"{target}: lies in {source}, which is not changed; name another folder"
            )
    if not dry_run:
        check_writable(target)


def merge_cells(
    source: Path,
    target: Path,
    ids: Collection[str] | None = None,
    *,
    dry_run: bool = False,
    before: dict[str, Path] | None = None,
) -> Iterator[Merged]:
    """Copies the finished cells of a runs folder that another one lacks, one after the other.

    Args:
        source: is not changed.
        target: a result in it is never written over; a cell of it without one is replaced where
            nobody runs it. A cell that is there already is given the answers that it lacks.
        ids: of the cells to copy; None for all.
        dry_run: tell alone what would be copied.
        before: of a dry run, the cells that would be in the target by then; those of this source
            are added.

    Raises:
        StorageError: the target cannot be written; what was copied so far is whole.
    """
    before = {} if before is None else before
    there = cell_folders(target) | before
    for cell_id, folder in cell_folders(source).items():
        if ids is not None and cell_id not in ids:
            continue
        place = there.get(cell_id, target / "cells" / folder.name)
        try:
            merged = _merge_cell(cell_id, folder, place, dry_run=dry_run)
        except _Left as left:
            kind, text = left.args
            same = kind == "there" and place.resolve() != folder.resolve()
            added = merge_answers(folder, place, dry_run=dry_run) if same else 0
            label = stored_label(folder) or folder.name
            yield Merged(kind, folder, label, text, size_bytes=added)
            continue
        if dry_run:
            before[cell_id] = folder
        yield merged


class _Left(Exception):
    """A cell is not copied: its Kind, and why."""


def _merge_cell(cell_id: str, source: Path, target: Path, *, dry_run: bool) -> Merged:
    result = _finished(source, cell_id)
    begun = target.is_dir()
    if begun:
        _check_target(target, cell_id, result)
        _check_idle(target)
    files = _files(source)
    size = sum(file.stat().st_size for file in files)
    done = Merged("copied", source, stored_label(source) or source.name, size_bytes=size)
    if dry_run:
        return done
    if not begun:
        _copy(source, files, target, result)
        return done
    try:
        with locked(target):
            _check_target(target, cell_id, result)  # it may have ended since
            _copy(source, files, target, result)
    except CellBusy as busy:
        raise _Left("running", str(busy)) from busy
    return done


def _check_idle(folder: Path) -> None:
    try:
        if not is_running(folder):
            return
    except StorageError as fault:
        raise _Left("kept", f"{fault}; not copied") from fault
    raise _Left("running", f"{folder}: is running; merge again once it has ended")


def _finished(source: Path, cell_id: str) -> CellResult:
    """The result of a cell that has all that its own grid asked for."""
    _check_idle(source)
    try:
        result = read_result(source, cell_id)
    except StorageError as fault:
        raise _Left("kept", f"{fault}; not copied") from fault
    trained = result is not None and (result.train is not None or result.cell.get("train") is None)
    if result is None or not trained:
        raise _Left("unfinished", "not trained")
    try:
        asked = {str(task["name"]) for task in read_json_object(source / CELL_FILE)["tasks"]}
    except (Unreadable, KeyError, TypeError):
        asked = set() if result.error is None else {"(not known)"}
    if missing := sorted(asked - {score.benchmark for score in result.scores}):
        raise _Left("unfinished", f"no score of {', '.join(missing)}")
    return result


def _check_target(target: Path, cell_id: str, result: CellResult) -> None:
    """Leaves a cell whose result is there already, or another one."""
    try:
        known = read_result(target, cell_id)
    except StorageError as fault:
        raise _Left("kept", f"{fault}; nothing is copied over it") from fault
    if known is None or (known.train is None and not known.scores):
        return
    mine, theirs = (
        {(score.evaluation, score.task, score.metric, score.value) for score in one.scores}
        for one in (result, known)
    )
    if known.train == result.train and mine <= theirs:
        raise _Left("there", "")
    if known.train != result.train or not theirs <= mine:
        raise _Left(
            "kept",
            f"{target}: holds another result of this cell, which is kept; to have this one, move "
            "that folder away and merge again",
        )


def _files(source: Path) -> list[Path]:
    """What is copied of a cell, the result last."""
    found = [
        path
        for path in sorted(source.rglob("*"))
        if not any(
            part in NOT_COPIED or part.startswith(".") for part in path.relative_to(source).parts
        )
        and path.is_file()
    ]
    return sorted(found, key=lambda path: path == source / RESULT_FILE)


def _copy(source: Path, files: Sequence[Path], target: Path, result: CellResult) -> None:
    """Copies a cell's files, and takes the copy where all are what the result says.

    Raises:
        _Left: they are not; the target is as it was.
    """
    places = {file.relative_to(source): file for file in files}
    places |= {file.relative_to(target): file for file in whole_answers(target)}
    with atomic_folder(target, replace=True) as temporary:
        for place, file in places.items():
            copied = temporary / place
            copied.parent.mkdir(parents=True, exist_ok=True)
            try:
                content = file.open("rb")
            except OSError as fault:
                said = one_line(fault.strerror or fault)
                raise _Left("kept", f"{file}: cannot be read ({said}); not copied") from fault
            with content, copied.open("wb") as copy:
                shutil.copyfileobj(content, copy, 2**20)
        shutil.copystat(source / RESULT_FILE, temporary / RESULT_FILE)
        for finding in verify_files(temporary, result):
            place = source / finding.path.relative_to(temporary)
            raise _Left("kept", f"{place}: {finding.text.replace(str(temporary), str(source))}")
        if read_result(temporary, result.cell_id) != result:
            raise _Left("running", f"{source}: has changed meanwhile; merge again")
    (target / RESULT_FILE).chmod(0o644)  # the last change: `status` reads no file that is older


def merge_rest(source: Path, target: Path, *, dry_run: bool = False) -> Iterator[Merged]:
    """Copies what was drawn for trials, which test items training rows hold, features of pictures,
    verdicts of judges, and the embedded world, where absent.

    Raises:
        StorageError: the target cannot be written.
    """
    for world in sorted((source / "world").glob("[!.]*")):
        if not (copied := target / "world" / world.name).exists():
            if not dry_run:
                with atomic_folder(copied) as temporary:
                    shutil.copytree(world, temporary, dirs_exist_ok=True)
            size = sum(file.stat().st_size for file in world.rglob("*") if file.is_file())
            yield Merged("copied", world, world.name, size_bytes=size)
    for place in (draws.FOLDER, overlap.FOLDER):
        for file in sorted((source / place).glob("[!.]*")):
            copy = target / place / file.name
            try:
                content = file.read_bytes()
                known = copy.read_bytes() if copy.exists() else None
            except OSError as fault:
                text = f"{file}: cannot be read ({one_line(fault.strerror or fault)}); not copied"
                yield Merged("kept", file, file.name, text)
                continue
            if known not in (None, content):
                yield Merged("kept", file, file.name, f"{copy}: is another, and is kept")
            elif known is None:
                if not dry_run:
                    write_bytes(copy, content)
                yield Merged("copied", file, file.name, size_bytes=len(content))
    if size := merge_verdicts(source, target, dry_run=dry_run):
        yield Merged("copied", source / VERDICTS_LOG, VERDICTS_LOG.name, size_bytes=size)
    yield from _merge_pictures(
        source / picture_files.FOLDER, target / picture_files.FOLDER, dry_run
    )


def _merge_pictures(source: Path, target: Path, dry_run: bool) -> Iterator[Merged]:
    """Copies features of pictures that are whole, where absent: a name stands for one content."""
    for file in sorted(source.glob("[!.]*")):
        if (copy := target / file.name).exists():
            continue
        try:
            features_NF = picture_files.read_features(file)
        except (picture_files.DamagedFeatures, OSError) as fault:
            yield Merged("kept", file, file.name, f"{one_line(fault)}; not copied")
            continue
        if features_NF is not None:
            if not dry_run:
                picture_files.write_features(copy, features_NF)
            yield Merged("copied", file, file.name, size_bytes=file.stat().st_size)
