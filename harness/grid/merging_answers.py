"""What a merge adds of answers: judges' verdicts, and answers of cells that are there already."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from harness.errors import StorageError
from harness.grid.cell_files import read_table
from harness.grid.folders import RESPONSES_FOLDER, VERDICTS_LOG
from harness.readers.files import unreadable
from harness.records.files import write_bytes
from harness.records.line_files import append_lines

PIECE_BYTES = 2**20
"""That are added at a time: a judge may be adding lines meanwhile."""
Identity = tuple[str, str]
"""Of a verdict: who judged, and what was shown."""


def merge_verdicts(source: Path, target: Path, *, dry_run: bool) -> int:
    """Adds the verdicts of a runs folder that another lacks: on what the same judge has not seen
    there. Lines that hold no verdict stay behind.

    Returns:
        The bytes of the lines that are added.

    Raises:
        StorageError: a log cannot be read or written.
    """
    known = {identity for identity, _ in _verdicts(target / VERDICTS_LOG)}
    added, piece = 0, b""
    for identity, line in _verdicts(source / VERDICTS_LOG):
        if identity in known:
            continue
        known.add(identity)
        added += len(line)
        piece += line
        if len(piece) >= PIECE_BYTES and not dry_run:
            append_lines(target / VERDICTS_LOG, piece)
            piece = b""
    if piece and not dry_run:
        append_lines(target / VERDICTS_LOG, piece)
    return added


def _verdicts(path: Path) -> Iterator[tuple[Identity, bytes]]:
    """Yields the lines that hold a verdict, the last of each identity: it is what counts."""
    found: dict[Identity, bytes] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                if (identity := _identity(line)) is not None:
                    found[identity] = line if line.endswith(b"\n") else line + b"\n"
    except FileNotFoundError:
        return
    except OSError as fault:
        raise StorageError(str(unreadable(path, fault))) from fault
    yield from found.items()


def _identity(line: bytes) -> Identity | None:
    try:
        said = json.loads(line)
        judge, shown = said["judge"], said["shown"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(judge, dict) or not isinstance(shown, str):
        return None
    return json.dumps(judge, sort_keys=True), shown


def whole_answers(folder: Path) -> Iterator[Path]:
    """Yields the files of answers of a cell's folder that can be read."""
    for file in sorted((folder / RESPONSES_FOLDER).glob("[!.]*.parquet")):
        with contextlib.suppress(StorageError):  # `generate` makes a damaged one again
            read_table(file, None)
            yield file


def merge_answers(source: Path, target: Path, *, dry_run: bool) -> int:
    """Adds the answers that a cell's folder lacks, where both are of the same training.

    Returns:
        The bytes of the files that are added.

    Raises:
        StorageError: one cannot be written.
    """
    added = 0
    for file in whole_answers(source):
        if (copy := target / RESPONSES_FOLDER / file.name).exists():
            continue
        content = file.read_bytes()
        added += len(content)
        if not dry_run:
            write_bytes(copy, content)
    return added
