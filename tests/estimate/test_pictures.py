"""What pictures add to an estimate: a pass of the encoder, its weights, and features on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.sets import inspect_data
from harness.estimate.costs import GridEstimate, estimate_grid
from harness.estimate.pictures import PICTURES_PER_SECOND, count_pictures, encoder_bytes
from harness.grid.schema import Cell
from harness.methods.zero_init.options import GatedPromptOptions
from harness.models.image_encoder import ImageEncoderSpec
from tests.data.test_row_pictures import ASKED, RED, write_parquet
from tests.estimate.conftest import cells_of, to_do

ENCODER = ImageEncoderSpec(source="openai/clip-vit-base-patch16")
ROWS = 52_002


@pytest.fixture
def cells() -> tuple[Cell, Cell]:
    """The paper's cell, and the same with an encoder."""
    text = cells_of("paper-7b")["llama-7b/zero-init-linear/100%/seed0"]
    options = text.options.model_copy(update={"image_encoder": ENCODER})
    assert isinstance(options, GatedPromptOptions)
    return text, text.model_copy(update={"options": options})


def estimate(cell: Cell, folder: Path) -> GridEstimate:
    return estimate_grid(
        [to_do(cell, folder)], "h200", price_per_hour=None, runs_dir=folder, data_root=None,
        num_rows={None: ROWS},
    )  # fmt: skip


def test_pictures_take_a_pass_of_the_encoder_and_its_features(
    cells: tuple[Cell, Cell], tmp_path: Path
) -> None:
    text, seeing = (estimate(cell, tmp_path) for cell in cells)
    # Of a set of the hub every row counts for a picture.
    added = seeing.cells[0].other_seconds - text.cells[0].other_seconds
    assert added == pytest.approx(ROWS / PICTURES_PER_SECOND)
    projection = 4608 * 64 + 64 * 4096
    kept = 4 * 4608 * ROWS + 4 * projection
    assert seeing.disk.results - text.disk.results == pytest.approx(kept)
    assert encoder_bytes(cells[0]) == 0
    assert encoder_bytes(cells[1]) == pytest.approx(4 * 85e6, rel=0.01)
    assert seeing.cells[0].training_flops is not None


def test_pictures_of_local_rows_are_counted(cells: tuple[Cell, Cell], tmp_path: Path) -> None:
    file = write_parquet(
        tmp_path / "rows.parquet", [{**ASKED, "image": RED}, {**ASKED, "image": None}] * 5
    )
    own = {"source": None, "path": str(file), "num_rows": None}
    text, seeing = (
        cell.model_copy(update={"data": cell.data.model_copy(update=own)}) for cell in cells
    )
    report = inspect_data(seeing.data, None).report
    assert report is not None
    assert (report.rows, report.pictures) == (10, 5)
    assert count_pictures(seeing, 10, None) == 5
    assert count_pictures(seeing, 4, None) == 2
    assert count_pictures(text, 10, None) == 0
