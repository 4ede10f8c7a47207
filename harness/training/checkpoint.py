"""Checkpoints of a training run, from which a killed cell resumes.

Each is a folder `step-00000120` of two files, written under a temporary name, flushed and renamed:
`state.safetensors` (trained tensors, AdamW's moments, the callbacks' state) and `checkpoint.json`
(which cell, data and base it belongs to, the versions, all steps so far, and the SHA-256 of both).
Nothing is pickled. No generator's state is in it: every step is seeded from the cell's seed and its
own number, and the schedule is a function of that number.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StorageError, TrainingError, one_line
from harness.readers.files import Unreadable, check_file
from harness.records.checkpoints import (
    RECORD_FILE,
    TEMPORARY,
    best_files,
    checkpoint_folders,
    other_entries,
    step_of,
)
from harness.records.environment import package_versions
from harness.records.files import (
    atomic_folder,
    fresh_sha256_of_file,
    save_tensors,
    sha256_of_json,
)
from harness.training.callback import Callback, TrainingRun
from harness.training.progress import Progress, StepRecord
from harness.training.signals import Paused, SignalFlags, Stopped
from harness.training.stored_tensors import StoredTensors

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KEPT = 2
"""Checkpoints of a cell at a time: when the newest is damaged, the one before serves."""
TENSORS_FILE = "state.safetensors"

logger = logging.getLogger(__name__)


class Action(IntEnum):
    """What is due between two steps, from the least to the most."""

    CONTINUE = 0
    SAVE = 1
    STOP = 2
    """Save, then end the training run."""


@dataclass(frozen=True)
class TrainingState:
    """All that a training run needs to resume to the same bits."""

    progress: Progress
    tensors: Mapping[str, Tensor]
    """`TrainingRun.state()`."""

    def close(self) -> None:
        """Leaves the file that the tensors lie in, if any."""
        if isinstance(self.tensors, StoredTensors):
            self.tensors.close()


def save_checkpoint(folder: Path, state: TrainingState, identity: Mapping[str, Any]) -> Path:
    """Writes a checkpoint beside the others, whole or not at all, and removes all but the last two.

    `identity` says in plain values which run it belongs to; `read_checkpoint` compares it.
    Returns the checkpoint's own folder.

    Raises:
        StorageError: it cannot be written; the earlier ones are as they were.
    """
    target = folder / f"step-{state.progress.step:08d}"
    with atomic_folder(target, replace=True) as temporary:
        save_tensors(temporary / TENSORS_FILE, state.tensors)
        content = {
            "format": FORMAT,
            "identity": dict(identity),
            "versions": package_versions(),
            "tensors_sha256": fresh_sha256_of_file(temporary / TENSORS_FILE),
            "progress": asdict(state.progress),
        }
        record = {"sha256": sha256_of_json(content), "content": content}
        (temporary / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
    # Those of later steps were left out as damaged: this run takes those steps again.
    last = state.progress.step
    kept = [found for found in checkpoint_folders(folder) if step_of(found) <= last][:KEPT]
    for found in checkpoint_folders(folder):
        if found not in kept:
            shutil.rmtree(found, ignore_errors=True)
    _remove_superseded(folder, kept, state.progress)
    return target


def _remove_superseded(folder: Path, kept: list[Path], progress: Progress) -> None:
    """Removes the best weights of epochs that no kept checkpoint, nor a later one, resumes with."""
    if (best := progress.best_epoch) is None:
        return
    used = {best, *map(_best_epoch, kept)}
    for epoch, file in best_files(folder).items():
        if epoch < best and epoch not in used:
            file.unlink(missing_ok=True)


def _best_epoch(checkpoint: Path) -> int | None:
    try:
        content = json.loads((checkpoint / RECORD_FILE).read_text(encoding="utf-8"))["content"]
        return Progress.from_json(content["progress"]).best_epoch
    except (OSError, ValueError, KeyError, TypeError):  # damaged: nothing resumes from it
        return None


def read_checkpoint(folder: Path, identity: Mapping[str, Any]) -> TrainingState:
    """Reads one checkpoint; its tensors are read when they are used.

    Raises:
        TrainingError: it is damaged, or belongs to another cell, other data or another base.
    """
    with _damage(folder):
        content = _whole_record(folder, identity)
        _warn_of_versions(folder, content["versions"])
        return TrainingState(
            Progress.from_json(content["progress"]), StoredTensors(folder / TENSORS_FILE)
        )


def check_checkpoint(folder: Path) -> None:
    """Checks that a checkpoint is whole, whatever training run it is of.

    Raises:
        TrainingError: it is damaged or incomplete.
    """
    with _damage(folder):
        _whole_record(folder, None)


@contextlib.contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Says of errors in reading a checkpoint that it is damaged."""
    try:
        yield
    except RecursionError as fault:
        raise TrainingError(f"{folder}: damaged ({RECORD_FILE} is nested too deeply)") from fault
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise TrainingError(f"{folder}: damaged or incomplete ({one_line(fault)})") from fault


def _whole_record(folder: Path, identity: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of a checkpoint's record, once both files are known to be whole."""
    try:
        check_file(folder / RECORD_FILE)
    except Unreadable as fault:
        raise ValueError(f"{RECORD_FILE}: {fault.found}") from fault
    record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    content: dict[str, Any] = record["content"]
    whole = record["sha256"] == sha256_of_json(content) and content["format"] == FORMAT
    if whole:
        if identity is not None:
            _check_identity(folder, content["identity"], identity)
        whole = content["tensors_sha256"] == fresh_sha256_of_file(folder / TENSORS_FILE)
    if not whole:
        raise ValueError("its SHA-256 is another")
    return content


def _check_identity(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in sorted(set(then) | set(now)):
        if then.get(key) != now.get(key):
            raise TrainingError(
                f"{folder}: of another training run ({key} was {str(then.get(key))[:60]}, is "
                f"{str(now.get(key))[:60]})"
            )


def _warn_of_versions(folder: Path, then: Mapping[str, str]) -> None:
    now = package_versions()
    changed = [f"{k} {then.get(k)}, now {now[k]}" for k in sorted(now) if then.get(k) != now[k]]
    if changed:
        logger.warning("%s: made with %s: the low bits may differ", folder, "; ".join(changed))


class Checkpoints(Callback):
    """Writes checkpoints of a run when they are due, and ends it when a signal asks for it.

    Args:
        folder: the folder of the cell's checkpoints.
        identity: the training run that they belong to, in plain values.
        minutes: the time between two checkpoints; 0 writes one after every step.
        flags: the requests of signals, which are read after every step.
        warn: gets one line on what is wrong, where training continues nevertheless.
        writes: whether this process writes them; of several ranks, rank 0 does.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        *,
        minutes: float,
        flags: SignalFlags | None = None,
        warn: Callable[[str], None] = logger.warning,
        writes: bool = True,
    ) -> None:
        self._writes = writes
        self.folder, self.identity, self.minutes = folder, identity, minutes
        self.flags = SignalFlags() if flags is None else flags
        self._warn = warn
        self._saved = time.monotonic()
        self._failed = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None
        self.last: Path | None = None
        """The last good one."""

    def latest(self) -> TrainingState | None:
        """The newest checkpoint that is good; warns of each that is not."""
        if self._writes:  # remove what a process was writing when it was killed
            for old in (path for pattern in TEMPORARY for path in self.folder.glob(pattern)):
                shutil.rmtree(old, ignore_errors=True)
        found = checkpoint_folders(self.folder)
        for odd in other_entries(self.folder):
            self._warn(
                f"checkpoint left out: {odd}: no checkpoint has this name, or it is no folder"
            )
        for folder in found:
            try:
                state = read_checkpoint(folder, self.identity)
            except TrainingError as fault:
                rest = "the one before is used"
                if folder == found[-1]:
                    rest = "none is left: training begins again"
                self._warn(f"checkpoint left out: {fault}; {rest}")
            else:
                logger.info("resumes from %s", folder)
                self.last = folder
                return state
        return None

    def on_step(self, training: TrainingRun, record: StepRecord) -> None:
        # All ranks do the same: the most that any of them needs.
        action = training.train_step.ranks.highest(self.due_action())
        if action == Action.CONTINUE:
            return
        self.wait()  # so that one copy of the state exists at a time
        training.progress.peak_memory_bytes = training.peak_memory_bytes
        self.save(TrainingState(training.progress, training.state()), wait=action == Action.STOP)
        if action == Action.STOP:
            raise Stopped if self.flags.stop or not self.flags.pause else Paused

    def on_train_end(self, training: TrainingRun) -> None:
        self.wait()

    def failure_note(self, training: TrainingRun) -> str | None:
        self.wait()
        return None if self.last is None else f"the last good checkpoint is {self.last}"

    def due_action(self) -> Action:
        """What is due now on this rank; all ranks of a cell must act alike."""
        if self.flags.stop or self.flags.pause:
            return Action.STOP
        if not self._writes:
            return Action.SAVE if self.flags.save else Action.CONTINUE
        if self._pending is not None and not self._pending.done():
            return Action.CONTINUE  # the last one is still being written
        due = time.monotonic() - self._saved >= 60.0 * self.minutes
        return Action.SAVE if due or self.flags.save else Action.CONTINUE

    def save(self, state: TrainingState, *, wait: bool = False) -> None:
        """Writes a state in a thread, while training continues; its progress is copied first.

        A full disk costs a warning, and the last good checkpoint stays. With `wait`, or 0 minutes
        between two, it is written on return.
        """
        self.wait()
        self.flags.save = False
        if not self._writes:
            return
        self._saved = time.monotonic()
        copied = TrainingState(state.progress.copy(), state.tensors)
        self._pending = self._writer.submit(save_checkpoint, self.folder, copied, self.identity)
        if wait or self.minutes == 0:
            self.wait()

    def wait(self) -> None:
        """Waits until nothing is being written, and warns if that failed."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            self.last = pending.result()
            self._failed = False
        except StorageError as fault:
            if not self._failed:
                kept = f"the last good one is {self.last}" if self.last else "there is none yet"
                self._warn(f"no checkpoint: {fault}; {kept}, and training continues")
            self._failed = True
