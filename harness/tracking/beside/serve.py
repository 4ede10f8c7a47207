"""The process of one tracker: takes a run's events from its parent until that closes the pipe.

`python -m harness.tracking.beside.serve SETTINGS`. After each message it answers with a line of
what has become of all so far.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import StorageError, mask_secrets, one_line
from harness.grid.schema import Cell
from harness.records.events import CellEnded, CellStarted, EpochValidated, Event, StepDone
from harness.records.results import read_result
from harness.tracking.beside.run import Begun, BesideRun, info_of
from harness.tracking.metrics import result_points, step_values, validation_values

Open = Callable[..., BesideRun]


@dataclass
class Answer:
    """What has become of the messages so far."""

    points: int = 0
    """Steps and validations that were looked at."""
    lost: int = 0
    """Of these, those that the tracker did not take."""
    fault: str | None = None
    """What it said first."""


@dataclass
class Served:
    """The cells' runs in one tracker."""

    open_run: Open
    group: str
    project: str
    runs_dir: Path
    answer: Answer = field(default_factory=Answer)
    cells: dict[str, Cell] = field(default_factory=dict)
    runs: dict[str, BesideRun | None] = field(default_factory=dict)
    """By cell; None for one that could not be begun."""
    epochs: set[tuple[str, str, int]] = field(default_factory=set)
    """Cell, metric and epoch of what was logged as it came."""

    def take(self, message: Event | Cell) -> None:
        """Does what a message asks; a fault of the tracker costs what it was given."""
        try:
            self._take(message)
        except (Exception, SystemExit) as fault:  # of any kind: it is foreign code
            self.answer.lost += isinstance(message, StepDone | EpochValidated)
            self.note(fault)
        self.answer.points += isinstance(message, StepDone | EpochValidated)

    def note(self, fault: BaseException) -> None:
        """Keeps the first fault."""
        said = one_line(mask_secrets(f"{type(fault).__name__}: {fault}"))[:300]
        self.answer.fault = self.answer.fault or said
        print(f"zbench: {said}", file=sys.stderr, flush=True)

    def _take(self, message: Event | Cell) -> None:
        if isinstance(message, Cell):
            self.cells[message.id] = message
        elif isinstance(message, CellStarted):
            if (run := self.runs.pop(message.cell_id, None)) is not None:
                run.leave()  # a fresh process takes the cell on
        elif isinstance(message, StepDone):
            run = self._run(message.cell_id, "resumed" if message.restored else "fresh")
            run.log(step_values(message), step=message.step, time_ms=message.time_ms)
        elif isinstance(message, EpochValidated):
            run = self._run(message.cell_id, "resumed" if message.restored else "fresh")
            values = validation_values(message)
            run.log_epoch(values, epoch=message.epoch)
            self.epochs |= {(message.cell_id, key, message.epoch) for key in values}
        elif isinstance(message, CellEnded):
            self._end(message)

    def _run(self, cell_id: str, begun: Begun) -> BesideRun:
        """The run of a cell, begun with its first point."""
        if cell_id not in self.runs:
            self.runs[cell_id] = None
            info = info_of(
                self.cells[cell_id], group=self.group, project=self.project, runs_dir=self.runs_dir
            )
            self.runs[cell_id] = self.open_run(info, begun)
        run = self.runs[cell_id]
        if run is None:
            raise RuntimeError("the run could not be begun")
        return run

    def _end(self, event: CellEnded) -> None:
        """Logs a cell's result, or why it has none, and ends its run."""
        key = event.cell_id
        if event.paused:
            if (run := self.runs.pop(key, None)) is not None:
                run.leave()
            return
        try:
            result = read_result(Path(event.folder))
        except StorageError:  # reported where the cells are listed
            result = None
        run = self._run(key, "scores")
        points = {} if result is None else result_points(result, self.cells[key].tasks)
        epochs: dict[int, dict[str, float]] = {}
        for (name, step), value in points.items():
            if name.endswith("/epoch_loss") and (key, name, step) not in self.epochs:
                epochs.setdefault(step, {})[name] = value
        try:
            for epoch, values in epochs.items():
                run.log_epoch(values, epoch=epoch)
        finally:
            self.runs.pop(key)
            rest = {k: v for (k, _), v in points.items() if not k.endswith("/epoch_loss")}
            run.finish(rest, event.error)

    def close(self) -> None:
        """Ends what is left of cells that were stopped."""
        for run in filter(None, self.runs.values()):
            try:
                run.leave()
            except (Exception, SystemExit) as fault:  # of any kind: it is foreign code
                self.note(fault)


def main(argument: str) -> None:
    """Serves one tracker until the parent closes the pipe."""
    settings: dict[str, Any] = json.loads(argument)
    answers = os.fdopen(os.dup(1), "w")
    _print_to(Path(settings["log"]))
    with contextlib.suppress(OSError):
        os.nice(10)  # a training on this machine goes before
    source = os.fdopen(os.dup(0), "rb")
    module = importlib.import_module(settings["module"])
    served = Served(
        module.open_run, settings["group"], settings["project"], Path(settings["runs_dir"])
    )

    def tell(**more: object) -> None:
        with contextlib.suppress(OSError):  # the parent has gone
            answers.write(json.dumps({**served.answer.__dict__, **more}) + "\n")
            answers.flush()

    with contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            served.take(pickle.load(source))
            tell()
    served.close()
    told = getattr(module, "note", lambda runs_dir: None)(settings["runs_dir"])
    tell(note=told, over=True)


def _print_to(path: Path) -> None:
    """Sends all that this process prints to a file, or nowhere."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        file = os.open(os.devnull, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # threads of a tracker keep nobody waiting
