"""Measures this machine: 20 real optimizer steps and a little scoring for each model and method;
and what each cell of a grid takes by these times.

The models are untrained copies in worker processes like those of a run, as many at a time; nothing
of them is kept but the times, in `<runs>/estimates/probe.json`.

On a CPU with one thread per worker, times are the process's CPU time, so that other work on the
machine is not taken for slowness; elsewhere they are wall-clock time.
"""

from __future__ import annotations

import heapq
import json
import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.errors import TrainingError, ZbenchError
from harness.estimate.costs import CellEstimate, estimate_cell
from harness.estimate.gpus import device_name, gpu_of_device
from harness.estimate.probe_worker import (
    PairTime,
    ProbeSettings,
    begin_worker,
    measure,
)
from harness.estimate.tokens import FOLDER, num_items, token_counter
from harness.evaluation.tasks import scored_together
from harness.grid.schema import Cell
from harness.grid.status import CellState
from harness.records.files import write_text

PROBE_FILE = "probe.json"
COMMAND_SECONDS = 3.0
"""Of `run-grid` itself before its first worker starts, and after its last: an assumption."""


@dataclass(frozen=True)
class Probe:
    """The times of a machine, as they are kept."""

    device: str
    """Its name."""
    workers: int
    threads: int
    pairs: dict[str, PairTime]
    """By `pair_key`."""

    @property
    def cpu_share(self) -> float:
        """CPU time by wall-clock time of its workers: below 1 other work kept them waiting.

        1 on a GPU, where waiting for the GPU is the work.
        """
        shares = [times.cpu_share for times in self.pairs.values()]
        return statistics.median(shares) if shares else 1.0

    @property
    def start_seconds(self) -> float:
        """Seconds until the slowest worker process is ready for its first cell."""
        return max((times.start_seconds for times in self.pairs.values()), default=0.0)


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
        """All of a cell that is not its worker's first."""
        return self.training_seconds + self.scoring_seconds + self.other_seconds


def pair_key(cell: Cell) -> str:
    """What cells of one speed have in common: the model and the method's settings."""
    return f"{cell.model_name}/{cell.method_label}"


def representatives(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the largest cell of each model and method, with the tasks of all of them."""
    found: dict[str, Cell] = {}
    for cell in cells:
        known = found.setdefault(pair_key(cell), cell)
        largest = cell if (cell.fraction or 0) > (known.fraction or 0) else known
        tasks = tuple(dict.fromkeys(known.tasks + cell.tasks))
        found[pair_key(cell)] = largest.model_copy(update={"tasks": tasks})
    return list(found.values())


def run_probe(
    cells: Sequence[Cell],
    settings: ProbeSettings,
    devices: Sequence[str],
    on_done: Callable[[str], None],
) -> dict[str, PairTime]:
    """Returns the times of each model and method of `cells`, by `pair_key`.

    Args:
        cells: of the grid.
        settings: where and how workers run.
        devices: one worker each.
        on_done: told of each model and method that is measured.

    Raises:
        ZbenchError: one could not be measured; the line says why.
    """
    work = representatives(cells)
    found: dict[str, PairTime] = {}
    workers = min(len(devices), len(work))
    context = get_context("spawn")
    places = context.Queue()
    for device in devices[:workers]:
        places.put(device)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=begin_worker,
        initargs=(places, settings.threads, os.getpid()),
    )
    with pool:
        futures = {pair_key(cell): pool.submit(measure, cell, settings) for cell in work}
        try:
            for key, future in futures.items():
                found[key] = future.result()
                on_done(key)
        except BrokenProcessPool as fault:
            raise TrainingError(
                "--probe: a worker process died (out of memory?); probe fewer cells with --only, "
                "or on a larger machine"
            ) from fault
        except Exception as fault:
            pool.shutdown(cancel_futures=True)
            if isinstance(fault, ZbenchError):
                raise
            raise TrainingError(f"--probe: {key}: {type(fault).__name__}: {fault}") from fault
    return found


def write_probe(runs_dir: Path, probe: Probe) -> None:
    """Keeps a probe for `run-grid`, with what earlier ones on the same machine measured.

    Raises:
        StorageError: it cannot be written.
    """
    known = read_probe(runs_dir)
    if known is not None and replace(known, pairs={}) == replace(probe, pairs={}):
        probe = replace(probe, pairs=known.pairs | probe.pairs)
    text = json.dumps(asdict(probe), indent=1)
    write_text(runs_dir / FOLDER / PROBE_FILE, text + "\n")


def read_probe(runs_dir: Path) -> Probe | None:
    """Returns the probe that is kept, or None where there is none that can be read."""
    try:
        return TypeAdapter(Probe).validate_json((runs_dir / FOLDER / PROBE_FILE).read_bytes())
    except (OSError, ValueError):
        return None


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
    if not state.trained:
        if num_rows is None or not times.tokens_per_row:
            return None
        assert cell.train is not None
        assert cell.fraction is not None
        rows = round(cell.fraction * num_rows)
        steps, tokens = (
            cell.train.total_steps(rows),
            cell.train.epochs * rows * times.tokens_per_row,
        )
        training = steps * times.step_seconds + tokens * times.token_seconds
        other += times.fixed_seconds + rows * times.row_seconds + times.save_seconds
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


def wall_seconds(forecasts: Sequence[CellForecast], probe: Probe) -> float:
    """Returns when the last of the workers that take the cells in turn is ready."""
    if not forecasts:
        return 0.0
    free = [(probe.start_seconds, number) for number in range(min(probe.workers, len(forecasts)))]
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
    once: dict[str, float] = {}
    for forecast in forecasts:
        once |= forecast.prepare_seconds
    own = sum(forecast.seconds for forecast in forecasts)
    workers = min(probe.workers, len(forecasts))
    return own + workers * (probe.start_seconds + sum(once.values()))


def expected_seconds(
    states: Sequence[CellState], devices: Sequence[str], runs_dir: Path, num_rows: int | None
) -> dict[str, dict[str, Any]]:
    """Returns training_seconds, scoring_seconds and their source, by cell id, where known.

    From the last probe of this machine where there is one for the model and method, else from the
    GPU's data sheet where it is a known one. Counts nothing that takes time: sizes of data are
    known ones.

    Args:
        states: the cells that are to do.
        devices: one worker each.
        runs_dir: where a probe is kept.
        num_rows: of the training data.
    """
    here = device_name(devices[0]) if states and devices else None
    if here is None:
        return {}
    probe = read_probe(runs_dir)
    found: dict[str, dict[str, Any]] = {}
    gpu_name, gpu = gpu_of_device(here) or (None, None)
    tokens_of = token_counter(runs_dir=runs_dir, data_root=None, num_rows=num_rows)
    for state in states:
        source = "probe"
        one: CellForecast | CellEstimate | None = None
        if probe is not None and probe.device == here:
            one = forecast_cell(state, probe, num_rows)
        if one is None and gpu is not None:
            try:
                source, one = str(gpu_name), estimate_cell(state, gpu, tokens_of)
            except ZbenchError:
                continue  # an estimate is no reason to stop a run
        if one is None or one.training_seconds is None or one.scoring_seconds is None:
            continue
        found[state.cell.id] = {
            "source": source,
            "training_seconds": one.training_seconds,
            "scoring_seconds": one.scoring_seconds,
        }
    return found
