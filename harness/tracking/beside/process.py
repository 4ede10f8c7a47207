"""A listener that passes a run's events to one tracker, in a process of its own.

Nothing waits for it: where the tracker is too slow its points are counted and dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from harness.grid.schema import Cell, GridSpec
from harness.grid.status import CellState
from harness.records.events import CellEnded, CellStarted, EpochValidated, Event, StepDone
from harness.tracking.beside.registry import TRACKERS

MOST_WAITING = 20_000
"""Points that wait for a tracker; those that come then are left out."""
CLOSE_SECONDS = 30.0
"""How long the end of a run waits for a tracker that lags."""


class Beside:
    """Passes events on; `close` says what was lost."""

    def __init__(
        self, name: str, grid: GridSpec, runs_dir: Path, states: Sequence[CellState]
    ) -> None:
        self.name = name
        self.log = runs_dir / name / "zbench.log"
        self.settings = {
            "module": TRACKERS[name].module,
            "group": grid.name,
            "project": grid.tracking.experiment or grid.name,
            "runs_dir": str(runs_dir),
            "log": str(self.log),
        }
        self.cells = {state.cell.id: state.cell for state in states}
        self.note: str | None = None
        """What the tracker says of its runs: how to see or upload them."""
        self.points = self.dropped = 0
        self._waiting: deque[Event] = deque()
        self._wake, self._closing, self._ended = threading.Condition(), False, False
        self._answer: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._pass_on, name=f"beside-{name}", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if not isinstance(event, CellStarted | StepDone | EpochValidated | CellEnded):
            return
        if isinstance(event, CellEnded) and event.elsewhere:
            return
        is_point = isinstance(event, StepDone | EpochValidated)
        with self._wake:
            self.points += is_point
            if self._ended or (is_point and len(self._waiting) >= MOST_WAITING):
                self.dropped += is_point
                return
            self._waiting.append(event)
            self._wake.notify()

    def add(self, states: Sequence[CellState]) -> None:
        """Makes cells known that the results of others have decided."""
        self.cells |= {state.cell.id: state.cell for state in states}

    def close(self, timeout: float = CLOSE_SECONDS) -> str | None:
        """Waits until the tracker has all, for a while; returns what it lacks, in one line."""
        until = time.monotonic() + timeout
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)
        process, code = self._process, None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(max(until - time.monotonic(), 0.1))
            process.kill()
            process.wait()
            self._reader.join(5)
        self.note = self._answer.get("note")
        if process is None and not self.points:
            return self._answer.get("fault")
        taken = self._answer.get("points", 0) - self._answer.get("lost", 0)
        fault = self._answer.get("fault")
        if not self._answer.get("over"):
            late = "too slow; gave up waiting" if code is None else f"its process ended ({code})"
            fault = fault or late
        if self.points == taken and fault is None:
            return None
        return (
            f"{self.name}: {self.points - taken} of {self.points} points are not in it ({fault}); "
            f"the cells lost nothing; log: {self.log}"
        )

    def _pass_on(self) -> None:
        """Starts the process and writes events into its pipe, in a thread that may wait for it."""
        known: set[str] = set()
        try:
            pipe = None
            while (event := self._next()) is not None:
                pipe = pipe or self._start()
                message: list[Event | Cell] = [event]
                if event.cell_id not in known:
                    known.add(event.cell_id)
                    message.insert(0, self.cells[event.cell_id])
                for one in message:
                    pickle.dump(one, pipe)
                pipe.flush()
            if pipe is not None:
                pipe.close()
        except OSError as fault:  # it could not be started, or has ended
            self._answer.setdefault("fault", None)
            if self._process is None:
                self._answer["fault"] = f"cannot be started: {fault.strerror}"
        finally:
            with self._wake:
                self._ended = True

    def _next(self) -> Event | None:
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            return self._waiting.popleft() if self._waiting else None

    def _start(self) -> IO[bytes]:
        environment = _environment(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.tracking.beside.serve", json.dumps(self.settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # ctrl-C is not for it: it ends with the pipe
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answers = self._process.stdout
        self._reader = threading.Thread(target=self._read, args=(answers,), daemon=True)
        self._reader.start()
        return self._process.stdin

    def _read(self, answers: IO[bytes]) -> None:
        for line in answers:
            with contextlib.suppress(ValueError):
                self._answer = json.loads(line)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """What a tracker's process gets: this one's modules, one thread and no GPU."""
    modules = os.pathsep.join(path for path in sys.path if path)
    return {
        **own,
        "PYTHONPATH": modules,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
