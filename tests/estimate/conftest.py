"""Shapes of the paper's models, and the embedded world's cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.demo.world import write_world
from harness.grid.loader import load_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import CellState
from harness.models.shape import ModelShape


@pytest.fixture(scope="session")
def shape_7b() -> ModelShape:
    return ModelShape(
        num_hidden_layers=32,
        hidden_size=4096,
        intermediate_size=11008,
        num_attention_heads=32,
        vocab_size=32000,
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "demo")


def cells_of(grid: str) -> dict[str, Cell]:
    return {cell.label: cell for cell in expand(load_grid(grid))}


def to_do(cell: Cell, folder: Path) -> CellState:
    return CellState(cell, folder, None, "to do", cell.tasks)
