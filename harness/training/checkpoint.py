"""A training's checkpoints: what a killed cell goes on from.

Each is a folder `step-00000120` of two files, written under another name, flushed and renamed:
`state.safetensors` (trained tensors, AdamW's moments, what the method's trace has seen) and
`checkpoint.json` (which cell, data and base it is of, the versions, the position, all steps so far,
and the SHA-256 of both). Nothing is pickled. No generator's state is in it: every step is seeded
from the cell's seed and its own number, and the schedule is a function of that number.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from harness.errors import ModelError, StorageError, TrainingError, one_line
from harness.records.environment import package_versions
from harness.training.progress import Progress
from harness.training.signals import SignalFlags

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KEPT = 2
"""Checkpoints of a cell at a time: when the newest is damaged, the one before serves."""
TENSORS_FILE = "state.safetensors"
RECORD_FILE = "checkpoint.json"

Action = Literal["nothing", "save", "stop"]
"""What is due between two steps; `stop` is a checkpoint too."""
ACTIONS: tuple[Action, ...] = get_args(Action)
"""From the least to the most."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """All that a training needs to go on to the same bits."""

    progress: Progress
    tensors: Mapping[str, Tensor]
    """`Trainer.state()`, and the trace's under `trace/`."""


def save_checkpoint(folder: Path, state: TrainingState, identity: Mapping[str, Any]) -> Path:
    """Writes a checkpoint beside the others, whole or not at all, and removes all but the last two.

    Args:
        folder: of the cell's checkpoints; made where it is absent.
        state: of the training.
        identity: what it is of, as plain values; `read_checkpoint` compares it.

    Returns:
        The checkpoint's own folder.

    Raises:
        StorageError: it cannot be written; the earlier ones are as they were.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target, aside = folder / f"step-{state.progress.step:08d}", None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder, prefix=".aside-"))
        tensors = {k: value.detach().cpu().contiguous() for k, value in state.tensors.items()}
        save_file(tensors, aside / TENSORS_FILE, metadata={"format": "pt"})
        content = {
            "format": FORMAT,
            "identity": dict(identity),
            "versions": package_versions(),
            "tensors_sha256": _sha256(aside / TENSORS_FILE),
            "progress": state.progress.to_json(),
        }
        record = {"sha256": _sha256_of_json(content), "content": content}
        (aside / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")
        for name in (TENSORS_FILE, RECORD_FILE):
            with (aside / name).open("rb") as written:
                os.fsync(written.fileno())
        aside.chmod(0o755)
        if target.exists():  # of this step, from before a damaged one was left out
            shutil.rmtree(target)
        aside.replace(target)
        _flush_folder(folder)
    except (OSError, SafetensorError) as fault:
        raise StorageError(
            f"{target}: cannot be written ({one_line(fault)}); free space on this disk"
        ) from fault
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    # Those of later steps were left out as damaged: this training takes those steps again.
    kept = [found for found in checkpoint_folders(folder) if found <= target][:KEPT]
    for found in checkpoint_folders(folder):
        if found not in kept:
            shutil.rmtree(found, ignore_errors=True)
    return target


def checkpoint_folders(folder: Path) -> list[Path]:
    """Returns the folders of a cell's checkpoints, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def read_checkpoint(folder: Path, identity: Mapping[str, Any]) -> TrainingState:
    """Returns what one checkpoint holds.

    Raises:
        TrainingError: it is damaged, or of another cell, other data or another base.
    """
    path = folder / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        content = record["content"]
        whole = record["sha256"] == _sha256_of_json(content) and content["format"] == FORMAT
        if whole:
            _check_identity(folder, content["identity"], identity)
            whole = content["tensors_sha256"] == _sha256(folder / TENSORS_FILE)
        if not whole:
            raise ValueError("its SHA-256 is another")
        _warn_of_versions(folder, content["versions"])
        return TrainingState(Progress.from_json(content["progress"]), _tensors(folder))
    except TrainingError:
        raise
    except (OSError, ValueError, KeyError, TypeError, ModelError) as fault:
        raise TrainingError(f"{folder}: damaged or incomplete ({one_line(fault)})") from fault


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / TENSORS_FILE)


def _check_identity(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in sorted(set(then) | set(now)):
        if then.get(key) != now.get(key):
            raise TrainingError(
                f"{folder}: of another training ({key} was {str(then.get(key))[:60]}, is "
                f"{str(now.get(key))[:60]})"
            )


def _warn_of_versions(folder: Path, then: Mapping[str, str]) -> None:
    now = package_versions()
    changed = [f"{k} {then.get(k)}, now {now[k]}" for k in sorted(now) if then.get(k) != now[k]]
    if changed:
        logger.warning("%s: made with %s: the low bits may differ", folder, "; ".join(changed))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_json(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_checkpoints(folder: Path) -> None:
    """Removes a cell's checkpoints: the training is done and saved."""
    shutil.rmtree(folder, ignore_errors=True)


class Checkpoints:
    """The checkpoints of one training as it runs: when they are due, and what becomes of faults.

    Args:
        folder: of the cell's checkpoints.
        identity: what they are of.
        minutes: between two; 0 writes one after every step.
        requests: what signals ask for.
        warn: told what is wrong in one line, where the training goes on nevertheless.
        writes: whether this process writes them; of several that train one cell, one does.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        *,
        minutes: float,
        requests: SignalFlags | None = None,
        warn: Callable[[str], None] = logger.warning,
        writes: bool = True,
    ) -> None:
        self._writes = writes
        self.folder, self.identity, self.minutes = folder, identity, minutes
        self.requests = SignalFlags() if requests is None else requests
        self._warn = warn
        self._saved = time.monotonic()
        self._failed = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None
        self.last: Path | None = None
        """The last good one."""

    def latest(self) -> TrainingState | None:
        """Returns the newest checkpoint that is good; warns of each that is not."""
        if self._writes:
            for old in self.folder.glob(".aside-*"):  # of a process that was killed while it wrote
                shutil.rmtree(old, ignore_errors=True)
        found = checkpoint_folders(self.folder)
        for index, folder in enumerate(found):
            try:
                state = read_checkpoint(folder, self.identity)
            except TrainingError as fault:
                rest = "the one before is used" if index + 1 < len(found) else "none is left"
                again = "" if index + 1 < len(found) else ": the training begins again"
                self._warn(f"checkpoint left out: {fault}; {rest}{again}")
                continue
            self.last = folder
            return state
        return None

    def due_action(self) -> Action:
        """Returns what is due now. All processes of one cell must act on the same answer."""
        if self.requests.stop:
            return "stop"
        if not self._writes:
            return "save" if self.requests.save else "nothing"
        if self._pending is not None and not self._pending.done():
            return "nothing"  # the last one is still being written
        due = time.monotonic() - self._saved >= 60.0 * self.minutes
        return "save" if due or self.requests.save else "nothing"

    def save(self, state: TrainingState, *, wait: bool = False) -> None:
        """Copies the state and writes it beside the training, which goes on meanwhile.

        A disk that is full costs a warning, and the last good checkpoint stays.

        Args:
            state: the training's own tensors, which the next step changes.
            wait: return when it is written; with 0 minutes between two it always is.
        """
        self.wait()
        self.requests.save = False
        if not self._writes:
            return
        self._saved = time.monotonic()
        tensors = {k: v.detach().to("cpu", copy=True) for k, v in state.tensors.items()}
        copied = TrainingState(state.progress.copy(), tensors)
        self._pending = self._writer.submit(save_checkpoint, self.folder, copied, self.identity)
        if wait or self.minutes == 0:
            self.wait()

    def wait(self) -> None:
        """Waits until nothing is being written, and tells what became of it."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            self.last = pending.result()
            self._failed = False
        except StorageError as fault:
            if not self._failed:
                kept = f"the last good one is {self.last}" if self.last else "there is none yet"
                self._warn(f"no checkpoint: {fault}; {kept}, and the training goes on")
            self._failed = True
