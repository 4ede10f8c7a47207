"""Logging a run as it goes, from a thread that nothing waits for."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import TrackingError
from harness.events import CellEnded, CellStarted, Event, StepDone
from harness.grid import GridSpec
from harness.results import read_result
from harness.state import CellState
from harness.tracking.metrics import step_metrics
from harness.tracking.runs import MAX_BATCH, GridRuns, same_training
from harness.tracking.uri import hide_password, tracking_error

if TYPE_CHECKING:
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0


@dataclass
class Tracker:
    """Logs a run's events to MLflow from a thread of its own, so that nothing waits for it.

    A fault ends the live logging and stands in `problem`; `sync` makes up for it.
    """

    grid: GridSpec
    uri: str
    runs_dir: Path
    states: Sequence[CellState]
    problem: str | None = None
    _events: queue.SimpleQueue[Event | None] = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread; it makes the database before it logs anything."""
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        if self.problem is None:
            self._events.put(event)

    def close(self, timeout: float = 60.0) -> str | None:
        """Waits until everything is logged; returns what went wrong, if anything did."""
        self._events.put(None)
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                self.problem = f"MLflow at {hide_password(self.uri)}: too slow; gave up waiting"
        return self.problem

    def _run(self) -> None:
        try:
            runs = GridRuns(self.grid, self.uri, self.runs_dir)
            runs.sync(self.states)
            _LiveLog(runs, {state.cell.id: state for state in self.states}).follow(self._events)
            runs.close()
        except TrackingError as fault:
            self.problem = str(fault)
            logger.warning("%s", self.problem)
        except Exception as fault:
            self.problem = str(tracking_error(self.uri, fault))
            logger.warning("%s", self.problem)


class _LiveLog:
    """What the tracker's thread does with the events."""

    def __init__(self, runs: GridRuns, states: Mapping[str, CellState]) -> None:
        self.runs = runs
        self.states = states
        self.run_ids: dict[str, str] = {}
        self.pending: dict[str, list[Metric]] = {}

    def follow(self, events: queue.SimpleQueue[Event | None]) -> None:
        while True:
            try:
                event = events.get(timeout=FLUSH_SECONDS)
            except queue.Empty:
                self._flush()
                continue
            if event is None:
                self._flush()
                return
            self._take(event)
            if any(len(metrics) >= MAX_BATCH // 2 for metrics in self.pending.values()):
                self._flush()

    def _take(self, event: Event) -> None:
        if isinstance(event, CellStarted) and event.total_steps:
            cell = self.states[event.cell_id].cell
            self.run_ids[event.cell_id] = self.runs.create_cell_run(cell)
        elif isinstance(event, StepDone) and event.cell_id in self.run_ids:
            self.pending.setdefault(event.cell_id, []).extend(step_metrics(event))
        elif isinstance(event, CellEnded):
            self._flush()
            self._end(event)

    def _end(self, event: CellEnded) -> None:
        folder = Path(event.folder)
        result = read_result(folder)
        run_id = self.run_ids.pop(event.cell_id, None)
        if result is None:
            if run_id is not None:
                self.runs.client.set_tag(run_id, "zbench.error", (event.error or "")[:5000])
                self.runs.client.set_terminated(run_id, "FAILED")
            return
        if run_id is None:
            known = self.runs.cell_runs().get(event.cell_id, [])
            run_id = same_training(known, result)
        run_id = run_id or self.runs.create_cell_run(self.states[event.cell_id].cell)
        self.runs.tag_training(run_id, result)
        self.runs.log_result(run_id, result, folder)

    def _flush(self) -> None:
        for cell_id, metrics in self.pending.items():
            for start in range(0, len(metrics), MAX_BATCH):
                batch = metrics[start : start + MAX_BATCH]
                self.runs.client.log_batch(self.run_ids[cell_id], metrics=batch)
        self.pending.clear()
