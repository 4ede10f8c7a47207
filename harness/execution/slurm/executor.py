"""The Slurm executor: refuses what cannot run, submits the rest, and follows it where asked to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import UsageError
from harness.execution.plan import Place, RunPlan
from harness.execution.scheduling import check_gpus_per_cell, devices_needed
from harness.execution.slurm.cluster import (
    MAX_ARRAY_SIZE,
    Cluster,
    SlurmAway,
    SlurmRefused,
    find_cluster,
    has_sbatch,
    slurm,
)
from harness.execution.slurm.follower import Followed, follow
from harness.execution.slurm.probe import is_probed, probe
from harness.execution.slurm.queue import output_file, read_queue, settled_queue
from harness.execution.slurm.script import Array, sbatch_call
from harness.execution.slurm.submission import Submission, is_full, turn
from harness.execution.slurm.words import Words, read_words
from harness.grid.schema import is_base
from harness.grid.status import CellState
from harness.records.events import CellQueued, Event, Warned


class SlurmExecutor:
    """Submits cells to Slurm, one element of an array each."""

    def __init__(self) -> None:
        self.words = Words()
        self.cluster: Cluster | None = None
        """None where Slurm is not here, which only a dry run bears."""

    def prepare(self, states: Sequence[CellState], plan: RunPlan) -> RunPlan:
        """Asks Slurm whether it would take the cells; see `Executor.prepare`."""
        place = plan.place
        if not states and not has_sbatch():  # nothing is left to do
            return plan
        self.words = read_words(place.site.sbatch, _place_of_words(place))
        _check_options(place, self.words)
        if place.dry_run and not has_sbatch():
            return _without_cluster(plan, "sbatch: is not on PATH")
        try:
            self.cluster = cluster = find_cluster(self.words.partition)
        except SlurmAway as fault:
            if not place.dry_run:
                raise
            return _without_cluster(plan, str(fault))
        device = place.device
        if device == "auto":
            device = "cuda" if cluster.largest("cuda") else "cpu"
        place = replace(place, device=device)
        queue = read_queue(plan.settings.runs_dir)
        new = [state for state in states if state.cell.id not in queue]
        if new:
            self._check(new, cluster, place)
        plan = replace(plan, place=place, queued=frozenset(queue))
        key = f"partition {cluster.partition} of {cluster.name}"
        if new and not place.dry_run and not is_probed(plan.settings.runs_dir, key):
            note = probe(plan.settings.runs_dir, key, self.words, place.site, device)
            plan = replace(plan, notes=(*plan.notes, *([] if note is None else [note])))
        return plan

    def _check(self, states: Sequence[CellState], cluster: Cluster, place: Place) -> None:
        """Refuses what the partition has no node for, or what sbatch itself would refuse."""
        words, device = self.words, place.device
        name = f"partition {cluster.partition}"
        if device == "cuda" and not cluster.largest(device, words.gpu_type):
            kind = f" of type {words.gpu_type}" if words.gpu_type else ""
            raise UsageError(
                f"{name}: its nodes have no GPUs{kind}; name another one with --sbatch "
                "'--partition NAME', or give --device cpu"
            )
        most = cluster.largest(device, words.gpu_type)
        check_gpus_per_cell(states, most, f"the largest node of {name}")
        for needed in sorted({devices_needed(state) for state in states}):
            try:
                slurm("sbatch", "--test-only", *_tested(words, device, needed))
            except SlurmRefused as fault:
                if is_full(fault):  # the submission tells how many cells that leaves
                    return
                raise UsageError(f"Slurm would refuse the cells: {fault}") from fault

    def describe(self, plan: RunPlan) -> str:
        """The cluster and its partition."""
        if self.cluster is None:
            return "Slurm"
        device = "GPUs" if plan.place.device == "cuda" else "CPUs"
        return f"Slurm, partition {self.cluster.partition} of {self.cluster.name} ({device})"

    def preview(self, states: Sequence[CellState], plan: RunPlan) -> str:
        """What would be submitted: the script and the calls of sbatch."""
        new = [state for state in _in_order(states) if state.cell.id not in plan.queued]
        if not new:
            return "nothing is to be submitted"
        return self._submission(new, plan).shown()

    def _submission(self, states: Sequence[CellState], plan: RunPlan) -> Submission:
        max_array = MAX_ARRAY_SIZE if self.cluster is None else self.cluster.max_array
        return Submission(states, plan, self.words, max_array)

    def run(self, states: Sequence[CellState], plan: RunPlan) -> Iterator[Event]:
        """Submits what is not in the queue yet; follows all of it where the user wants that."""
        if not states:
            return
        # Made before the queue is asked: what a job tells as it begins is not missed.
        cells = {state.cell.id: Followed(state) for state in states}
        with turn(plan.settings.runs_dir):
            yield from self._placed(cells, plan)
        if plan.place.follow:
            yield from follow([one for one in cells.values() if one.job], plan)

    def _placed(self, cells: Mapping[str, Followed], plan: RunPlan) -> Iterator[Event]:
        """Finds the cells' jobs in the queue, and submits those that have none."""
        queue = settled_queue(plan.settings.runs_dir, cells.keys())
        for cell_id, one in cells.items():
            if (queued := queue.get(cell_id)) is not None:
                one.place(queued.job, queued.output, queued)
                yield CellQueued(cell_id, queued.job, before=True, logged=queued.logged)
        new = [one.state for one in cells.values() if not one.job]
        new = [state for state in new if state.status != "running"]
        if not new:
            return
        submission = self._submission(new, plan)
        for state, job in submission.submit():
            cells[state.cell.id].place(job, output_file(submission.folder, job))
            yield CellQueued(state.cell.id, job)
        if submission.refused is not None:
            first = submission.states[len(new) - submission.left].cell.id
            yield Warned(
                first,
                f"Slurm takes no more jobs now ({submission.refused}): {submission.left} cells "
                "wait, which the same command submits later",
            )


def _without_cluster(plan: RunPlan, why: str) -> RunPlan:
    """The plan of a dry run where no Slurm can be asked."""
    device = "cuda" if plan.place.device == "auto" else plan.place.device
    note = f"{why}; nothing is known of the cluster, and its usual limits are taken"
    return replace(plan, notes=(*plan.notes, note), place=replace(plan.place, device=device))


def _in_order(states: Sequence[CellState]) -> list[CellState]:
    """Cells as `run_grid` hands them over: untrained base models first."""
    return sorted(states, key=lambda state: not is_base(state.cell))


def _tested(words: Words, device: str, needed: int) -> list[str]:
    """The words of one such job, for `--test-only`."""
    call = sbatch_call(Array(0, 1, needed), Path("x"), words, device=device)
    not_asked = ("--array=", "--comment=", "--output=")
    return [*(word for word in call[2:-2] if not word.startswith(not_asked)), "--wrap=true"]


def _place_of_words(place: Place) -> str:
    return "sbatch" if place.site.sbatch else "--sbatch"


def _check_options(place: Place, words: Words) -> None:
    """Refuses options of this machine, and a warning that is longer than the job.

    Raises:
        UsageError: there are such.
    """
    if place.workers is not None:
        raise UsageError("--workers: is for cells on this machine; in Slurm each cell has a job")
    if place.device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {place.device}: names devices of this machine; with --executor slurm give "
            "auto, cpu or cuda"
        )
    limit, warning = words.minutes, place.site.warn_seconds
    if limit is not None and limit * 60 <= warning:
        raise UsageError(
            f"--time: {limit:g} minutes are no longer than warn_seconds ({warning}), so that each "
            "job would be told to stop as it begins; give more time, or lower warn_seconds"
        )
