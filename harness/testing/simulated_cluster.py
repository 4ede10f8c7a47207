"""A cluster of a virtual clock: grids of thousands of cells on nodes that come and go, in seconds.

It is an executor (`harness.execution.executor`): `run_grid` drives it, gives it the cells in its
order and counts what ends. Nothing is trained and nothing is written; how long a cell takes is what
`zbench plan` expects of it on a GPU. What it shows is that the rules of placing hold, and what they
cost: one job per cell on one node, in the order given, a lost cell placed anew from what it had
stored, at most `max_requeues` times in a row without progress, at most `max_parallel` at once.

It does not show that an engine keeps these rules (`harness.testing.executor_laws` does), nor how
long a real training takes, a file system under such load, or a scheduler with other users.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from harness.estimate.costs import CellEstimate
from harness.execution.plan import RunPlan
from harness.execution.scheduling import check_gpus_per_cell, devices_needed
from harness.grid.status import CellState
from harness.records.events import CellEnded, CellStarted, Event, Warned

ROUNDING = 1e-6
"""Seconds by which sums of floating-point numbers may differ."""


@dataclass(frozen=True)
class CellTimes:
    """How long a cell's parts take, in seconds."""

    loading: float
    """Start of the process, and the base model; in each of its jobs."""
    training: float
    """On all of its GPUs."""
    checkpoint: float
    """Training between two checkpoints."""
    benchmarks: tuple[float, ...]
    """Scoring of each, on one GPU; its result is stored when it ends."""


def times_of(state: CellState, estimate: CellEstimate) -> CellTimes:
    """What `plan` expects of a cell; its benchmarks share the time of scoring equally."""
    assert estimate.training_seconds is not None
    assert estimate.scoring_seconds is not None
    number, train = len(state.missing), state.cell.train
    return CellTimes(
        loading=estimate.other_seconds,
        training=estimate.training_seconds,
        checkpoint=60 * train.checkpoint_minutes if train is not None else 0.0,
        benchmarks=(estimate.scoring_seconds / number,) * number if number else (),
    )


@dataclass(frozen=True)
class Losses:
    """When nodes are taken away, in seconds."""

    every: float = 1800.0
    """One node after the other, drawn from those that are up; every second time with a warning, at
    which its cells write a checkpoint."""
    back_after: float = 300.0
    stopping: float = 15.0
    """What a process that is warned needs for its checkpoint and its end."""
    requeue: float = 120.0
    """From the end of a lost job to when the scheduler considers it again: Slurm's BeginTime."""
    seed: int = 0


@dataclass(frozen=True)
class Placement:
    """A job: when and where a cell was."""

    cell_id: str
    node: int
    gpus: tuple[int, ...]
    start: float
    end: float
    done: bool
    """Whether it ended the cell."""


@dataclass
class Usage:
    """GPU seconds by what became of them."""

    useful: float = 0.0
    """Training and scoring that ended in results."""
    lost: float = 0.0
    """Training after the last checkpoint and benchmarks half scored, of jobs that ended early."""
    loading: float = 0.0
    """Start of processes, base models, and the last checkpoint of a job that was warned."""
    held: float = 0.0
    """GPUs of a job of several, while one of them scores."""
    idle: float = 0.0
    """Free GPUs while a cell waited."""
    tail: float = 0.0
    """Free GPUs at the end, when no cell waited any more; no part of `share`."""

    @property
    def share(self) -> float:
        """What was useful, of all GPU time while there was work for it."""
        return self.useful / (self.useful + self.lost + self.loading + self.held + self.idle)


@dataclass
class _Node:
    number: int
    free: list[int]
    up: bool = True


@dataclass
class _Work:
    """A cell and what is stored of it."""

    turn: int
    """Its place in the order given, which it keeps when it is lost."""
    state: CellState
    times: CellTimes
    trained: float = 0.0
    scored: int = 0
    fruitless: int = 0
    """Jobs in a row that stored nothing."""

    @property
    def gpus(self) -> int:
        return devices_needed(self.state)

    @property
    def left(self) -> float:
        """Seconds of a job that ends it."""
        scoring = sum(self.times.benchmarks[self.scored :])
        return self.times.loading + self.times.training - self.trained + scoring

    def store(self, seconds: float, usage: Usage, *, warned: bool) -> None:
        """Accounts for a job of so many seconds: what it stored, and what was lost."""
        times, usage_before = self.times, (self.trained, self.scored)
        loading = min(seconds, times.loading)
        usage.loading += loading * self.gpus
        worked = seconds - loading
        rest = times.training - self.trained
        training = kept = min(worked, rest)
        if not warned and rest - training > ROUNDING:
            kept = training // times.checkpoint * times.checkpoint if times.checkpoint else 0.0
        self.trained += kept
        usage.useful += kept * self.gpus
        usage.lost += (training - kept) * self.gpus
        worked -= training
        usage.held += worked * (self.gpus - 1)
        for seconds in times.benchmarks[self.scored :]:
            if worked < seconds - ROUNDING:
                break
            worked -= seconds
            usage.useful += seconds
            self.scored += 1
        usage.lost += max(0.0, worked)
        stored = (self.trained, self.scored) != usage_before
        self.fruitless = 0 if stored else self.fruitless + 1


@dataclass
class _Job:
    work: _Work
    node: _Node
    gpus: tuple[int, ...]
    start: float
    over: bool = False


@dataclass
class SimulatedCluster:
    """An executor that runs cells on nodes of a virtual clock."""

    times: Mapping[str, CellTimes]
    """By cell id."""
    num_nodes: int = 8
    gpus_per_node: int = 8
    losses: Losses = field(default_factory=Losses)
    usage: Usage = field(default_factory=Usage)
    placements: list[Placement] = field(default_factory=list)
    seconds: float = 0.0
    """Now."""
    num_losses: int = 0

    def prepare(self, states: Sequence[CellState], plan: RunPlan) -> RunPlan:
        """Refuses cells that no node can hold; see `Executor.prepare`."""
        check_gpus_per_cell(states, self.gpus_per_node, "a node of the cluster")
        return replace(plan, devices=())

    def describe(self, plan: RunPlan) -> str:
        """Its size."""
        return f"{self.num_nodes} × {self.gpus_per_node} simulated GPUs"

    def run(self, states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        """Places the cells until all have ended; see `Executor.run`."""
        self._nodes = [_Node(n, list(range(self.gpus_per_node))) for n in range(self.num_nodes)]
        self._waiting = [_Work(n, s, self.times[s.cell.id]) for n, s in enumerate(states)]
        self._running: list[_Job] = []
        self._delayed = 0
        self._draw = random.Random(self.losses.seed)
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], Iterable[Event]]]] = []
        self._most_requeues = plan.place.site.max_requeues
        self._after(self.losses.every, self._lose)
        while True:
            yield from self._place(plan.place.site.max_parallel)
            if not (self._waiting or self._running or self._delayed):
                return
            time, _, action = heapq.heappop(self._agenda)
            self._pass(time)
            yield from action()

    def _after(self, seconds: float, action: Callable[[], Iterable[Event]]) -> None:
        heapq.heappush(self._agenda, (self.seconds + seconds, next(self._order), action))

    def _pass(self, time: float) -> None:
        """Sets the clock, and accounts for the GPUs that were free until then."""
        free = sum(len(node.free) for node in self._nodes if node.up) * (time - self.seconds)
        if self._waiting or self._delayed:
            self.usage.idle += free
        else:
            self.usage.tail += free
        self.seconds = time

    def _place(self, most: int | None) -> Iterator[Event]:
        """Starts what can start. The first cell that finds no room keeps a node for itself, so
        that one of many GPUs is not overtaken for ever."""
        kept: set[int] = set()
        for work in list(self._waiting):
            if most is not None and len(self._running) >= most:
                return
            up = [node for node in self._nodes if node.up and node.number not in kept]
            if not up:
                return
            node = max(up, key=lambda one: (len(one.free) >= work.gpus, -len(one.free)))
            if len(node.free) < work.gpus:
                if not kept:
                    kept.add(max(up, key=lambda one: len(one.free)).number)
                if not any(one.free for one in up):
                    return
                continue
            gpus, node.free = tuple(node.free[: work.gpus]), node.free[work.gpus :]
            job = _Job(work, node, gpus, self.seconds)
            self._waiting.remove(work)
            self._running.append(job)
            self._after(work.left, partial(self._end, job))
            cell = work.state.cell
            yield CellStarted(cell.id, cell.label, 0, int(1000 * self.seconds))

    def _end(self, job: _Job) -> Iterator[Event]:
        if job.over:  # its node was lost before
            return
        self._close(job, self.seconds, done=True)
        job.work.store(self.seconds - job.start, self.usage, warned=True)
        state = job.work.state
        yield CellEnded(state.cell.id, str(state.folder), self.seconds - job.start)

    def _close(self, job: _Job, end: float, *, done: bool) -> None:
        job.over = True
        self._running.remove(job)
        job.node.free = sorted([*job.node.free, *job.gpus])
        cell_id = job.work.state.cell.id
        placement = Placement(cell_id, job.node.number, job.gpus, job.start, end, done)
        self.placements.append(placement)

    def _lose(self) -> Iterator[Event]:
        """Takes a node away; what ran on it waits again."""
        self._after(self.losses.every, self._lose)
        self.num_losses += 1
        node = self._draw.choice([node for node in self._nodes if node.up])
        node.up, warned = False, self.num_losses % 2 == 0
        self._after(self.losses.back_after, partial(self._bring_back, node))
        for job in [job for job in self._running if job.node is node]:
            self._close(job, self.seconds, done=False)
            seconds, work = self.seconds - job.start, job.work
            stopping = min(seconds, self.losses.stopping) if warned else 0.0
            self.usage.loading += stopping * work.gpus
            work.store(seconds - stopping, self.usage, warned=warned)
            cell_id = work.state.cell.id
            if work.fruitless > self._most_requeues:
                told = f"node {node.number} lost, {work.fruitless} times without progress"
                yield CellEnded(cell_id, str(work.state.folder), seconds, error=told)
                continue
            yield Warned(cell_id, f"node {node.number} lost", restarts=True)
            self._delayed += 1
            self._after(self.losses.requeue, partial(self._queue, work))

    def _bring_back(self, node: _Node) -> Iterable[Event]:
        node.up = True
        return ()

    def _queue(self, work: _Work) -> Iterable[Event]:
        self._delayed -= 1
        bisect.insort(self._waiting, work, key=lambda one: one.turn)
        return ()
