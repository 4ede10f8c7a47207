"""What pictures cost a cell beside its texts: one pass of the encoder, and features that are kept.

An encoder leaves memory before the training; while a cell is scored it may lie beside the model.
What a benchmark's pictures take is not counted: how many it has is not known before it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.data.sets import inspect_data
from harness.errors import ZbenchError
from harness.estimate.lengths import TrainingTokens
from harness.grid.schema import Cell
from harness.methods.zero_init.options import image_encoder_of
from harness.models.image_encoder import ImageEncoderSpec

PICTURES_PER_SECOND = 100.0
"""Read, resized and encoded, on any GPU: an assumption. One core that decodes is the bound, not the
encoder: a CLIP ViT-B/16 takes 35 GFLOP for a picture."""


def count_pictures(cell: Cell, num_rows: int, data_root: Path | None) -> int:
    """Pictures of a cell's training rows, 0 where its method looks at none.

    Equal ones count for each row; of a set that is not on this machine every row counts for one.
    """
    if image_encoder_of(cell.options) is None:
        return 0
    try:
        report = inspect_data(cell.data, data_root).report
    except ZbenchError:  # told where the data is checked
        report = None
    if report is None or not report.rows:
        return num_rows
    return round(num_rows * report.pictures / report.rows)


def encoding_seconds(cell: Cell, num_rows: int, data_root: Path | None) -> float:
    """Seconds in which a cell's training pictures are encoded, unless their features are kept."""
    return count_pictures(cell, num_rows, data_root) / PICTURES_PER_SECOND


def encoder_bytes(cell: Cell) -> float:
    """Weights of a cell's encoder in fp32, up to the last layer that is looked at."""
    if (spec := image_encoder_of(cell.options)) is None:
        return 0.0
    return 4.0 * 12 * spec.width**2 * spec.scales[-1]


def feature_bytes(
    cells: Sequence[Cell],
    tokens_of: Callable[[Cell], TrainingTokens | None],
    data_root: Path | None,
) -> float:
    """What the features of cells' training pictures take in the runs folder, each set once."""
    kept: dict[object, float] = {}
    for cell in cells:
        spec = image_encoder_of(cell.options)
        if spec is None or cell.train is None or (tokens := tokens_of(cell)) is None:
            continue
        drawn = None if cell.fraction == 1 else cell.seed_of("subset")
        key = _features_of(spec), cell.data_name, cell.fraction, drawn
        kept[key] = 4.0 * spec.num_features * count_pictures(cell, tokens.rows, data_root)
    return sum(kept.values())


def _features_of(spec: ImageEncoderSpec) -> str:
    return str(spec.model_dump(exclude={"hidden_size"}))
