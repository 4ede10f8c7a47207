"""The pictures of a benchmark's requests: found, encoded once, and shown to a model pass by pass.

lm-eval's tasks with `doc_to_image` put `{"visual": ...}` behind the arguments of each request. A
request knows its picture by the SHA-256 of its bytes; what is shown of it is features of the
model's image encoder, projected by its adapter (`harness.models.pictures`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas
import torch
from lm_eval.api.instance import Instance

from harness.errors import EvaluationError
from harness.evaluation.shown import NOT_SHOWN
from harness.models.pictures import (
    PassPictures,
    PictureFeatures,
    pictures_of_rows,
    takes_pictures,
    using_pictures,
)
from harness.readers.pictures import BadPicture, Picture

EncodePictures = Callable[[Sequence[Picture]], PictureFeatures]
VISUAL = "visual"
"""lm-eval's key of a request's pictures, in the mapping behind its arguments."""


class RequestPictures:
    """The pictures that a model is shown.

    Args:
        model: it may take pictures or not.
        encode: gives features of distinct pictures; None: no request has a picture for the model.
    """

    def __init__(self, model: Any, encode: EncodePictures | None) -> None:
        self._model, self._encode = model, encode
        self._features: PictureFeatures | None = None

    @property
    def shown(self) -> bool:
        """Whether the model is conditioned on the pictures of requests."""
        return self._encode is not None and takes_pictures(self._model)

    def names(self, requests: Sequence[Instance]) -> list[str | None]:
        """Each request's picture, by the SHA-256 of its bytes; None where it has none.

        Pictures that were not seen before are encoded, each once.

        Raises:
            EvaluationError: one is no picture, or a request has several.
        """
        if not self.shown:
            return [None] * len(requests)
        of_items: dict[tuple[str | None, int | None], Picture | None] = {}
        known = set(self._features.names) if self._features is not None else set[str]()
        new: dict[str, Picture] = {}
        found = []
        for request in requests:
            item = request.task_name, request.doc_id
            if item not in of_items:  # an item's requests have one picture
                of_items[item] = picture = picture_of_request(request)
                if picture is not None and picture.sha256 not in known:
                    _check(request, picture)
                    new.setdefault(picture.sha256, picture)
            found.append(of_items[item])
        if new:
            assert self._encode is not None
            features = self._encode(list(new.values()))
            self._features = (
                features if self._features is None else _joined(self._features, features)
            )
        return [None if picture is None else picture.sha256 for picture in found]

    def of_rows(self, names_R: Sequence[str | None]) -> PassPictures | None:
        """The pictures of a pass, projected by the active adapter: see `PicturesOf`
        of `prefix_trie.forward`."""
        if self._features is None:
            return None
        return pictures_of_rows(self._model, self._features, names_R, self._model.device)

    @contextlib.contextmanager
    def showing(self, names_R: Sequence[str | None]) -> Iterator[None]:
        """The context of a pass whose rows have these pictures."""
        with torch.no_grad(), using_pictures(self.of_rows(names_R)):
            yield


def _joined(first: PictureFeatures, second: PictureFeatures) -> PictureFeatures:
    features_NF = torch.cat([first.features_NF, second.features_NF])
    return PictureFeatures((*first.names, *second.names), features_NF)


def without_pictures(requests: Sequence[Instance]) -> list[Instance]:
    """The requests with their texts alone, as lm-eval's classes for texts expect them."""
    return [
        replace(request, arguments=request.args[:-1]) if _visuals(request) is not None else request
        for request in requests
    ]


def _visuals(request: Instance) -> Any:
    """What a task shows with a request; None of a task of texts alone."""
    last = request.args[-1] if len(request.args) > 1 else None
    return [last[VISUAL]] if isinstance(last, Mapping) and VISUAL in last else None


def picture_of_request(request: Instance) -> Picture | None:
    """The picture that a request shows a model; None where it has none.

    Raises:
        EvaluationError: it has several, or what is no picture.
    """
    return one_picture(_visuals(request), _place(request))


def one_picture(found: Any, place: str) -> Picture | None:
    """The picture that a task's `doc_to_image` gives, in lists or not; None where there is none.

    Args:
        place: begins the message.

    Raises:
        EvaluationError: it has several, or what is no picture.
    """
    while isinstance(found, list | tuple):
        given = [one for one in found if one is not None and one != ""]
        if len(given) > 1:
            raise EvaluationError(
                f"{place} has {len(given)} pictures, and a model is shown one with an "
                "item; name one in the task's doc_to_image"
            )
        found = given[0] if given else None
    return None if found is None else as_picture(found, place)


def as_picture(value: Any, place: str) -> Picture | None:
    """The picture that a cell of a data set holds: bytes, {bytes, path}, or one of Pillow's.

    Of Pillow's it is the picture in PNG. None where its bytes are missing.

    Raises:
        EvaluationError: it is none of these; `place` begins the message.
    """
    from PIL import Image, ImageOps

    if isinstance(value, Mapping) and "bytes" in value:
        value = value["bytes"]
    if value is None:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        return Picture.of(bytes(value))
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value = ImageOps.exif_transpose(value)  # a PNG does not keep it
        (value.convert("RGB") if value.mode in ("CMYK", "YCbCr", "HSV", "LAB") else value).save(
            buffer, "PNG"
        )
        return Picture.of(buffer.getvalue())
    raise EvaluationError(
        f"{place} shows a {type(value).__name__} where a picture is due; doc_to_image is to give "
        "bytes, {bytes, path}, or a picture of Pillow"
    )


def _check(request: Instance, picture: Picture) -> None:
    try:
        picture.check()
    except BadPicture as fault:
        raise EvaluationError(f"{_place(request)}: {fault}; correct it, or leave it out") from fault


def _place(request: Instance) -> str:
    return f"{request.task_name}: item {request.doc_id}"


def checked_picture(request: Instance) -> str | None:
    """A request's picture by the SHA-256 of its bytes; None where it has none.

    Raises:
        EvaluationError: it has several, or what is no picture.
    """
    found = picture_of_request(request)
    if found is None:
        return None
    _check(request, found)
    return found.sha256


def picture_notes(items: pandas.DataFrame, pictures: RequestPictures) -> list[str]:
    """What a reader of the scores of items must know of their pictures."""
    if "picture" not in items:
        return []
    has, notes = items["picture"].notna(), []
    told = "has_image" in items
    if not has.any() and not told:
        notes.append(
            f"none of its {len(items)} items has a picture: the data hold no bytes of any, and all "
            "were scored without"
        )
    if has.any() and not pictures.shown:
        notes.append(f"{has.sum()} of {len(items)} items have {NOT_SHOWN}")
    if told and (lost := int((items["has_image"] & ~has).sum())):
        notes.append(
            f"{lost} of {len(items)} items have a picture that the data lack; they were scored "
            "without it"
        )
    return notes
