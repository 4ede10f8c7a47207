"""Pinned data versions: what numbers are compared on, and how local data are told from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError
from harness.records.files import known_sha256_of_file

if TYPE_CHECKING:
    import pyarrow


MISMATCH = "data differs from the pinned version"
"""How the note of a score begins whose items are not those that are pinned."""


@dataclass(frozen=True)
class Pin:
    """The version of one split of a data set that numbers are compared on."""

    file: str
    """Its place under a data root."""
    source: str
    """The hub's repository and what of it, such as `allenai/ai2_arc ARC-Easy test`."""
    columns: tuple[str, ...]
    rows: int
    file_sha256: str
    """SHA-256 of one parquet file with this content, which need not be read then."""
    content_sha256: str


@dataclass(frozen=True)
class Content:
    """What a split holds."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Mismatch:
    """A split that is not the pinned one."""

    place: str
    """The local file, or the hub's repository."""
    found: Content
    pin: Pin

    @property
    def note(self) -> str:
        """What stands beside every score made with it."""
        return f"{MISMATCH} ({self.pin.file}: {self.found.sha256[:12]})"

    def __str__(self) -> str:
        pin = self.pin
        return (
            f"{self.place}: {self.found.rows} rows of content {self.found.sha256[:12]}, not the "
            f"pinned version of {pin.source} ({pin.rows} rows, {pin.content_sha256[:12]})"
        )


@cache
def pins() -> Mapping[str, Pin]:
    """The pinned splits by their file under a data root."""
    import yaml

    text = files("harness.data").joinpath("pins.yaml").read_text(encoding="utf-8")
    return {
        name: Pin(file=name, **(entry | {"columns": tuple(entry["columns"])}))
        for name, entry in yaml.safe_load(text).items()
    }


def content_sha256(rows: Iterable[Sequence[Any]]) -> str:
    """The SHA-256 of rows in order.

    It is taken over one line per row: the JSON list of its values, UTF-8, without blanks, the keys
    of mappings sorted, with a line break.
    """
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def training_mismatch(source: str | None, path: Path) -> Mismatch | None:
    """How a local parquet file of instructions differs from the pinned version of its source.

    `source` is the hub's repository that it is said to be a copy of; None for data of one's own.

    Raises:
        DataError: it is no parquet, or lacks a column.
    """
    pin = _training_pin(source)
    if pin is None or known_sha256_of_file(path) == pin.file_sha256:
        return None
    rows = read_columns(path, pin.columns).to_pylist()
    content = Content(len(rows), content_sha256([row[k] for k in pin.columns] for row in rows))
    return None if content.sha256 == pin.content_sha256 else Mismatch(str(path), content, pin)


def training_note(source: str | None, sha256: str | None) -> str | None:
    """What stands beside the scores of a cell whose training rows are not the pinned ones.

    Args:
        source: the hub's repository that the rows are said to be; None for data of one's own.
        sha256: of the content of all rows; None where it was not recorded.
    """
    pin = _training_pin(source)
    if pin is None or sha256 in (None, pin.content_sha256):
        return None
    return f"training {MISMATCH} of {pin.source} ({str(sha256)[:12]})"


def _training_pin(source: str | None) -> Pin | None:
    return next((pin for pin in pins().values() if source and pin.source == source), None)


def read_columns(path: Path, columns: Sequence[str]) -> pyarrow.Table:
    """Columns of a parquet file.

    Raises:
        DataError: it is missing, is no parquet, or lacks a column.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path, columns=list(columns)).select(list(columns))
    except (pyarrow.ArrowException, OSError, KeyError) as fault:
        reason = " ".join(str(fault).split())[:120]
        raise DataError(
            f"{path}: cannot be read with the columns {', '.join(columns)} ({reason}); copy the "
            "file again"
        ) from fault


def _columns_in(path: Path) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError):
        return []  # reading it tells why
