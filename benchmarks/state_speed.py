"""What it costs to know how far a grid of 2,000 cells is: CPU seconds of one process.

The grid is the demo's with more fractions and seeds; local data and weights lie under the data
root, so that every comparison with what a result was made from is part of it. Rows: no cell begun,
every cell begun (a folder each), every cell done (a result of 34 scores each, as the demo's), and
done with files (items of three benchmarks, and steps). `load`: the file is validated and its cells
are listed; `states`: all files are read, as `run-grid` does, the least of `--repeats`; `status`:
those alone that changed since the result. Each repeat forgets the hashes, as another process does.

    python -m benchmarks.state_speed
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measuring import print_line
from harness.demo.world import write_world
from harness.evaluation.task_data import data_fingerprint
from harness.evaluation.tasks import request_key
from harness.grid.folders import CELL_FILE
from harness.grid.loader import find_grid, load_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import read_states
from harness.records.environment import describe_environment
from harness.records.files import _sha256 as hashed
from harness.records.files import (
    fresh_sha256_of_file,
    sha256_of_file,
    sha256_of_files,
    write_text,
)
from harness.records.results import CellResult, TaskScore, TrainResult, write_result

SEEDS = 100
FRACTIONS = [0.1, 0.2, 0.3, 0.4, 0.5]
METHODS = ["lora", "random-init", "zero-init-linear", "zero-init-nonlinear"]
SCORES = {"demo_mmlu": 15, "demo_paper_mmlu": 8}
"""Scores of a benchmark with subjects; a plain one has two."""
FILE_BYTES = 20_000
"""Of a file of items, as the demo's."""


def write_grid(path: Path) -> None:
    """Writes a grid of 2,000 cells."""
    grid = yaml.safe_load(find_grid("demo").read_text(encoding="utf-8"))
    block = {"methods": METHODS, "fractions": FRACTIONS, "seeds": list(range(SEEDS))}
    write_text(path, yaml.safe_dump(grid | {"blocks": [block]}))


def result_of(cell: Cell, data_root: Path) -> CellResult:
    """Returns a result in which every benchmark of a cell is scored on the data of today."""
    environment = describe_environment()
    scores = []
    for task in cell.tasks:
        score = TaskScore(
            key=request_key(task), protocol=task.benchmark.protocol.name, benchmark=task.name,
            task=task.name, metric="acc", value=0.5, stderr=0.02, n=400, shots=task.num_shots,
            limit=task.limit, task_version="1.0", lm_eval_version="0.4.13",
            data_source="test.parquet", data_sha256=data_fingerprint(task, data_root),
            tokenizer_sha256="0" * 64, precision="fp32", prompts_sha256="0" * 64,
            token_budget=4096, bos="token 0", content_sha256="0" * 64,
        )  # fmt: skip
        subjects = SCORES.get(task.name, 2)
        scores += [score, *(replace(score, task=f"{task.name}_{k}") for k in range(1, subjects))]
    weights = sorted((data_root / str(cell.model.path)).glob("*.safetensors"))
    return CellResult(
        cell=cell.record(),
        cell_id=cell.id,
        train=TrainResult(
            steps=190, examples=600, tokens=58000, epoch_losses=(1.2, 1.1, 1.0, 0.9, 0.8),
            trainable_parameters=6420, total_parameters=1212052, seconds=1.0,
            tokens_per_second=5000.0, peak_memory_bytes=7 * 10**8, peak_learning_rate=0.1,
            precision="fp32", device="cpu", data_sha256="0" * 64,
            data_file_sha256=sha256_of_file(data_root / str(cell.data.path)),
            final_statistics={f"gate/layer_{k:02}/mean_abs": 0.1 for k in range(18)},
        ),
        base={"weights_sha256": sha256_of_files(weights), "precision": "fp32"},
        scores=tuple(scores),
        environment=environment,
        evaluation_environments={score.key: environment for score in scores},
    )  # fmt: skip


def write_files(folder: Path) -> dict[str, str]:
    """Writes a cell's items and steps; returns their SHA-256 by name."""
    names = [*(f"items/benchmark{k}--{'0' * 16}.parquet" for k in range(3)), "steps.parquet"]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(os.urandom(FILE_BYTES))
    return {name: fresh_sha256_of_file(folder / name) for name in names}


def cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Returns the least CPU seconds of several runs."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else a temporary one")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        runs_dir, grid = Path(folder) / "runs", Path(folder) / "grid.yaml"
        data_root = write_world(runs_dir / "data" / "demo")
        write_grid(grid)
        load = cpu_seconds(lambda: expand(load_grid(grid)), 1)
        cells = expand(load_grid(grid))

        def states(thorough: bool = True) -> float:
            def work() -> None:
                hashed.cache_clear()
                read_states(cells, runs_dir=runs_dir, data_root=data_root, thorough=thorough)

            return cpu_seconds(work, options.repeats)

        columns = "{:<16}{:>8}{:>10}{:>10}{:>10}"

        def show(name: str) -> None:
            print_line(columns, (name, len(cells), load, states(), states(False)))

        print_line(columns, ("cells", "number", "load s", "states s", "status s"))
        show("none begun")
        for cell in cells:
            record = cell.model_dump(mode="json", serialize_as_any=True)
            write_text(
                runs_dir / "cells" / f"{cell.slug}--{cell.id}" / CELL_FILE, json.dumps(record)
            )
        show("all begun")
        results = {cell.id: result_of(cell, data_root) for cell in cells}
        for cell in cells:
            write_result(runs_dir / "cells" / f"{cell.slug}--{cell.id}", results[cell.id])
        show("all done")
        for cell in cells:
            folder = runs_dir / "cells" / f"{cell.slug}--{cell.id}"
            write_result(folder, replace(results[cell.id], files_sha256=write_files(folder)))
        show("done, with files")


if __name__ == "__main__":
    main()
