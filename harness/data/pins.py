"""Pinned data versions: what numbers are compared on, and how local data are told from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

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
    of mappings sorted, with a line break. Of bytes it has their own SHA-256. Rows that are tuples
    hold texts alone.
    """
    digest, last, line = hashlib.sha256(), None, b""
    for row in rows:
        if not (isinstance(row, tuple) and row == last):  # it may stand millions of times
            text = json.dumps(
                row, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=_of_bytes
            )
            last, line = row, text.encode() + b"\n"
        digest.update(line)
    return digest.hexdigest()


def _of_bytes(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is no plain value")
    return hashlib.sha256(value).hexdigest()


def training_note(source: str | None, sha256: str | None) -> str | None:
    """What stands beside the scores of a cell whose training rows are not the pinned ones.

    Args:
        source: the hub's repository that the rows are said to be; None for data of one's own.
        sha256: of the content of all rows; None where it was not recorded.
    """
    pin = training_pin(source)
    if pin is None or sha256 in (None, pin.content_sha256):
        return None
    return f"training {MISMATCH} of {pin.source} ({str(sha256)[:12]})"


def training_pin(source: str | None) -> Pin | None:
    """The published version of a hub's instructions; None of any other, and of one's own."""
    return next((pin for pin in pins().values() if source and pin.source == source), None)
