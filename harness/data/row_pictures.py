"""A row's picture, as files hold it: bytes, `{bytes, path}` as `datasets` writes, or base64.

A path alone is refused: a cell's id knows its data by the bytes of the data's file, and would not
know a picture that lies beside it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from harness.data.conversations import BadRow, is_given
from harness.errors import one_line
from harness.readers.pictures import BadPicture, Picture

COLUMN = "image"
ALSO = "images"
"""Column of a list of pictures, of which a row may have one."""


@dataclass
class PictureReader:
    """Makes pictures of what rows hold; equal ones are one object, checked once."""

    _known: WeakValueDictionary[str, Picture] = field(default_factory=WeakValueDictionary)

    def picture(self, value: Any, name: str) -> Picture | None:
        """The picture of a cell of the column `name`; None where it holds none.

        Raises:
            BadRow: it is broken, huge, several, or not in the data's file.
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
        found = Picture.of(value if isinstance(value, bytes) else _decoded(value, name))
        if (known := self._known.get(found.sha256)) is not None:
            return known
        try:
            found.check()
        except BadPicture as fault:
            raise BadRow(f"{name}: {fault}") from fault
        self._known[found.sha256] = found
        return found


def _decoded(value: Any, name: str) -> bytes:
    """The bytes of a `data:` address."""
    if not isinstance(value, str):
        raise BadRow(f"{name} is no picture ({one_line(value)[:40]})")
    if not value.startswith("data:"):
        raise BadRow(
            f"{name} names a picture that the data do not hold ({one_line(value)[:60]}); put its "
            "bytes into a parquet file"
        )
    try:
        return base64.b64decode(value.partition(",")[2], validate=True)
    except binascii.Error as fault:
        raise BadRow(f"{name} is no picture in base64") from fault
