"""Pictures for a trained adapter: encoded, projected, and told to the passes inside a block."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MethodError
from harness.methods.zero_init.options import image_encoder_of
from harness.models.image_encoder import ImageEncoder, check_features, load_image_encoder
from harness.readers.files import read_bytes
from harness.readers.pictures import BadPicture, Picture, as_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_BYTES = 2**28
"""Of a picture's file."""
HERE = "adapter_config.json"


@contextlib.contextmanager
def pictures(
    model: Any,
    images: Image | bytes | str | Path | Sequence[Image | bytes | str | Path | None],
    *,
    data_root: str | Path | None = None,
    encoder: ImageEncoder | None = None,
) -> Iterator[None]:
    """Conditions `generate` and forward passes inside on pictures, by the model's active adapter.

    No gradients reach the projection. Nothing is stored on the model; the encoder leaves memory
    before the block begins, unless it is given.

    Args:
        model: PEFT's model with an adapter of a prompt method that has an `image_encoder`.
        images: one for all rows of the batch, or one for each row, in order; None for a row
            without. Rows that `generate` repeats, for beams or several answers, keep theirs.
        data_root: what a relative path of the encoder is relative to.
        encoder: what `image_encoder` has given, where it is to be used more than once.

    Raises:
        MethodError: the active adapter takes no pictures, or the batch has another number of rows.
        ModelError: the encoder is missing, or not the one that the adapter was trained with.
        BadPicture: one is no picture.
    """
    import torch

    from harness.models.pictures import pictures_of_rows, using_pictures

    _active_config(model)
    several = isinstance(images, Sequence) and not isinstance(images, bytes | str)
    given: list[Any] = [*images] if several else [images]  # type: ignore[misc]
    if not given:
        raise MethodError("pictures: no image is given; give one, or one for each row of the batch")
    found = [None if one is None else _picture(one, f"images[{i}]") for i, one in enumerate(given)]
    if encoder is None:
        encoder = image_encoder(model, data_root=data_root)
    else:
        check_trained_with(model, encoder.identity)
    features = encoder.encode([one for one in found if one is not None])
    del encoder
    names = [None if one is None else one.sha256 for one in found]
    with torch.no_grad():
        device = next(model.parameters()).device
        passing = pictures_of_rows(model, features, names, device)
    with using_pictures(passing):
        yield


def image_encoder(
    model: Any, *, data_root: str | Path | None = None, path: str | Path | None = None
) -> ImageEncoder:
    """The encoder that the model's active adapter was trained with, on the model's device.

    Args:
        data_root: what a relative path of the encoder is relative to.
        path: its folder, where it lies elsewhere than in training; its content is checked.

    Raises:
        MethodError: the active adapter takes no pictures.
        ModelError: it is missing, or has changed.
    """
    config = _active_config(model)
    spec = image_encoder_of(config.parsed)
    assert spec is not None
    root = None if data_root is None else Path(data_root)
    if path is not None:
        spec = spec.model_copy(update={"path": str(Path(path).absolute())})
    if spec.source is None and root is None and not Path(str(spec.path)).is_absolute():
        raise MethodError(
            f"{HERE}: the image encoder lies at a relative path ({spec.path}); give data_root=, "
            "the folder that it is in"
        )
    # Where it lies in files that changed, `check_trained_with` tells whether it is another.
    spec = spec.model_copy(update={"sha256": None})
    device = str(next(model.parameters()).device)
    encoder = load_image_encoder(spec, data_root=root, device=device)
    check_trained_with(model, encoder.identity)
    return encoder


def record_encoder(model: Any, identity: Mapping[str, Any]) -> None:
    """States in the configuration of the model's active adapter which encoder's features it is
    trained on: `ImageEncoder.identity`."""
    _active_config(model).image_encoder = dict(identity)


def trained_with(model: Any) -> dict[str, Any]:
    """The identity of the encoder that the model's active adapter was trained with; empty where it
    takes no pictures or does not say it."""
    try:
        return _active_config(model).image_encoder or {}
    except MethodError:
        return {}


def check_trained_with(model: Any, identity: Mapping[str, Any]) -> None:
    """Refuses an encoder that is not the one of the model's active adapter, where that says it.

    Raises:
        ModelError: it gives other features.
    """
    if stated := trained_with(model):
        check_features(stated, identity, HERE)


def _active_config(model: Any) -> Any:
    """The configuration of the model's active adapter, which takes pictures.

    Raises:
        MethodError: it takes none, or there is none.
    """
    from harness.models.pictures import takes_pictures

    said = "pictures: the model carries no adapter"
    if hasattr(model, "peft_config"):
        name = model.active_adapter
        config = model.peft_config[name if isinstance(name, str) else name[0]]
        kind = getattr(config, "method", None) or getattr(config.peft_type, "value", "?").lower()
        if getattr(config, "parsed", None) is None or image_encoder_of(config.parsed) is None:
            said = f"pictures: the active adapter ({kind}) takes none: it has no image_encoder"
        elif takes_pictures(model):
            return config
        else:
            said = "pictures: the model's adapters are disabled"
    raise MethodError(f"{said}; load one of a prompt method that was trained with an image_encoder")


def _picture(image: Any, place: str) -> Picture:
    """A picture as it is given: decoded, encoded, or the path of a file.

    Raises:
        BadPicture: it is none.
        Unreadable: the file cannot be read.
    """
    if isinstance(image, str | Path):
        place, image = str(image), read_bytes(Path(image), max_bytes=LARGEST_BYTES)
    elif hasattr(image, "save") and hasattr(image, "convert"):
        buffer = io.BytesIO()
        as_rgb(image).save(buffer, "PNG")
        image = buffer.getvalue()
    if not isinstance(image, bytes):
        raise BadPicture(
            f"{place}: is a {type(image).__name__}, no picture; give a PIL image, the bytes of a "
            "file, or its path"
        )
    found = Picture.of(image)
    try:
        found.check()
    except BadPicture as fault:
        raise BadPicture(f"{place}: {fault}") from fault
    return found
