"""What a probe's times make of a grid: seconds per cell, and when the last worker is ready."""

from __future__ import annotations

import heapq
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.estimate.lengths import FOLDER
from harness.estimate.probe import pair_key
from harness.estimate.probe_worker import PairTime, ScoringTime
from harness.estimate.tokens import num_items
from harness.evaluation.tasks import scored_together
from harness.grid.schema import Cell
from harness.grid.status import CellState
from harness.records.files import write_text

PROBE_FILE = "probe.json"
COMMAND_SECONDS = 3.0
"""Of `run-grid` itself before its first worker starts, and after its last: an assumption."""


@dataclass(frozen=True)
class CellForecast:
    """Seconds of what is left to do of a cell."""

    cell_id: str
    label: str
    training_seconds: float
    scoring_seconds: float
    other_seconds: float
    """Loading, tokenising, saving."""
    prepare_seconds: dict[str, float]
    """Once in each worker: prompts are built and encoded; by benchmarks."""

    @property
    def seconds(self) -> float:
        """Of a cell that is not its worker's first."""
        return self.training_seconds + self.scoring_seconds + self.other_seconds


@dataclass(frozen=True)
class Probe:
    """The times of a machine, as they are kept."""

    device: str
    """Its name."""
    workers: int
    threads: int
    pairs: dict[str, PairTime]

    @property
    def cpu_share(self) -> float:
        """CPU time by wall-clock time of its workers: below 1 other work kept them waiting.

        1 on a GPU, where waiting for the GPU is the work.
        """
        shares = [times.cpu_share for times in self.pairs.values()]
        return statistics.median(shares) if shares else 1.0


def write_probe(runs_dir: Path, probe: Probe) -> Path:
    """Keeps a probe for `run-grid`, with what earlier ones on the same machine measured.

    Raises:
        StorageError: it cannot be written.
    """
    known = read_probe(runs_dir)
    same = known is not None and (known.device, known.workers, known.threads) == (
        probe.device,
        probe.workers,
        probe.threads,
    )
    record = asdict(probe)
    if known is not None and same:
        record["pairs"] = asdict(known)["pairs"] | record["pairs"]
    path = runs_dir / FOLDER / PROBE_FILE
    write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def read_probe(runs_dir: Path) -> Probe | None:
    """Returns the probe that is kept, or None where there is none that can be read."""
    try:
        text = (runs_dir / FOLDER / PROBE_FILE).read_text(encoding="utf-8")
        raw: dict[str, Any] = json.loads(text)
        pairs = {key: _pair(value) for key, value in raw["pairs"].items()}
        return Probe(str(raw["device"]), int(raw["workers"]), int(raw["threads"]), pairs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _pair(raw: dict[str, Any]) -> PairTime:
    scoring = {name: ScoringTime(**times) for name, times in raw["scoring"].items()}
    return PairTime(**raw | {"scoring": scoring})


def forecast_cell(state: CellState, probe: Probe, num_rows: int | None) -> CellForecast | None:
    """Returns the seconds of what is left of a cell; None where the probe does not tell.

    Args:
        state: the cell, and what of it is done.
        probe: of this machine.
        num_rows: of the training data.
    """
    cell, times = state.cell, probe.pairs.get(pair_key(state.cell))
    if times is None or state.status == "done":
        return None
    training, other = 0.0, times.load_seconds
    if cell.train is not None and not state.trained:
        if num_rows is None or not times.tokens_per_row:
            return None
        training, preparing = _training(cell, times, num_rows)
        other += preparing
    prepare: dict[str, float] = {}
    scoring = 0.0
    for group in scored_together(state.missing if state.trained else cell.tasks):
        name = "+".join(task.name for task in group)
        measured, items = times.scoring.get(name), num_items(group[0])
        if measured is None or items is None:
            return None
        scoring += measured.call_seconds + measured.item_seconds * items
        prepare[name] = measured.prepare_seconds * items
    return CellForecast(cell.id, cell.label, training, scoring, other, prepare)


def _training(cell: Cell, times: PairTime, num_rows: int) -> tuple[float, float]:
    """Returns the seconds of the training loop, and those around it."""
    assert cell.train is not None
    assert cell.fraction is not None
    rows = round(cell.fraction * num_rows)
    steps = cell.train.total_steps(rows)
    tokens = cell.train.epochs * rows * times.tokens_per_row
    loop = steps * times.step_seconds + tokens * times.token_seconds
    return loop, times.fixed_seconds + rows * times.row_seconds + times.save_seconds


def wall_seconds(forecasts: Sequence[CellForecast], probe: Probe) -> float:
    """Returns when the last of the workers is ready that take the cells in turn."""
    if not forecasts:
        return 0.0
    start = max((times.start_seconds for times in probe.pairs.values()), default=0.0)
    free = [(start, number) for number in range(min(probe.workers, len(forecasts)))]
    prepared: dict[int, set[str]] = {number: set() for _, number in free}
    for forecast in forecasts:
        at, number = heapq.heappop(free)
        new = set(forecast.prepare_seconds) - prepared[number]
        prepared[number] |= new
        at += forecast.seconds + sum(forecast.prepare_seconds[name] for name in new)
        heapq.heappush(free, (at, number))
    return COMMAND_SECONDS + max(at for at, _ in free)


def busy_seconds(forecasts: Sequence[CellForecast], probe: Probe) -> float:
    """Returns the seconds of all workers together: GPU hours, or a CPU's core hours."""
    workers = min(probe.workers, len(forecasts))
    start = max((times.start_seconds for times in probe.pairs.values()), default=0.0)
    once: dict[str, float] = {}
    for forecast in forecasts:
        once |= forecast.prepare_seconds
    own = sum(forecast.seconds for forecast in forecasts)
    return own + workers * (start + sum(once.values()))
