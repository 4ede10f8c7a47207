"""Pictures: the pixels of odd files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.evaluation.pictures import as_picture
from harness.methods.zero_init.pictures import _picture
from harness.readers.pictures import BadPicture, Picture

ORIENTATION = 0x0112


def encoded(image: Image.Image, form: str = "PNG", **settings: Any) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return Picture.of(buffer.getvalue())


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_photo_is_upright_however_it_is_given(form: str) -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # its left is to be seen on top
    stored = encoded(image, form, exif=exif)
    upright = stored.decode()
    assert upright.size == (20, 40)
    top, bottom = (np.asarray(upright)[row, 10] for row in (5, 35))
    assert top[2] > 200 > 60 > top[0]
    assert bottom[0] > 200 > 60 > bottom[2]
    opened = Image.open(io.BytesIO(stored.data))
    for given in (_picture(opened, "here"), as_picture(opened, "here")):
        assert given is not None
        assert np.array_equal(np.asarray(given.decode()), np.asarray(upright))


def test_exif_that_is_none_turns_nothing() -> None:
    stored = encoded(Image.new("RGB", (40, 20), "red"), "JPEG", exif=b"Exif\0\0nonsense")
    assert stored.decode().size == (40, 20)


def test_16_bits_of_grey_keep_their_shades() -> None:
    grey = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    stored = encoded(Image.fromarray(grey))
    assert np.array_equal(np.asarray(stored.decode())[..., 0], grey >> 8)
    given = _picture(Image.open(io.BytesIO(stored.data)), "here")
    assert np.array_equal(np.asarray(given.decode())[..., 0], grey >> 8)


def test_numbers_without_a_range_are_no_colours() -> None:
    stored = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(BadPicture, match=r"numbers of 32 bits \(Pillow's mode F\), no colours"):
        stored.check()


@pytest.mark.parametrize(
    ("image", "form", "expected"),
    [
        (Image.new("L", (4, 4), 90), "PNG", (90, 90, 90)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (Image.new("RGB", (4, 4), (0, 0, 255)).quantize(4), "PNG", (0, 0, 255)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (Image.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
    ],
)
def test_pictures_of_other_modes_are_rgb(
    image: Image.Image, form: str, expected: tuple[int, int, int]
) -> None:
    decoded = encoded(image, form).decode()
    assert decoded.mode == "RGB"
    assert decoded.getpixel((1, 1)) == expected


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    stored = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert stored.decode().getpixel((1, 1)) == (255, 0, 0)
