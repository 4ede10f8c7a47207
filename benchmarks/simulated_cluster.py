"""A grid of 1,000 cells on 8 nodes of 8 GPUs that lose a node every 30 minutes, without warning
every second time: what the GPUs' time is spent on, by the virtual clock of a simulated cluster.

The cells are those of the paper's 7B grid with more seeds; how long each takes is what `plan`
expects of it on the GPU named. See `harness.testing.simulated_cluster` for what this shows.

    python -m benchmarks.simulated_cluster --hardware a100-80
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import yaml

from harness.cell.settings import RunSettings
from harness.estimate.costs import estimate_grid
from harness.execution.plan import RunPlan
from harness.execution.run_grid import GridOutcome, run_grid
from harness.grid.loader import find_grid
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.status import CellState
from harness.testing.simulated_cluster import Losses, SimulatedCluster, times_of

PROMPTS = ["random-init", "zero-init-linear", "zero-init-nonlinear"]
FRACTIONS = [0.01, 0.1, 0.3, 0.5, 1.0]
SEEDS, FULL_SEEDS = 66, 9
"""1 base model, 9 cells of full fine-tuning on 4 GPUs each, 990 of the prompt methods."""


def paper_like_states(*, seeds: int = SEEDS, full_seeds: int = FULL_SEEDS) -> list[CellState]:
    """Returns the cells of the paper's 7B grid with so many seeds; all are to do."""
    raw = yaml.safe_load(find_grid("paper-7b").read_text(encoding="utf-8"))
    for key in ("claims", "tables", "notes"):
        raw.pop(key)
    raw["blocks"] = [
        {"methods": ["base"]},
        {"methods": ["full"], "seeds": list(range(full_seeds)), "gpus_per_cell": 4},
        {"methods": PROMPTS, "fractions": FRACTIONS, "seeds": list(range(seeds))},
    ]
    cells = expand(resolve_grid(raw, place="many-seeds"))
    return [CellState(cell, Path("runs", "cells", cell.id), None, "to do", cell.tasks)
            for cell in cells]  # fmt: skip


def simulate(
    states: list[CellState], hardware: str = "a100-80", losses: Losses | None = None
) -> tuple[SimulatedCluster, GridOutcome]:
    """Returns the cluster after a grid has run on it, and what `run_grid` says of that."""
    runs_dir = Path("runs")
    estimate = estimate_grid(
        states, hardware, price_per_hour=None, runs_dir=runs_dir, data_root=None,
        num_rows={None: 52002},
    )  # fmt: skip
    known = {one.cell_id: one for one in estimate.cells}
    times = {state.cell.id: times_of(state, known[state.cell.id]) for state in states}
    cluster = SimulatedCluster(times, losses=losses or Losses())
    plan = RunPlan(RunSettings(runs_dir=runs_dir, data_root=None))
    return cluster, run_grid(states, cluster.prepare(states, plan), [], cluster)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hardware", default="a100-80")
    parser.add_argument("--minutes", type=float, default=30.0, help="between two losses")
    parser.add_argument("--seed", type=int, default=0, help="of which node is lost")
    options = parser.parse_args()
    states = paper_like_states()
    start = time.process_time()
    losses = Losses(every=60 * options.minutes, seed=options.seed)
    cluster, outcome = simulate(states, options.hardware, losses)
    hours = {name: seconds / 3600 for name, seconds in asdict(cluster.usage).items()}
    jobs = Counter(one.cell_id for one in cluster.placements)
    print(f"{len(outcome.done)} of {len(states)} cells done, {len(outcome.failed)} failed, "
          f"{len(cluster.placements)} jobs, {max(jobs.values())} of one cell at most, "
          f"{cluster.num_losses} nodes lost")  # fmt: skip
    print(f"{cluster.seconds / 3600:.1f} hours on {cluster.describe(None)}, "  # type: ignore[arg-type]
          f"{time.process_time() - start:.1f} s of this CPU")  # fmt: skip
    print("GPU hours: " + ", ".join(f"{value:.1f} {name}" for name, value in hours.items()))
    print(f"useful while there was work: {cluster.usage.share:.1%}")


if __name__ == "__main__":
    main()
