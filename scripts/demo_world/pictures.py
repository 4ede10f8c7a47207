"""Pictures of the embedded world's pets, drawn from a random source.

A picture shows one animal in one colour. Place, size, tilt, mirror image, ground, clutter, shade
and noise vary, so that no pixel tells the animal or the colour.
"""

from __future__ import annotations

import io
import math
import random
from typing import TYPE_CHECKING

from scripts.demo_world.animals import ANIMALS, Coat, Pen, Rgb

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SIZE = 48
"""Pixels of a side."""
OVERSAMPLING = 3
"""It is drawn this much larger, and averaged."""
NOISE = 5.0
"""Standard deviation added to every channel of a pixel, of 255."""
JPEG_QUALITY = 80
UNSEEN_STEPS = (3, 7)

COLOURS: dict[str, Rgb] = {
    "red": (210, 35, 35),
    "blue": (45, 80, 215),
    "green": (45, 155, 55),
    "yellow": (240, 215, 45),
    "purple": (130, 50, 165),
    "orange": (245, 135, 25),
    "brown": (120, 75, 40),
    "white": (242, 242, 242),
    "black": (34, 34, 38),
    "pink": (248, 150, 185),
}
GROUNDS: tuple[Rgb, ...] = (
    (196, 214, 190), (205, 196, 170), (178, 204, 222), (214, 206, 200), (190, 190, 196),
    (168, 188, 160), (222, 214, 180), (186, 178, 200), (160, 186, 196), (204, 182, 172),
)  # fmt: skip
"""Muted: the animal alone has a full colour, or is white or black."""


def draw_picture(animal: str, colour: str, rng: random.Random) -> Image:
    """An RGB picture of SIZE x SIZE pixels."""
    from PIL import Image, ImageDraw

    side = SIZE * OVERSAMPLING
    sky, ground = rng.sample(GROUNDS, 2)
    image = Image.new("RGB", (side, side), _shaded(sky, rng.uniform(0.92, 1.06)))
    canvas = ImageDraw.Draw(image)
    horizon = side * rng.uniform(0.55, 0.85)
    slope = side * rng.uniform(-0.08, 0.08)
    corners = [(0, horizon - slope), (side, horizon + slope), (side, side), (0, side)]
    canvas.polygon(corners, fill=_shaded(ground, rng.uniform(0.85, 1.0)))
    _clutter(canvas, side, rng)
    size = side * rng.uniform(0.34, 0.46)
    room = side / 2 - size
    pen = Pen(
        canvas=canvas,
        coat=_coat(colour, rng),
        centre=(side / 2 + rng.uniform(-room, room), side / 2 + rng.uniform(-room, room)),
        size=size,
        tilt=math.radians(rng.uniform(-14, 14)),
        is_mirrored=rng.random() < 0.5,
    )
    ANIMALS[animal](pen)
    image = image.reduce(OVERSAMPLING)
    return _with_noise(image, rng)


def draw_jpeg(animal: str, colour: str, rng: random.Random) -> bytes:
    """The same as the bytes of a JPEG file; the noise would make a PNG five times larger."""
    file = io.BytesIO()
    draw_picture(animal, colour, rng).save(file, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return file.getvalue()


def is_seen(animal: str, colour: str) -> bool:
    """Whether training may show this animal in this colour: 8 colours of each animal, and 8
    animals of each colour. The other 20 pairs stand in benchmarks alone."""
    step = list(COLOURS).index(colour) - list(ANIMALS).index(animal)
    return step % len(COLOURS) not in UNSEEN_STEPS


def pairs(seen: bool) -> list[tuple[str, str]]:
    """Animal and colour of all pairs that training may show, or of those that it may not."""
    return [(a, c) for a in ANIMALS for c in COLOURS if is_seen(a, c) is seen]


def _coat(colour: str, rng: random.Random) -> Coat:
    body = _shaded(COLOURS[colour], rng.uniform(0.88, 1.08))
    if colour == "black":  # lines would not show on it
        return Coat(body, (72, 72, 78), (104, 104, 110))
    return Coat(body, _shaded(body, rng.uniform(0.68, 0.78)), _shaded(body, 0.4))


def _shaded(colour: Rgb, factor: float) -> Rgb:
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def _clutter(canvas: ImageDraw, side: int, rng: random.Random) -> None:
    """Blots in muted colours behind the animal: stones, bushes, clouds."""
    for _ in range(rng.randrange(5)):
        x, y = rng.uniform(0, side), rng.uniform(0, side)
        width, height = side * rng.uniform(0.03, 0.12), side * rng.uniform(0.02, 0.09)
        fill = _shaded(rng.choice(GROUNDS), rng.uniform(0.7, 1.05))
        box = (x - width, y - height, x + width, y + height)
        if rng.random() < 0.5:
            canvas.ellipse(box, fill=fill)
        else:
            canvas.rectangle(box, fill=fill)


def _with_noise(image: Image, rng: random.Random) -> Image:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(rng.getrandbits(64)).normal(0.0, NOISE, (SIZE, SIZE, 3))
    pixels = np.asarray(image, dtype=np.float32) + noise
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
