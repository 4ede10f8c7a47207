"""What is checked before anything runs: local data of another version above all."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.demo.world import CHECKPOINT
from harness.errors import UsageError
from harness.grid.folders import CELL_FILE, stored_label
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.status import CellState
from harness.grid.workspace import OpenGrid, prepare_run
from tests.evaluation.conftest import Rows, mmlu_subjects, write_rows
from tests.grid.test_loader import GRID

SHAPE = GRID[GRID.index("{num_hidden") : GRID.index("}}") + 1]
OWN = GRID.replace("tasks:", "train: {max_length: 256}\ntasks:").replace(
    SHAPE,
    "{num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344, num_attention_heads: 4,\n"
    "      vocab_size: 1688, tie_word_embeddings: true}",
)
"""GRID with the embedded world's checkpoint as its model."""


def opened(root: Path, *, text: str = OWN) -> OpenGrid:
    spec = resolve_grid(yaml.safe_load(text), place="g.yaml")
    return OpenGrid("g.yaml", spec, expand(spec), root / "runs", root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root whose files have the names of the real ones, and other rows."""
    rows = Rows()
    write_rows(tmp_path / "arc_easy" / "test.parquet", rows.arc(6))
    write_rows(tmp_path / "mmlu" / "test.parquet", rows.mmlu(mmlu_subjects(), [1]))
    instructions = [{"instruction": "a", "input": "", "output": "b"}] * 200
    write_rows(tmp_path / "train.parquet", instructions)
    (tmp_path / "a").symlink_to(CHECKPOINT)
    return tmp_path


def test_data_of_another_version_is_refused_before_anything_runs(root: Path) -> None:
    with pytest.raises(UsageError) as caught:
        prepare_run(opened(root))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{root / 'arc_easy' / 'test.parquet'}: 6 rows of content ")
    assert "not the pinned version of allenai/ai2_arc ARC-Easy test (2376 rows" in first
    assert first.endswith(
        "bring that version, or give --allow-data-mismatch: the note then stands with every score"
    )
    assert "cais/mmlu test (14042 rows" in second
    assert not list((root / "runs" / "cells").iterdir())


def test_allowed_it_is_a_warning(root: Path) -> None:
    warnings = prepare_run(opened(root), allow_data_mismatch=True)
    assert len(warnings) == 2
    assert all(text.endswith("scores made with it say so") for text in warnings)


def test_instructions_count_where_the_grid_calls_them_a_copy_of_alpaca(root: Path) -> None:
    source = OWN.replace("source: null", "source: tatsu-lab/alpaca")
    warnings = prepare_run(opened(root, text=source), allow_data_mismatch=True)
    assert len(warnings) == 3
    assert "200 rows of content" in warnings[0]
    assert "not the pinned version of tatsu-lab/alpaca (52002 rows" in warnings[0]
    only_base = source.replace("[base, zero-init-linear, {method: lora, rank: 4}]", "[base]")
    assert len(prepare_run(opened(root, text=only_base), allow_data_mismatch=True)) == 2


def test_the_embedded_world_is_pinned_by_nobody(root: Path) -> None:
    write_rows(root / "mmlu" / "test.parquet", Rows().mmlu(["astronomy"], [3]))
    text = OWN.replace("[arc_easy, {name: mmlu, limit: 5}]", "[demo_arc_easy, demo_mmlu]")
    assert prepare_run(opened(root, text=text)) == []


@pytest.mark.parametrize("content", [None, "", "{}", "[" * 10_000])
def test_a_damaged_description_of_a_done_cell_is_written_again(
    root: Path, content: str | None
) -> None:
    grid = opened(root)
    folders = [grid.runs_dir / "cells" / name for name in ("done", "begun")]
    for folder in folders:
        folder.mkdir(parents=True)
        if content is not None:
            (folder / CELL_FILE).write_text(content)
    cell = grid.cells[0]
    grid.__dict__["states"] = [
        CellState(cell, folders[0], None, "done", ()),
        CellState(cell, folders[1], None, "to do", ()),
    ]
    prepare_run(grid, allow_data_mismatch=True)
    assert stored_label(folders[0]) == cell.label
    assert stored_label(folders[1]) is None
