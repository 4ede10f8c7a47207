"""Kills a small grid again and again at random moments, and compares what comes of it.

    python -m scripts.kill_test --kills 100 --seed 0 --folder /tmp/kills

Each round runs the grid in a folder of its own, kills it with SIGKILL (all of its processes, or its
workers alone, or their parent alone) a few times, and lets it end. Adapters, losses, scores and the
items' records must then be those of an undisturbed run to the last bit, no file may be damaged or
left over, and MLflow must hold one finished run of each cell, with one point of each metric for
each step. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GRID = """
name: kills
world: demo
models:
  tiny:
    path: model
    shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344, num_attention_heads: 4,
            vocab_size: 1688, tie_word_embeddings: true}
data: {source: null, path: alpaca/train.parquet, num_rows: 600}
train: {epochs: 6, batch_size: 16, warmup_ratio: 0.1, checkpoint_minutes: 0.01}
tasks: [{name: demo_arc_easy, limit: 20}, {name: demo_hellaswag, limit: 10}]
blocks:
  - methods: [lora, zero-init-linear]
    fractions: [0.1]
    seeds: [0]
"""
MOST_KILLS = 6
"""Of one round."""
NO_RESULT = ("seconds", "tokens_per_second", "time_ms")
"""Columns of `steps.parquet` that tell of the run, not of the training."""


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts zbench in a folder, as the leader of a group of processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *arguments],
            cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip


def run_grid(folder: Path) -> subprocess.Popen[bytes]:
    """Starts the grid, or goes on with it."""
    (folder / "kills.yaml").write_text(GRID)
    return start(folder, "run-grid", "kills.yaml", "--device", "cpu", "--workers", "1")


def members(group: int) -> Iterator[int]:
    """The processes of a group."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                yield int(entry.name)


def kill(process: subprocess.Popen[bytes], whom: str) -> None:
    """Kills all of a run, its parent alone, or its children alone; waits until all have gone."""
    found = list(members(process.pid))
    chosen = {
        "all": found,
        "parent": [process.pid],
        "workers": [p for p in found if p != process.pid],
    }
    for number in chosen[whom]:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if whom == "workers":
        process.wait()  # the cell fails, and the run ends
    process.poll()
    deadline = time.monotonic() + 60
    while list(members(process.pid)):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        process.poll()
        time.sleep(0.1)
    process.wait()


def outcome(folder: Path) -> dict[str, Any]:
    """What must be the same of every run: of each cell its tensors, losses, scores, and items."""
    import pandas as pd

    from harness.records.files import fresh_sha256_of_file
    from harness.records.results import read_result

    found: dict[str, Any] = {}
    for cell in sorted((folder / "runs" / "cells").iterdir()):
        result = read_result(cell)
        assert result is not None, f"{cell} has no result"
        assert result.train is not None
        steps = pd.read_parquet(cell / "steps.parquet").drop(columns=list(NO_RESULT))
        found[cell.name] = {
            "adapter": fresh_sha256_of_file(cell / "adapter" / "adapter_model.safetensors"),
            "losses": result.train.epoch_losses,
            "steps": steps.to_csv(index=False, float_format="%.17g"),
            "tokens": result.train.tokens,
            "scores": [(s.key, s.task, s.metric, s.value, s.stderr, s.n) for s in result.scores],
            "items": {p.name: fresh_sha256_of_file(p) for p in sorted((cell / "items").iterdir())},
            "error": result.error,
            "names": sorted(p.name for p in cell.iterdir()),
        }
    return found


def tracked(folder: Path) -> list[str]:
    """What is wrong with MLflow's runs of the cells, one line each."""
    import pandas as pd
    from mlflow import MlflowClient

    wrong: list[str] = []
    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    (experiment,) = (one for one in client.search_experiments() if one.name == "kills")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    states = Counter(run.info.status for run in runs)
    if states["RUNNING"]:
        wrong.append(f"{states['RUNNING']} runs are left RUNNING")
    by_cell: dict[str, list[Any]] = {}
    for run in runs:
        if run.data.tags.get("zbench.kind") == "cell" and run.info.status == "FINISHED":
            by_cell.setdefault(run.data.tags["zbench.cell_id"], []).append(run)
    for cell in sorted((folder / "runs" / "cells").iterdir()):
        finished = by_cell.get(cell.name.rpartition("--")[2], [])
        if len(finished) != 1:
            wrong.append(f"{cell.name}: {len(finished)} finished runs")
        steps = pd.read_parquet(cell / "steps.parquet").set_index("step")
        for run in finished:
            for name in run.data.metrics:
                points = client.get_metric_history(run.info.run_id, name)
                counts = Counter(point.step for point in points)
                if max(counts.values()) > 1:
                    wrong.append(f"{cell.name}: {name}: several points of one step")
                values = {point.step: point.value for point in points}
                if name == "train/loss" and values != dict(steps["loss"]):
                    wrong.append(
                        f"{cell.name}: {name}: {len(counts)} of {len(steps)} steps, or others"
                    )
    return wrong


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Where two outcomes differ, one line each."""
    lines = [f"cells: {sorted(found)}"] if found.keys() != expected.keys() else []
    for cell in expected.keys() & found.keys():
        for what, value in expected[cell].items():
            if found[cell][what] != value:
                lines.append(
                    f"{cell}: {what}: {str(found[cell][what])[:100]}, not {str(value)[:100]}"
                )
    return lines


def finish(folder: Path) -> list[str]:
    """Lets a run end; what is wrong with it."""
    process = run_grid(folder)
    code = process.wait()
    wrong = [] if code == 0 else [f"run-grid ends with {code}"]
    for command in ("sync", "verify"):  # what MLflow lacks of a run that has nothing to do
        code = start(folder, command, "kills.yaml").wait()
        wrong += [] if code == 0 else [f"{command} ends with {code}"]
    return wrong


def main() -> int:
    """Runs rounds until there have been enough kills; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="a new one")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    options.folder.mkdir(parents=True)
    calm = options.folder / "calm"
    calm.mkdir()
    begun = time.monotonic()
    wrong = finish(calm)
    duration = time.monotonic() - begun
    expected = outcome(calm)
    wrong += tracked(calm)
    print(f"undisturbed: {duration:.0f} s; {json.dumps(wrong)}", flush=True)
    kills: Counter[str] = Counter()
    rounds = bad = 0
    while kills.total() < options.kills:
        rounds += 1
        folder = options.folder / f"round-{rounds}"
        folder.mkdir()
        for _ in range(min(draw.randint(1, MOST_KILLS), options.kills - kills.total())):
            process, whom = run_grid(folder), draw.choice(("all", "all", "parent", "workers"))
            try:
                process.wait(draw.uniform(0, duration))
                break  # it ended before
            except subprocess.TimeoutExpired:
                kill(process, whom)
                kills[whom] += 1
        wrong = finish(folder)
        try:
            wrong += differences(expected, outcome(folder)) + tracked(folder)
        except AssertionError as fault:
            wrong.append(str(fault))
        bad += bool(wrong)
        print(f"round {rounds}, {kills.total()} kills: {json.dumps(wrong)}", flush=True)
    print(f"{kills.total()} kills ({dict(kills)}) in {rounds} rounds: {bad} rounds went wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
