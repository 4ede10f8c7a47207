"""A full memory: how it is known, what to do then, what has sufficed.

A training that fills the memory goes on in a fresh process (a full allocator never recovers all)
with half the tokens in a forward pass; the gradient stays the same. What to begin with is kept in
`token_budgets.json` in the runs folder, per model, method and card; remove it to try more again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from harness.errors import StorageError, TrainingError
from harness.grid import Cell
from harness.results import write_text

BUDGETS_FILE = "token_budgets.json"
FULL = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""How torch's allocators and CUDA's libraries say it, on cards and on the CPU."""


class SmallerBudget(TrainingError):
    """The memory is full, and the cell is to go on in a fresh process with a smaller budget."""


def is_out_of_memory(fault: BaseException) -> bool:
    """Returns whether an error says that memory is full; torch is not imported for it."""
    if isinstance(fault, MemoryError) or type(fault).__name__ == "OutOfMemoryError":
        return True
    return isinstance(fault, RuntimeError) and any(words in str(fault) for words in FULL)


def smaller_budget(
    cell: Cell, runs_dir: Path, device: str, *, used: int, longest: int
) -> Exception:
    """Remembers that a budget is too large; returns the error to leave the process with.

    Args:
        cell: whose training filled the memory.
        runs_dir: where it is remembered.
        device: a torch device.
        used: tokens of a forward pass.
        longest: tokens of the longest sequence.

    Returns:
        SmallerBudget, or a plain TrainingError where the memory is full with single sequences.

    Raises:
        StorageError: it cannot be remembered.
    """
    if used <= longest:
        return TrainingError(
            f"{cell.label}: out of memory with one sequence of {longest} tokens at a time; take a "
            "larger card, free this one of other processes, or lower train.max_length"
        )
    # Below the longest sequence a budget changes nothing: one sequence is the least.
    smaller = max(used // 2, longest)
    remember_budget(runs_dir, budget_key(cell, device), smaller)
    return SmallerBudget(
        f"out of memory with {used} tokens in a forward pass; goes on with {smaller} in a fresh "
        "process"
    )


def budget_key(cell: Cell, device: str) -> str:
    """Returns what a budget is remembered by: model, method and card."""
    card = "cpu"
    if device.startswith("cuda"):
        import torch

        card = torch.cuda.get_device_name(device)
    return f"{cell.model_name} | {cell.method_label} | {card}"


def remembered_budget(runs_dir: Path, key: str) -> int | None:
    """Returns the budget to begin with, or None where none was too large so far."""
    return _read(runs_dir / BUDGETS_FILE).get(key)


def remember_budget(runs_dir: Path, key: str, budget: int) -> None:
    """Keeps a budget for the next time.

    Raises:
        StorageError: the file cannot be written.
    """
    path = runs_dir / BUDGETS_FILE
    with _alone(path):
        write_text(path, json.dumps(_read(path) | {key: budget}, indent=1, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, int]:
    """Returns the budgets; a damaged file is as none, and is written anew when it is needed."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {key: value for key, value in known.items() if isinstance(value, int) and value > 0}
    except (OSError, ValueError, AttributeError):
        return {}


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps the other workers of this machine from writing in between."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = (path.parent / f".{path.name}.lock").open("a")
    except OSError as fault:
        raise StorageError(f"{path}: cannot be written ({fault.strerror})") from fault
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
