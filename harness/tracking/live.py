"""Logs a run to MLflow as it goes, from a thread that nothing waits for."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StorageError, TrackingError, mask_secrets
from harness.grid.schema import GridSpec
from harness.grid.status import CellState
from harness.records.events import (
    CellEnded,
    CellQueued,
    CellStarted,
    EpochValidated,
    Event,
    StepDone,
)
from harness.records.results import read_result
from harness.tracking.faults import store_errors
from harness.tracking.metrics import step_metrics, validation_metrics
from harness.tracking.runners import BEAT_SECONDS
from harness.tracking.runs import GridRuns
from harness.tracking.store import MAX_BATCH, tag_text

if TYPE_CHECKING:
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
RETRY_SECONDS = 30.0
"""Between two attempts to reach a server that does not answer."""


@dataclass(frozen=True)
class _Added:
    """Cells that were not known when the run began."""

    states: tuple[CellState, ...]


Events = queue.SimpleQueue[Event | _Added | None]


class Tracker:
    """A listener that logs a run's events to MLflow, from a thread that first makes the database.

    While the server does not answer, events are kept and tried again; what is still missing at the
    end is named in `problem`, and `sync` makes up for it.
    """

    def __init__(
        self, grid: GridSpec, uri: str, runs_dir: Path, states: Sequence[CellState]
    ) -> None:
        self.grid, self.uri, self.runs_dir = grid, uri, runs_dir
        self.states = {state.cell.id: state for state in states}
        self.problem: str | None = None
        self.told: str | None = None
        """What was done to a broken database, in one line."""
        self._events: Events = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        self._events.put(event)

    def add(self, states: Sequence[CellState]) -> None:
        """Makes cells known that the results of others have decided; logs what they have."""
        self._events.put(_Added(tuple(states)))

    def close(self, timeout: float = 60.0) -> str | None:
        """Waits until everything is logged; returns the problem, if there is one."""
        self._closing.set()
        self._events.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.problem = f"MLflow at {mask_secrets(self.uri)}: too slow; gave up waiting"
        return self.problem

    def _run(self) -> None:
        live: _LiveLog | None = None
        last = False
        while True:
            try:
                with store_errors(self.uri):
                    if live is None:
                        runs = GridRuns(self.grid, self.uri, self.runs_dir, live=True)
                        self.told = self.told or runs.store.told
                        runs.sync(list(self.states.values()))
                        live = _LiveLog(runs, self.states)
                    live.follow(self._events)
                    live.runs.close()
                self.problem = None
                return
            except TrackingError as fault:
                self.problem = str(fault)
                logger.debug("live logging stopped", exc_info=True)
                if last:
                    return
                last = self._closing.wait(RETRY_SECONDS)
                if last:  # the server may be there again
                    self._events.put(None)  # the end, which may have been taken


class _LiveLog:
    """What the tracker's thread does with the events; an event that fails is tried again."""

    def __init__(self, runs: GridRuns, states: dict[str, CellState]) -> None:
        self.runs = runs
        self.states = states
        self.run_ids: dict[str, str] = {}
        self.pending: dict[str, list[Metric]] = {}
        self.unhandled: Event | _Added | None = None
        self.beaten = time.monotonic()
        self.logged_by_jobs: set[str] = set()
        """Cells that others log: a second run of each would be in the way."""

    def follow(self, events: Events) -> None:
        """Logs events as they come, until None; after an error nothing is lost, and it resumes."""
        while True:
            if time.monotonic() - self.beaten > BEAT_SECONDS:
                self.runs.beat()
                self.beaten = time.monotonic()
            if self.unhandled is None:
                try:
                    self.unhandled = events.get(timeout=FLUSH_SECONDS)
                except queue.Empty:
                    self._flush()
                    continue
            if self.unhandled is None:
                self._flush()
                return
            self._take(self.unhandled)
            self.unhandled = None
            if any(len(metrics) >= MAX_BATCH // 2 for metrics in self.pending.values()):
                self._flush()

    def _take(self, event: Event | _Added) -> None:
        if isinstance(event, _Added):
            self.states |= {state.cell.id: state for state in event.states}
            self.runs.sync(event.states)
        elif isinstance(event, CellQueued):
            if event.logged:
                self.logged_by_jobs.add(event.cell_id)
        elif event.cell_id in self.logged_by_jobs:
            if isinstance(event, CellEnded):
                self.logged_by_jobs.discard(event.cell_id)
        elif isinstance(event, CellStarted) and event.total_steps:
            if event.cell_id in self.run_ids:  # a fresh process emits all steps again
                self._flush()
                self.runs.client.set_terminated(self.run_ids.pop(event.cell_id), "KILLED")
            cell = self.states[event.cell_id].cell
            self.runs.show_running()
            self.run_ids[event.cell_id] = self.runs.create_cell_run(cell)
        elif isinstance(event, StepDone) and event.cell_id in self.run_ids:
            self.pending.setdefault(event.cell_id, []).extend(step_metrics(event))
        elif isinstance(event, EpochValidated) and event.cell_id in self.run_ids:
            self.pending.setdefault(event.cell_id, []).extend(validation_metrics(event))
        elif isinstance(event, CellEnded) and not event.elsewhere:
            self._flush()
            self._end(event)

    def _end(self, event: CellEnded) -> None:
        if event.paused:  # a run of its own has the whole training, once it is resumed
            if (run_id := self.run_ids.pop(event.cell_id, None)) is not None:
                self.runs.client.set_terminated(run_id, "KILLED")
            return
        folder = Path(event.folder)
        try:
            result = read_result(folder)
        except StorageError:  # reported where the cells are listed
            result = None
        run_id = self.run_ids.get(event.cell_id)
        state = replace(self.states[event.cell_id], result=result, folder=folder)
        if run_id is None:
            if result is not None:
                self.runs.replay(state)
            return
        if result is not None:
            self.runs.tag_training(run_id, result)
            self.runs.log_result(run_id, state)
        else:
            self.runs.client.set_tag(run_id, "zbench.error", tag_text(event.error or ""))
            self.runs.client.set_terminated(run_id, "FAILED")
        del self.run_ids[event.cell_id]

    def _flush(self) -> None:
        for cell_id, metrics in list(self.pending.items()):
            self.runs.store.log_metrics(self.run_ids[cell_id], metrics)
            del self.pending[cell_id]
