"""What telemetry costs: one cell of the demo trained with its telemetry and without.

Two measures, printed per method. `inside`: the seconds within the telemetry's calls as a share of
the rest of the same training. `ratio`: the whole training with telemetry by the one without, median
over pairs that take turns in going first. Seconds are the process's CPU time, or on CUDA wall-clock
time, so that neighbours on the machine disturb less.

    python benchmarks/telemetry_cost.py --repeats 5
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.data.instructions import tokenize
from harness.data.sets import choose, read_instructions
from harness.demo.world import write_world
from harness.grid.loader import load_grid
from harness.grid.schema import Cell, expand
from harness.methods import METHODS
from harness.methods.zero_init.telemetry import PromptTelemetry
from harness.models.devices import resolve_precision
from harness.models.loading import load_base
from harness.training.loop import fit
from harness.training.method_statistics import MethodStatistics

PROMPT_METHODS = ("random-init", "zero-init-linear", "zero-init-nonlinear")


class TimedTelemetry(PromptTelemetry):
    """Telemetry that measures how long its own calls took."""

    def __init__(self, model: torch.nn.Module, clock: Callable[[], float]) -> None:
        super().__init__(model)
        self.clock = clock
        self.seconds = 0.0

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        start = self.clock()
        found = call(*arguments)
        self.seconds += self.clock() - start
        return found

    def start(self, token_ids: Sequence[Sequence[int]]) -> None:
        self._timed(super().start, token_ids)

    def finish(self, token_ids: Sequence[Sequence[int]]) -> None:
        self._timed(super().finish, token_ids)

    def observe_gradients(self) -> None:
        self._timed(super().observe_gradients)

    def collect(self, step: int) -> dict[str, float]:
        found: dict[str, float] = self._timed(super().collect, step)
        return found


def clock_of(device: str) -> Callable[[], float]:
    """Returns a clock: CPU time, or wall-clock time of a GPU that has nothing left to do."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def train(cell: Cell, root: Path, device: str, *, followed: bool) -> tuple[float, float, float]:
    """Trains a cell; returns the seconds of it all, those in telemetry, and the last loss."""
    assert cell.train is not None
    assert cell.fraction is not None
    assert cell.seed is not None
    data = read_instructions(cell.data, data_root=root)
    precision = resolve_precision("auto", device)
    base = load_base(cell.model, data_root=root, device=device, precision=precision)
    rows = choose(data.rows, cell.fraction, cell.seed)
    examples = tokenize(rows, base.tokenizer, cell.train.max_length)
    model = METHODS[cell.method].apply(base.model, cell.options, cell.seed)
    clock = clock_of(device)
    telemetry = TimedTelemetry(model, clock) if followed else None
    start = clock()
    result = fit(
        model,
        examples,
        cell.train,
        seed=cell.seed,
        device=device,
        precision=precision,
        pad_token_id=0,
        callbacks=[MethodStatistics(None, telemetry)],
    )
    return clock() - start, telemetry.seconds if telemetry else 0.0, result.epoch_losses[-1]


def compare(cell: Cell, root: Path, device: str, repeats: int) -> str:
    """Returns a line of the table: what telemetry costs in one cell."""
    ratios, insides, wholes = [], [], []
    for repeat in range(repeats):
        seconds: dict[bool, float] = {}
        losses = []
        for followed in (True, False) if repeat % 2 else (False, True):
            seconds[followed], inside, loss = train(cell, root, device, followed=followed)
            losses.append(loss)
            if followed:
                insides.append(inside / (seconds[True] - inside))
                wholes.append(inside)
        assert losses[0] == losses[1] or device != "cpu", "telemetry changed the training"
        ratios.append(seconds[True] / seconds[False])
    return (
        f"{cell.label:44} {statistics.median(wholes):8.3f} {statistics.median(insides):8.2%} "
        f"{statistics.median(ratios):8.4f} {min(ratios):8.4f} {max(ratios):8.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the demo's grid")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("harness").setLevel(logging.ERROR)  # warm-up warnings of small fractions
    cells = [
        cell
        for cell in expand(load_grid("demo"))
        if cell.method in PROMPT_METHODS and (cell.fraction, cell.seed) == (options.fraction, 0)
    ]
    head = ("in calls", "inside", "ratio", "lowest", "highest")
    print(f"{'cell':44} " + " ".join(f"{name:>8}" for name in head))
    with tempfile.TemporaryDirectory() as folder:
        root = write_world(Path(folder) / "demo")
        for cell in cells:
            print(compare(cell, root, options.device, options.repeats), flush=True)


if __name__ == "__main__":
    main()
