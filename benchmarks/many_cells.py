"""What commands cost on a grid of thousands of finished cells: CPU seconds of each one's process.

The grid is the embedded world's under several models' names, with five methods, fractions and
seeds; results, items and steps are invented, and written by what writes them in a run. `plan` is
measured before the first result (`plan, new`) and after the last, `report` and `status` after it,
`sync` into a new SQLite database (its time per cell is what must not grow). Other work on the
machine does not count, waiting for a disk neither.

    python -m benchmarks.many_cells --cells 1000 2500 5000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.measuring import print_line
from benchmarks.state_speed import METHODS, result_of
from harness.demo.world import write_world
from harness.grid.folders import STEPS_FILE, cell_folder, items_path, write_cell_file
from harness.grid.loader import find_grid, load_grid
from harness.grid.schema import Cell, expand
from harness.records.files import sha256_of_files, write_frame, write_text
from harness.records.results import write_result

TASKS = ["demo_arc_easy", "demo_arc_challenge", "demo_hellaswag"]
ITEMS = 100
FRACTIONS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
SEEDS = 10
PER_MODEL = (len(METHODS) + 1) * len(FRACTIONS) * SEEDS
COMMANDS: dict[str, list[str]] = {
    "plan": ["plan"],
    "status": ["status"],
    "report": ["report", "--reports-dir", "reports"],
    "sync": ["sync"],
    "sync again": ["sync"],
}


def write_grid(path: Path, num_cells: int) -> None:
    """Writes a grid of about so many cells."""
    grid = yaml.safe_load(find_grid("demo").read_text(encoding="utf-8"))
    (model,) = grid["models"].values()
    names = [f"tiny-{number}" for number in range(max(1, round(num_cells / PER_MODEL)))]
    kept = {key: grid[key] for key in ("world", "data", "train", "methods")}
    block = {"fractions": FRACTIONS, "seeds": list(range(SEEDS)), "methods": ["full", *METHODS]}
    rest = {"models": dict.fromkeys(names, model), "tasks": TASKS, "blocks": [block]}
    write_text(path, yaml.safe_dump({"name": "many", **kept, **rest}, sort_keys=False))


def write_cells(cells: Sequence[Cell], runs_dir: Path, data_root: Path) -> None:
    """Writes the folders of finished cells."""
    pattern, known = result_of(cells[0], data_root), {}
    steps = pd.DataFrame(
        {"step": range(1, 191), "epoch": np.arange(190) // 38, "loss": np.linspace(2.0, 0.8, 190)}
        | {"learning_rate": 0.01, "seconds": np.linspace(0.1, 19, 190)}
        | {"tokens_per_second": 5000.0, "time_ms": range(1_700_000_000_000, 1_700_000_019_000, 100)}
    )
    weights = sha256_of_files(sorted((data_root / str(cells[0].model.path)).glob("*.safetensors")))
    for number, cell in enumerate(cells):
        folder = cell_folder(runs_dir, cell, {})
        draw = np.random.default_rng(number)
        hashes, scores = {STEPS_FILE: write_frame(folder / STEPS_FILE, steps)}, []
        for score in (one for one in pattern.scores if one.task == one.benchmark):
            answers = (draw.random(ITEMS) < 0.5 + 0.02 * (number % 5)).astype(float)
            mean = float(answers.mean())
            numbers = {"value": mean, "stderr": float(answers.std(ddof=1)) / ITEMS**0.5, "n": ITEMS}
            scores += [replace(score, metric=name, **numbers) for name in ("acc", "acc_norm")]
            frame = known.setdefault(score.task, _items(score.task))
            frame = frame.assign(acc=answers, acc_norm=answers)
            path = items_path(folder, score.benchmark, score.evaluation)
            hashes[path.relative_to(folder).as_posix()] = write_frame(path, frame)
        write_cell_file(folder, cell)
        changed: dict[str, Any] = {"cell": cell.record(), "cell_id": cell.id}
        changed |= {"scores": tuple(scores), "files_sha256": hashes}
        write_result(folder, replace(pattern, base={"weights_sha256": weights}, **changed))


def _items(task: str) -> pd.DataFrame:
    numbers = range(ITEMS)
    return pd.DataFrame(
        {"task": task, "doc_id": numbers, "question_id": [f"q{number}" for number in numbers]}
    )


def cpu_seconds(arguments: Sequence[str], folder: Path) -> float:
    """Returns the CPU seconds of a command's process.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "harness.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    with (folder / "said.txt").open("w") as said:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError((folder / "said.txt").read_text()[-2000:])
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 2500, 5000])
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else a temporary one")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    columns = "{:>7}{:>11}" + "{:>12}" * (len(options.only) + 1)
    print_line(columns, ("cells", "plan, new", *options.only, "sync/cell ms"))
    for num_cells in options.cells:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            write_grid(folder / "many.yaml", num_cells)
            cells = expand(load_grid(folder / "many.yaml"))
            new = cpu_seconds(["plan", "many.yaml"], folder)
            data_root = write_world(folder / "runs" / "world" / "demo-1")
            write_cells(cells, folder / "runs", data_root)
            taken = {
                name: cpu_seconds([COMMANDS[name][0], "many.yaml", *COMMANDS[name][1:]], folder)
                for name in options.only
            }
            per_cell = 1000 * taken["sync"] / len(cells) if "sync" in taken else None
            print_line(columns, (len(cells), new, *taken.values(), per_cell))


if __name__ == "__main__":
    main()
