"""Pictures on the page: what another picture changes, and a sheet of items with their answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.findings import Findings
from harness.analysis.picture_sheet import PictureSheet, SheetItem
from harness.errors import printable
from harness.readers.pictures import BadPicture, Picture
from harness.records.picture_effect import NO_CHANGES, NO_EFFECT_NATS
from harness.report.numbers import number, percent
from harness.report.page import html
from harness.report.render import Table, blocks

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SIDE = 160
"""Pixels of a picture on the page."""
LONGEST = 300
"""Characters of a question, and of the text below it; of an option or answer half of them."""
IDLE = "‼"
"""Marks a training in which pictures do nothing."""


def effect_table(findings: Findings) -> list[Table]:
    """What another picture changes of the answers, where any method takes pictures."""
    lines = [
        [
            *(line.variant.model, findings.measured.row_name(line.variant), str(line.num_seeds)),
            number(line.effect, ".3g") + IDLE * bool(line.num_idle),
            number(line.least_effect, ".3g"),
            percent(line.changes, 1),
        ]
        for line in findings.picture_effects
    ]
    notes = [
        f"{IDLE} {line.variant.model}, {findings.measured.row_name(line.variant)}: in "
        f"{line.num_idle} of {line.num_seeds} trainings pictures do nothing: another picture moves "
        f"the log-likelihood of a label token by less than {NO_EFFECT_NATS:g} nats, and "
        f"changes less than {NO_CHANGES:.0%} of the answers. At too high a learning rate the "
        "projection saturates: set a lower train.image_learning_rate."
        for line in findings.picture_effects
        if line.num_idle
    ]
    table = Table(
        name="picture-effects",
        title="What another picture changes",
        header=(
            *("Model", "Method", "Seeds", "Nats per label token", "Least of all seeds"),
            "Answers that change, %",
        ),
        rows=blocks(lines),
        notes=tuple(notes),
        caption=(
            "On the first training examples with a picture (at most 32), after the training: each "
            "is given the picture of another one. Nats: mean absolute change of the log-likelihood "
            "of a label token. Answers: examples of which a most likely label token changes, given "
            "those before it.",
        ),
        num_text_columns=2,
    )
    return [table] if lines else []


@dataclass(frozen=True)
class Thumbnail:
    """A small picture inside the page."""

    address: str
    """Of kind `data:`; empty where the picture cannot be decoded."""
    width: int = 0
    height: int = 0
    said: str = ""
    """What it is, for those who do not see it: no more is known than its size."""


def pictures_section(sheets: Sequence[PictureSheet]) -> str:
    """HTML of the sheets; empty where no benchmark has pictures."""
    return "".join(html("picture_sheet", _head(one), _notes(one), _cards(one)) for one in sheets)


def _head(sheet: PictureSheet) -> str:
    return f"{sheet.model}: {sheet.title} ({sheet.benchmark} {sheet.metric})"


def _notes(sheet: PictureSheet) -> list[str]:
    (chooser, _), *_ = sheet.methods
    seeds = sorted({seed for _, seed in sheet.methods if seed is not None})
    trained = f" Of each method seed {seeds[0]} alone." if len(seeds) == 1 else ""
    notes = []
    if sheet.items:
        right = sum(item.answers[0].is_right for item in sheet.items)
        notes.append(
            f"{len(sheet.items)} of {sheet.num_with_pictures} items with a picture, drawn by the "
            f"SHA-256 of their names: {right} that {chooser} answers right and "
            f"{len(sheet.items) - right} that it answers wrong, while it is right in "
            f"{sheet.num_right} of all.{trained}"
        )
    if sheet.missing:
        notes.append(f"Not all is shown: {sheet.missing}.")
    return notes


def _cards(sheet: PictureSheet) -> list[dict[str, object]]:
    names = [name for name, _ in sheet.methods]
    return [
        {
            "picture": thumbnail(item.picture, item.name),
            "name": item.name,
            "question": _cut(question, LONGEST),
            "context": _cut(context.strip(), LONGEST),
            "options": _options(item),
            "gold": _cut(item.gold, LONGEST // 2),
            "answers": [
                (name, _cut(answer.text, LONGEST // 2) or "–", answer.is_right)
                for name, answer in zip(names, item.answers, strict=True)
            ],
        }
        for item in sheet.items
        for question, _, context in [item.question.partition("\n")]
    ]


def _options(item: SheetItem) -> list[tuple[str, bool]]:
    """Options, each with whether it is the right one."""
    return [(_cut(text, LONGEST // 2), text == item.gold) for text in item.options]


def _cut(text: str, longest: int) -> str:
    return printable(text if len(text) <= longest else f"{text[:longest]}…")


def thumbnail(picture: Picture, name: str) -> Thumbnail:
    """A picture of at most LARGEST_SIDE pixels a side, as the encoder gets it: RGB, of the first
    frame. It is encoded anew, so that nothing but pixels of the file is in the page."""
    try:
        image = picture.decode()
    except BadPicture as fault:
        return Thumbnail("", said=f"The picture of {name} is not shown: {fault}")
    said = f"Picture of {name}, {image.width} × {image.height} pixels"
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    coded = {"png": _encoded(image, "PNG"), "jpeg": _encoded(image, "JPEG")}
    kind = min(coded, key=lambda one: len(coded[one]))
    address = f"data:image/{kind};base64,{base64.b64encode(coded[kind]).decode('ascii')}"
    return Thumbnail(address, image.width, image.height, said)


def _encoded(image: Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, optimize=True, **({"quality": 80} if kind == "JPEG" else {}))
    return stream.getvalue()
