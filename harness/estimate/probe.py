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
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.errors import TrainingError, ZbenchError, plain_message
from harness.estimate.costs import CellEstimate, estimate_cell
from harness.estimate.gpus import device_name, gpu_of_device
from harness.estimate.lengths import FOLDER
from harness.estimate.probe_worker import PairTime, ProbeSettings, begin_worker, measure
from harness.estimate.tokens import num_items, token_counter
from harness.evaluation.tasks import scored_together
from harness.grid.schema import Cell, RowCounts
from harness.grid.status import CellState
from harness.records.files import write_text

PROBE_FILE = "probe.json"
COMMAND_SECONDS = 3.0
"""Time of `run-grid` before its first worker starts and after its last: an assumption."""


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


@dataclass(frozen=True)
class GridForecast:
    """What is left to do of a grid, on this machine."""

    probe: Probe
    cells: tuple[CellForecast, ...]
    """In the order of the grid."""
    num_cells: int
    """With those that the probe tells nothing of."""

    @property
    def wall_seconds(self) -> float:
        """When the last of the workers that take the cells in turn is ready."""
        if not self.cells:
            return 0.0
        workers = range(min(self.probe.workers, len(self.cells)))
        free = [(self.probe.start_seconds, number) for number in workers]
        prepared: dict[int, set[str]] = {number: set() for number in workers}
        for cell in self.cells:
            at, number = heapq.heappop(free)
            new = set(cell.prepare_seconds) - prepared[number]
            prepared[number] |= new
            at += cell.seconds + sum(cell.prepare_seconds[name] for name in new)
            heapq.heappush(free, (at, number))
        return COMMAND_SECONDS + max(at for at, _ in free)

    @property
    def worker_seconds(self) -> float:
        """All workers together: GPU seconds, or a CPU's core seconds."""
        once = {name: s for cell in self.cells for name, s in cell.prepare_seconds.items()}
        workers = min(self.probe.workers, len(self.cells))
        own = sum(cell.seconds for cell in self.cells)
        return own + workers * (self.probe.start_seconds + sum(once.values()))

    def record(self, price_per_hour: float | None) -> dict[str, Any]:
        """All of it as plain values."""
        record = {
            "wall_seconds": self.wall_seconds,
            "wall_seconds_as_busy": self.wall_seconds / self.probe.cpu_share,
            "worker_seconds": self.worker_seconds,
            "price_per_hour": price_per_hour,
            "cells": [asdict(cell) | {"seconds": cell.seconds} for cell in self.cells],
            "probe": asdict(self.probe),
        }
        if price_per_hour is not None:
            record["cost"] = self.worker_seconds / 3600 * price_per_hour
        return record


def pair_key(cell: Cell) -> str:
    """What cells of one speed have in common: the model and the method's settings."""
    return f"{cell.model_name}/{cell.method_label}"


def representatives(cells: Sequence[Cell]) -> list[Cell]:
    """The largest cell of each model and method, with the tasks of all of them."""
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
    """The times of each model and method of `cells`, by `pair_key`, on one worker per device.

    `on_done` is called with the key of each that is measured.

    Raises:
        ZbenchError: one could not be measured; the line says why.
    """
    work = representatives(cells)
    if not work:
        return {}
    keys, found = [pair_key(cell) for cell in work], dict[str, PairTime]()
    context = get_context("spawn")
    free = context.Queue()
    for device in devices[: len(work)]:
        free.put(device)
    pool = ProcessPoolExecutor(
        min(len(devices), len(work)),
        mp_context=context,
        initializer=begin_worker,
        initargs=(free, settings.threads, os.getpid()),
    )
    try:
        with pool:
            for key, times in zip(keys, pool.map(measure, work, repeat(settings)), strict=True):
                found[key] = times
                on_done(key)
    except BrokenProcessPool as fault:
        raise TrainingError(
            "--probe: a worker process died (out of memory?); probe fewer cells with --only, "
            "or on a larger machine"
        ) from fault
    except ZbenchError:
        raise
    except Exception as fault:  # whatever a model or method raises, as in a cell
        failed = keys[len(found)]
        raise TrainingError(f"--probe: {failed}: {plain_message(fault)}") from fault
    return found


def write_probe(runs_dir: Path, probe: Probe) -> None:
    """Keeps a probe for `run-grid`, with what earlier ones on the same machine measured.

    Raises:
        StorageError: it cannot be written.
    """
    known = read_probe(runs_dir)
    if known is not None and replace(known, pairs={}) == replace(probe, pairs={}):
        probe = replace(probe, pairs=known.pairs | probe.pairs)
    write_text(runs_dir / FOLDER / PROBE_FILE, json.dumps(asdict(probe), indent=1) + "\n")


def read_probe(runs_dir: Path) -> Probe | None:
    """The probe that is kept, or None where there is none that can be read."""
    try:
        return TypeAdapter(Probe).validate_json((runs_dir / FOLDER / PROBE_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def forecast_cell(state: CellState, probe: Probe, num_rows: RowCounts) -> CellForecast | None:
    """Seconds of what is left of a cell, or None; `num_rows` has the size of each training set."""
    cell, times = state.cell, probe.pairs.get(pair_key(state.cell))
    if times is None or state.status == "done":
        return None
    training, other = 0.0, times.load_seconds
    if not state.trained:
        if (size := num_rows.get(cell.data_name)) is None or not times.tokens_per_row:
            return None
        assert cell.train is not None
        assert cell.fraction is not None
        rows = round(cell.fraction * size)
        steps, tokens = (
            cell.train.total_steps(rows),
            cell.train.num_passed(rows) * times.tokens_per_row,
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


def forecast_grid(states: Sequence[CellState], probe: Probe, num_rows: RowCounts) -> GridForecast:
    """Forecasts the cells that are to do."""
    forecasts = [forecast_cell(state, probe, num_rows) for state in states]
    return GridForecast(probe, tuple(one for one in forecasts if one is not None), len(states))


def expected_seconds(
    states: Sequence[CellState], devices: Sequence[str], runs_dir: Path, num_rows: RowCounts
) -> dict[str, dict[str, Any]]:
    """Seconds of training and of scoring, and their source, by cell id, where known.

    From the last probe of this machine, kept in `runs_dir`, where there is one for the model and
    method, else from the GPU's data sheet where it is a known one. Counts nothing that takes time:
    sizes of data are known ones.
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
