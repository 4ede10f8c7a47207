"""Check 7: the same bits twice, and after a stop, with deterministic kernels."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import torch

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.cells import live, numbers_of, world_cells
from benchmarks.gpu_check.rows import Row, judged
from harness.records.environment import DETERMINISTIC
from harness.records.events import Event, StepDone
from harness.training.signals import Stopped

WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""cuBLAS reads it when it is first used: the process begins with it."""
METHOD = "zero-init-linear"


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic kernels, as `ZBENCH_DETERMINISTIC=1` asks a cell for them."""
    before = os.environ.get(DETERMINISTIC)
    os.environ[DETERMINISTIC] = "1"
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        if before is None:
            del os.environ[DETERMINISTIC]
        else:
            os.environ[DETERMINISTIC] = before


def same_bits(bench: Bench) -> Iterator[Row]:
    """A cell that trains, scores and generates: twice, and once stopped after two steps."""
    limit, fraction = (3, 0.05) if bench.tiny else (32, 0.2)
    tasks = (
        f"{{name: demo_arc_easy, limit: {limit}}}, {{name: demo_paper_arc_easy, limit: {limit}}}"
    )
    place, precision = bench.folder / "repeats", "fp32" if bench.tiny else bench.half
    (cell,) = world_cells(
        place, METHOD, precision=precision, fraction=fraction, tasks=tasks, minutes=0
    )

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with deterministic():
        first = numbers_of(live(cell, place / "first", bench.device))
        again = numbers_of(live(cell, place / "again", bench.device))
        yield compared("cell twice, deterministic", first, again)
        stopped = False
        try:
            live(cell, place / "stopped", bench.device, emit=stop)
        except Stopped:
            stopped = True
        resumed = numbers_of(live(cell, place / "stopped", bench.device))
        row = compared("cell stopped after 2 steps, resumed", first, resumed)
        yield row if stopped else judged(7, row.name, False, note="it did not stop")


def compared(name: str, first: dict[str, object], second: dict[str, object]) -> Row:
    """Whether two lives of a cell left the same."""
    different = [key for key in first if first[key] != second[key]]
    return judged(
        7,
        name,
        not different,
        found="equal bits" if not different else f"{', '.join(different)} differ",
        expected="equal bits",
        source="as on the CPU",
    )


def same_gradients(bench: Bench) -> Iterator[Row]:
    """Two steps at 7B's width, two layers, twice: the trained tensors are equal to the bit."""
    size, precision = ("tiny", "fp32") if bench.tiny else ("7B/2", bench.half)
    states = []
    with bench.released(), deterministic():
        for _ in range(2):
            step, spec = bench.train_step(METHOD, size, precision)
            batches = bench.batches(2, spec)
            step.choose_kernels(batches[0], 1)
            for batch in batches:
                step.backward(batch, 1)
                step.update(1e-3)
            states.append({name: value.cpu() for name, value in step.state().items()})
        different = [name for name, value in states[0].items() if not value.equal(states[1][name])]
        yield judged(
            7,
            f"{METHOD}, {size}: two steps, twice",
            not different,
            found="equal bits" if not different else f"{len(different)} tensors differ",
            expected="equal bits",
            source="as on the CPU",
            figures={"different": different[:20]},
        )
