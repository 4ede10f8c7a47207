"""The events of a cell in its folder, one JSON line each, for whoever follows it from elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, get_args

from harness.records.events import CellEnded, CellStarted, Event

EVENTS_FILE = "events.jsonl"
TAIL_BYTES = 32 * 1024
"""Of the end of an event file: a hundred steps, say."""
KINDS = {kind.__name__: kind for kind in get_args(Event)}


class EventFiles:
    """Writes the events of cells into their folders.

    A file begins anew, under another inode, with the first `CellStarted` that is written here: its
    cell is locked by then, and no other process writes it. A full disk costs lines, not the cell.

    Args:
        folders: of the cells, by id.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = folders
        self._open: dict[str, IO[str]] = {}

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._open.values():
            with contextlib.suppress(OSError):
                file.close()

    def write(self, event: Event) -> None:
        """Appends an event; one of a cell that was not started here is left out."""
        with contextlib.suppress(OSError):
            if isinstance(event, CellStarted) and event.cell_id not in self._open:
                self._open[event.cell_id] = self._begin(self.folders[event.cell_id])
            if (file := self._open.get(event.cell_id)) is None:
                return
            file.write(json.dumps({"kind": type(event).__name__, **dataclasses.asdict(event)}))
            file.write("\n")
            file.flush()
            if isinstance(event, CellEnded):
                self._open.pop(event.cell_id).close()

    @staticmethod
    def _begin(folder: Path) -> IO[str]:
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f".{EVENTS_FILE}.{os.getpid()}"
        file = new.open("w", encoding="utf-8")
        new.replace(folder / EVENTS_FILE)
        return file


class EventReader:
    """Reads what is new in a cell's event file, also while it is written or begins anew."""

    def __init__(self, folder: Path, *, from_end: bool = False) -> None:
        self.path = folder / EVENTS_FILE
        self._file: tuple[int, int] | None = None  # device and inode
        self._offset = 0
        if from_end:
            with contextlib.suppress(OSError):
                found = self.path.stat()
                self._file, self._offset = (found.st_dev, found.st_ino), found.st_size

    def new_events(self) -> Iterator[Event]:
        """Yields the whole lines since the last call; what cannot be read is left out."""
        try:
            file = self.path.open("rb")
        except OSError:
            return
        with file, contextlib.suppress(OSError):
            found = os.fstat(file.fileno())
            if self._file != (found.st_dev, found.st_ino) or found.st_size < self._offset:
                self._file, self._offset = (found.st_dev, found.st_ino), 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                if (event := event_of(line)) is not None:
                    yield event


def last_events(folder: Path, num_bytes: int = TAIL_BYTES) -> list[Event]:
    """The first event of a cell's file and the last ones; the file is not read whole."""
    try:
        with (folder / EVENTS_FILE).open("rb") as file:
            lines = [file.readline(num_bytes)]
            start = max(file.tell(), os.fstat(file.fileno()).st_size - num_bytes)
            if start > file.tell():
                file.seek(start - 1)
                file.readline()  # the rest of a line that is cut
            lines += file.read(num_bytes).splitlines(keepends=True)
    except OSError:
        return []
    found = [event_of(line) for line in lines if line.endswith(b"\n")]
    return [event for event in found if event is not None]


def event_of(line: bytes | str) -> Event | None:
    """The event of a line; None where it is none, of a later version perhaps."""
    try:
        raw: dict[str, Any] = json.loads(line)
        event: Event = KINDS[raw.pop("kind")](**raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return event
