"""Cells of the embedded world: whole lives, from the base model to the scores, in seconds."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.demo.world import write_world
from harness.grid.folders import STEPS_FILE, cell_folder
from harness.grid.loader import load_grid
from harness.grid.schema import Cell, expand
from harness.records.events import Event
from harness.records.results import CellResult

GRID = """
name: gpu-check
world: demo
models:
  tiny-llama:
    path: model
    shape: {{num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344,
            num_attention_heads: 4, vocab_size: 1688, tie_word_embeddings: true}}
data: {{source: null, path: alpaca/train.parquet, num_rows: 600}}
tasks: [{tasks}]
train: {{epochs: 1, batch_size: 16, precision: {precision}, checkpoint_minutes: {minutes}}}
methods:
  full: {{train: {{learning_rate: 5e-4}}}}
  lora: {{train: {{learning_rate: 3e-3, warmup_epochs: 0.2}}}}
  zero-init-linear: {{num_layers: 5, train: {{learning_rate: 1e-1, warmup_epochs: 0.2}}}}
blocks:
  - methods: [{methods}]
    fractions: [{fraction}]
"""


def world_cells(
    folder: Path,
    methods: str,
    *,
    precision: str,
    fraction: float,
    tasks: str,
    minutes: float = 10,
) -> list[Cell]:
    """Cells of the embedded world; `tasks` and `methods` as in a grid, with commas."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "gpu-check.yaml"
    place.write_text(
        GRID.format(
            methods=methods, precision=precision, fraction=fraction, tasks=tasks, minutes=minutes
        ),
        encoding="utf-8",
    )
    return expand(load_grid(place))


@dataclass(frozen=True)
class Lived:
    """What a cell left."""

    result: CellResult
    losses: list[float]
    """Of its steps."""
    items: Mapping[str, pd.DataFrame]
    """By file."""


def live(
    cell: Cell, folder: Path, device: str, *, emit: Callable[[Event], None] | None = None
) -> Lived:
    """Runs a cell in this process; its results are under the folder."""
    settings = RunSettings(
        folder / "runs",
        write_world(folder.parent / "world"),
        device=device,
        threads=min(4, os.cpu_count() or 1),
    )
    result = run_cell(cell, settings, emit or (lambda event: None))
    place = cell_folder(settings.runs_dir, cell)
    losses: list[float] = []
    if (place / STEPS_FILE).is_file():
        losses = pd.read_parquet(place / STEPS_FILE)["loss"].tolist()
    items = {path.name: pd.read_parquet(path) for path in sorted(place.rglob("*.parquet"))}
    return Lived(result, losses, {k: v for k, v in items.items() if "doc_id" in v.columns})


def log_likelihoods(lived: Lived) -> list[float]:
    """All log-likelihoods of a cell's items, in order."""
    found: list[float] = []
    for frame in lived.items.values():
        if "choices_loglikelihoods" in frame.columns:
            found += [
                float(value) for values in frame["choices_loglikelihoods"] for value in values
            ]
    return found


def numbers_of(lived: Lived) -> dict[str, Any]:
    """What two lives of the same bits agree in: weights, losses, items with their responses."""
    train = lived.result.train
    return {
        "weights": train and train.weights_sha256,
        "losses": lived.losses,
        "items": {name: frame.to_json() for name, frame in lived.items.items()},
    }


def main() -> None:
    """Runs one cell: its folder, the device, and the fraction of the rows; prints its losses."""
    folder, device, fraction = sys.argv[1:]
    task = "{name: demo_arc_easy, limit: 4}"
    (cell,) = world_cells(
        Path(folder), "lora", precision="fp32", fraction=float(fraction), tasks=task
    )
    print(json.dumps(live(cell, Path(folder) / "cell", device).losses))


if __name__ == "__main__":
    main()
