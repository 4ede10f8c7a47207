"""A row's picture, as files hold it: bytes, `{bytes, path}` as `datasets` writes, or a path."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from harness.data.conversations import BadRow, is_given
from harness.errors import ZbenchError, one_line
from harness.readers.files import read_bytes
from harness.readers.pictures import BadPicture, Picture

COLUMN = "image"
ALSO = "images"
"""Column of a list of pictures, of which a row may have one."""
LARGEST_BYTES = 64 * 2**20
"""Of a picture's file."""


@dataclass
class PictureReader:
    """Makes pictures of what rows hold; equal ones are one object, checked once.

    Args:
        folder: what paths are relative to; None of rows of the hub, which hold bytes.
    """

    folder: Path | None = None
    _known: WeakValueDictionary[str, Picture] = field(default_factory=WeakValueDictionary)

    def picture(self, value: Any, name: str) -> Picture | None:
        """The picture of a cell of the column `name`; None where it holds none.

        Raises:
            BadRow: it is broken, huge, several, or a file that is not there.
        """
        if isinstance(value, list | tuple):
            value = [one for one in value if is_given(one)]
            if len(value) > 1:
                raise BadRow(f"{name} holds {len(value)} pictures; a row may have one")
            value = value[0] if value else None
        if isinstance(value, Mapping):
            data = value.get("bytes")
            value = value.get("path") if data is None else data
        if value is None or value == "" or value != value:
            return None
        found = Picture.of(value if isinstance(value, bytes) else self._read(value, name))
        if (known := self._known.get(found.sha256)) is not None:
            return known
        try:
            found.check()
        except BadPicture as fault:
            raise BadRow(f"{name}: {fault}") from fault
        self._known[found.sha256] = found
        return found

    def _read(self, value: Any, name: str) -> bytes:
        """The bytes that a text stands for: a file's, or those of a `data:` address."""
        if not isinstance(value, str):
            raise BadRow(f"{name} is no picture ({one_line(value)[:40]})")
        if value.startswith("data:"):
            try:
                return base64.b64decode(value.partition(",")[2], validate=True)
            except binascii.Error as fault:
                raise BadRow(f"{name} is no picture in base64") from fault
        if "://" in value[:12]:
            raise BadRow(f"{name} is an address ({one_line(value)[:60]}); pictures are not fetched")
        if self.folder is None:
            raise BadRow(f"{name} names a file ({one_line(value)[:60]}), and holds no bytes")
        try:
            return read_bytes(self.folder / value, max_bytes=LARGEST_BYTES)
        except (ZbenchError, ValueError) as fault:  # ValueError: a null byte in the name
            raise BadRow(f"{name}: {one_line(fault)}") from fault
