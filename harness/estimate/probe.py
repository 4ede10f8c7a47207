"""Measures this machine: 20 real optimizer steps and a little scoring for each model and method.

The models are untrained copies in worker processes like those of a run, as many at a time; nothing
of them is kept but the times, in `<runs>/estimates/probe.json`. From the times follows what each
cell of the grid takes here.

On a CPU with one thread per worker, times are the process's CPU time, so that other work on the
machine is not taken for slowness; elsewhere they are wall-clock time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from harness.errors import TrainingError, ZbenchError
from harness.estimate.probe_worker import PairTime, ProbeSettings, begin_worker, measure
from harness.grid.schema import Cell


def pair_key(cell: Cell) -> str:
    """Returns what cells of one speed have in common: the model and the method's settings."""
    return f"{cell.model_name}/{cell.method_label}"


def representatives(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the largest cell of each model and method, with the tasks of all of them."""
    found: dict[str, Cell] = {}
    for cell in cells:
        known = found.get(pair_key(cell))
        tasks = tuple(dict.fromkeys((known.tasks if known else ()) + cell.tasks))
        larger = known is None or (cell.fraction or 0) > (known.fraction or 0)
        chosen = cell if larger or known is None else known
        found[pair_key(cell)] = chosen.model_copy(update={"tasks": tasks})
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
        workers, mp_context=context, initializer=begin_worker, initargs=(places, settings.threads)
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
        except ZbenchError:
            pool.shutdown(cancel_futures=True)
            raise
        except Exception as fault:
            pool.shutdown(cancel_futures=True)
            raise TrainingError(f"--probe: {key}: {type(fault).__name__}: {fault}") from fault
    return found
