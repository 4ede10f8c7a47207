"""Pictures as files hold them: what is checked of one before anything is trained."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import struct
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import ZbenchError, plain_message

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_PIXELS = 100_000_000
"""Of a picture; a larger one is no picture of a data set, but a bomb or a mistake."""


NO_COLOURS = ("I", "F")
"""Pillow's modes of pixels that are numbers without a known range."""


class BadPicture(ZbenchError):
    """Bytes that are no picture; the message says why, for the place of the row before it."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture (PNG, JPEG, ...), known by its content."""

    sha256: str
    """Of its bytes: two rows with the same bytes have the same picture."""
    data: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, data: bytes) -> Picture:
        """The picture that bytes hold; they are not decoded, see `check`."""
        return cls(hashlib.sha256(data).hexdigest(), data)

    def check(self) -> tuple[int, int]:
        """Its width and height in pixels, from its header.

        The pixels are not decoded, but a PNG's checksums are looked at, and a JPEG without an end
        is decoded: both tell what was cut off.

        Raises:
            BadPicture: it is empty, of no known format, cut off, huge, or of numbers that are no
                colours.
        """
        from PIL import Image

        if not self.data:
            raise BadPicture("the picture has zero bytes")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(self.data)) as image:
                    (width, height), mode = image.size, image.mode
                    if width * height <= LARGEST_PIXELS:
                        self._check_end(image)
        except Image.DecompressionBombError as fault:
            raise BadPicture(f"the picture is huge ({plain_message(fault)})") from fault
        except Exception as fault:  # of Pillow's many decoders
            said = re.sub(r" <?_io\..*", "", plain_message(fault))  # where Pillow found it
            raise BadPicture(f"its bytes are no picture, or its end is missing ({said})") from fault
        if width * height > LARGEST_PIXELS:
            raise BadPicture(
                f"the picture is huge ({width} x {height} pixels); at most "
                f"{LARGEST_PIXELS:,} pixels are taken"
            )
        if mode in NO_COLOURS:
            raise BadPicture(
                f"the picture's pixels are numbers of 32 bits (Pillow's mode {mode}), no colours; "
                "save it with 8 bits"
            )
        return width, height

    def _check_end(self, image: Image) -> None:
        if image.format == "PNG":
            image.verify()
        elif image.format == "JPEG" and b"\xff\xd9" not in self.data[-1024:]:
            image.load()

    def decode(self) -> Image:
        """Its pixels, as RGB, upright as its EXIF says, which `datasets` heeds too.

        Of an animation it is the first frame; transparency is left out; of 16 bits the upper 8 are
        taken, where Pillow would make white of nearly all.

        Raises:
            BadPicture: it is cut off or broken.
        """
        from PIL import Image

        self.check()
        try:
            with Image.open(io.BytesIO(self.data)) as image:
                return as_rgb(image)
        except Exception as fault:  # of Pillow's many decoders
            raise BadPicture(f"the picture is broken ({plain_message(fault)})") from fault


def as_rgb(image: Image) -> Image:
    """A picture of Pillow's as `Picture.decode` gives it."""
    import numpy as np
    from PIL import Image, ImageOps

    if image.mode.startswith("I;16"):
        upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        plain = Image.fromarray(upper)
        if exif := image.info.get("exif"):
            plain.info["exif"] = exif
        image = plain
    with contextlib.suppress(SyntaxError, ValueError, struct.error):  # EXIF that is none
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB")
