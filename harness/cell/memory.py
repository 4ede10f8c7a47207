"""A full memory: how it is known, what to do then, what has sufficed.

A training that fills the memory goes on in a fresh process (a full allocator never recovers all)
with half the tokens in a forward pass; the gradient stays the same. What to begin with is kept in
`token_budgets.json` in the runs folder, per model, method and GPU; remove it to try more again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from harness.errors import StorageError, TrainingError
from harness.grid.schema import Cell
from harness.methods import METHODS
from harness.records.files import write_text

FROZEN_BYTES = {None: 2.0, "int8": 1.0, "nf4": 0.5}
"""Of a parameter, by `base_quantization`."""

BUDGETS_FILE = "token_budgets.json"


class SmallerBudget(TrainingError):
    """The memory is full, and the cell is to go on in a fresh process with a smaller budget."""


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
            "larger GPU, free this one of other processes, or lower train.max_length"
        )
    # Below the longest sequence a budget changes nothing: one sequence is the least.
    smaller = max(used // 2, longest)
    remember_budget(runs_dir, budget_key(cell, device), smaller)
    return SmallerBudget(
        f"out of memory with {used} tokens in a forward pass; goes on with {smaller} in a fresh "
        "process"
    )


def budget_key(cell: Cell, device: str) -> str:
    """Returns what a budget is remembered by: model, method and GPU."""
    gpu = "cpu"
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device)
    return f"{cell.model_name} | {cell.method_label} | {gpu}"


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


def check_memory(cell: Cell, device: str, num_devices: int = 1) -> None:
    """Refuses a cell whose weights and optimizer alone are larger than a GPU.

    Args:
        cell: what is to be trained.
        device: a CPU is never refused.
        num_devices: that train it together.

    Raises:
        TrainingError: they do not fit.
    """
    if not device.startswith("cuda"):
        return
    import torch

    trained = METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
    needed = memory_bytes(
        cell.model.shape.num_parameters,
        trained,
        num_devices=num_devices,
        quantization=cell.train.base_quantization if cell.train else None,
    )
    gpu = torch.cuda.get_device_properties(device).total_memory
    if needed > gpu:
        raise TrainingError(
            f"{cell.label}: weights and optimizer need {needed / 1e9:.0f} GB and activations more, "
            f"but {torch.cuda.get_device_name(device)} has {gpu / 1e9:.0f} GB; "
            + (
                "raise gpus_per_cell or take a larger GPU"
                if trained == cell.model.shape.num_parameters
                else "take a larger GPU"
            )
        )


def memory_bytes(
    total_parameters: int,
    trained_parameters: int,
    *,
    num_devices: int = 1,
    quantization: str | None = None,
) -> float:
    """Returns the bytes of weights, gradients and AdamW's state on each GPU, activations apart.

    Frozen weights take 2 bytes in half precision; trained ones 16 in all: fp32 weight, gradient
    and AdamW's two moments. Adapters are copied to every GPU. In full fine-tuning every GPU keeps
    its part of the 16 bytes, but holds all weights in fp32 until they are divided.
    """
    if trained_parameters >= total_parameters:
        return max(16 * trained_parameters / num_devices, 4 * trained_parameters)
    frozen = total_parameters - trained_parameters
    return FROZEN_BYTES[quantization] * frozen + 16 * trained_parameters
