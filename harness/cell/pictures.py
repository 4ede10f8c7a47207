"""Features of a cell's pictures: encoded once, kept in the runs folder, read by all that need them.

The encoder is frozen, so that nothing of it is needed once its features are there: it is let go
before the base model is loaded to be trained.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell.settings import CellContext
from harness.data.rows import Row, picture_of
from harness.data.sets import Instructions, read_instructions
from harness.data.spec import DataSpec
from harness.data.validation import read_validation, validation_set
from harness.errors import DataError, StorageError, one_line
from harness.grid.names import data_place
from harness.methods.zero_init.options import image_encoder_of
from harness.models.devices import free_memory
from harness.models.image_encoder import (
    OF_FEATURES,
    ImageEncoderSpec,
    check_features,
    load_image_encoder,
)
from harness.readers.pictures import BadPicture, Picture
from harness.records.events import Encoding
from harness.records.files import sha256_of_json
from harness.records.picture_files import (
    DamagedFeatures,
    features_file,
    read_features,
    write_features,
)

if TYPE_CHECKING:
    from filelock import FileLock

    from harness.models.pictures import PictureFeatures

LONGEST_WAIT_SECONDS = 1800.0
"""For another process that encodes the same pictures; then this one does so too."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellPictures:
    """What a training is given of its pictures."""

    features: PictureFeatures
    """Of the training rows and of the validation rows."""
    encoder: Mapping[str, Any]
    """Identity of the encoder that gave them."""

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint is compared by."""
        names = sha256_of_json(sorted(self.features.names))
        return {
            "image_encoder": sha256_of_json(deciding(self.encoder)),
            "pictures_sha256": names,
        }


def deciding(encoder: Mapping[str, Any]) -> dict[str, Any]:
    """What of an encoder's identity decides the features that it gives."""
    return {name: encoder.get(name) for name in OF_FEATURES}


def training_pictures(context: CellContext, data: Instructions) -> CellPictures | None:
    """The features of a cell's training and validation pictures; None without an encoder.

    Called before the base model is loaded.

    Raises:
        DataError: a picture is broken; its row is named.
        ZbenchError: the encoder cannot be loaded.
    """
    cell, root = context.cell, context.settings.data_root
    if (spec := image_encoder_of(cell.options)) is None:
        return None
    held_out = read_validation(cell.data, root)
    parts = [(data.rows, cell.data, "")]
    parts += [(held_out.rows, validation_set(cell.data), ".validation")] if held_out else []
    found = (picture_of(row) for rows, _, _ in parts for row in rows)
    pictures = [picture for picture in found if picture is not None]
    if not pictures:
        context.warn(
            "none of its rows has a picture: its image_encoder's projection learns nothing"
        )
    try:
        return encode(context, spec, pictures)
    except BadPicture:
        for rows, of, part in parts:
            _check_rows(rows, of, data_place(cell.data_name) + part + cell.data.numbering, root)
        raise


def _check_rows(rows: Sequence[Row], of: DataSpec, place: str, data_root: Path | None) -> None:
    """Names the first row whose picture cannot be decoded."""
    for row in rows:
        try:
            if (picture := picture_of(row)) is not None:
                picture.decode()
        except BadPicture as fault:
            number = read_instructions(of, data_root=data_root).rows.index(row)
            raise DataError(f"{place}: row {number} (the first is 0): image: {fault}") from fault


class PictureEncoder:
    """What gives a scoring the features of its pictures; the encoder is loaded when it is asked.

    Args:
        context: of the cell that is scored.
        spec: of its encoder.
        expected: the identity of the encoder that the cell was trained with; empty if not known.
    """

    def __init__(
        self, context: CellContext, spec: ImageEncoderSpec, expected: Mapping[str, Any]
    ) -> None:
        self._context, self._spec = context, spec
        self.identity = dict(expected)
        """That of the encoder which all features are of; empty until that is known."""

    def __call__(self, pictures: Sequence[Picture]) -> PictureFeatures:
        """The features of pictures.

        Raises:
            ModelError: the encoder has changed.
        """
        found = encode(self._context, self._spec, pictures, self.identity)
        self.identity = dict(found.encoder)
        return found.features

    @classmethod
    def of(cls, context: CellContext, expected: Mapping[str, Any]) -> PictureEncoder | None:
        """That of a cell; None where its method looks at no pictures."""
        spec = image_encoder_of(context.cell.options)
        return None if spec is None else cls(context, spec, expected)


def encode(
    context: CellContext,
    spec: ImageEncoderSpec,
    pictures: Sequence[Picture],
    expected: Mapping[str, Any] | None = None,
) -> CellPictures:
    """The features of pictures, from the runs folder or from the encoder, which is let go again.

    Args:
        context: of the cell whose pictures they are; it gets an event for each batch.
        spec: of the encoder.
        pictures: some may be the same.
        expected: the identity that the encoder must have; any if empty.

    Raises:
        BadPicture: one is broken.
        ModelError: the encoder is another one.
        ZbenchError: the encoder cannot be loaded.
    """
    import torch

    from harness.models.pictures import PictureFeatures

    distinct = {picture.sha256: picture for picture in pictures}
    names = tuple(sorted(distinct))
    device = context.settings.device
    encoder = load_image_encoder(spec, data_root=context.settings.data_root, device=device)
    identity = encoder.identity
    if expected:
        check_features(expected, identity, context.cell.label)
    if not names:
        return CellPictures(PictureFeatures((), torch.zeros(0, spec.num_features)), identity)
    file = features_file(context.settings.runs_dir, deciding(identity), names)
    with _turn(file):
        features = _kept(context, file, names)
        if features is None:
            start = time.monotonic()
            features = encoder.encode([distinct[name] for name in names], _told(context))
            seconds = time.monotonic() - start
            logger.info("%d pictures encoded in %.1f s", len(names), seconds)
            _keep(context, file, features)
    del encoder
    free_memory(device)
    return CellPictures(features, identity)


def _told(context: CellContext) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        now = time.time_ns() // 1_000_000
        context.emit(Encoding(context.cell.id, done, total, now))

    return tell


def _kept(context: CellContext, file: Path, names: tuple[str, ...]) -> PictureFeatures | None:
    """The features that a file holds; None where there are none, or they are damaged."""
    import torch

    from harness.models.pictures import PictureFeatures

    try:
        found = read_features(file)
        if found is not None and len(found) != len(names):
            raise DamagedFeatures(f"{file}: holds {len(found)} pictures")
    except (DamagedFeatures, OSError) as fault:
        context.warn(f"{one_line(fault)}; the pictures are encoded again")
        return None
    return None if found is None else PictureFeatures(names, torch.from_numpy(found.copy()))


def _keep(context: CellContext, file: Path, features: PictureFeatures) -> None:
    """Keeps features for others; without room for them they are encoded again another time."""
    try:
        write_features(file, features.features_NF.numpy())
    except StorageError as fault:
        context.warn(f"{fault}; features of pictures are not kept")


@contextlib.contextmanager
def _turn(file: Path) -> Iterator[None]:
    """Lets one process encode, and the others wait for what it writes, where locks work."""
    lock = _lock(file)
    try:
        yield
    finally:
        if lock is not None:
            # Whoever waits for it holds the removed file, and looks for the features again.
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def _lock(file: Path) -> FileLock | None:
    from filelock import FileLock, Timeout

    if file.is_file():
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_name(f".{file.name}.lock"), timeout=LONGEST_WAIT_SECONDS)
        lock.acquire()
    except (OSError, NotImplementedError, Timeout) as fault:  # a file system without locks
        logger.info("%s: is made without waiting for others (%s)", file, one_line(fault))
        return None
    return lock
