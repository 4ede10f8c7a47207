"""Out of memory: what a cell needs at least, and the token budget that is effective after it.

A run that is out of memory resumes in a fresh process (a full allocator never recovers all) with
half the tokens in a forward pass; the gradient stays the same. The effective budget is kept in
`token_budgets.json` in the runs folder, per model, method and GPU; remove it to try more again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell.settings import CellContext
from harness.errors import StorageError, TrainingError, one_line
from harness.grid.schema import Cell
from harness.methods import METHODS
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import write_text
from harness.training.optimizer_options import state_bytes

if TYPE_CHECKING:
    from harness.data.instructions import Example

FROZEN_BYTES = {None: 2.0, "int8": 1.0, "nf4": 0.5}
"""Bytes of a frozen parameter, by `base_quantization`."""

BUDGETS_FILE = "token_budgets.json"


class SmallerBudget(TrainingError):
    """Out of memory: a request to retry in a fresh process with a smaller budget, not a failure.

    It is a TrainingError so that a caller that does not retry reports it in one line.
    """


def smaller_budget(context: CellContext, *, used: int, longest: int) -> Exception:
    """Stores half of a budget that was too large; returns the error to leave the process with.

    That is SmallerBudget, or a plain TrainingError where single sequences are too large.

    Args:
        context: the context of the cell that is out of memory.
        used: the token budget of its forward passes.
        longest: the number of tokens of the longest sequence.

    Raises:
        StorageError: the budget cannot be stored.
    """
    if used <= longest:
        return TrainingError(
            f"{context.cell.label}: out of memory with one sequence of {longest} tokens at a time; "
            "take a larger GPU, free this one of other processes, or lower train.max_length"
        )
    # Below the longest sequence a budget changes nothing: one sequence is the least.
    smaller = max(used // 2, longest)
    key = budget_key(context.cell, context.settings.device)
    store_budget(context.settings.runs_dir, key, smaller)
    return SmallerBudget(
        f"out of memory with {used} tokens in a forward pass; resumes with {smaller} in a fresh "
        "process"
    )


def effective_budget(context: CellContext, examples: Sequence[Example]) -> int:
    """Tokens of a forward pass: as set, but no more than the stored budget.

    Raises:
        TrainingError: the setting is less than the longest sequence.
    """
    import torch

    from harness.training.micro_batches import longest_sequence, resolve_budget

    cell, settings = context.cell, context.settings
    assert cell.train is not None
    setting = settings.token_budget or cell.train.token_budget
    wanted = resolve_budget(setting, examples, torch.device(settings.device))
    stored = stored_budgets(settings.runs_dir).get(budget_key(cell, settings.device))
    # A budget stored for other data may be less than the longest sequence here.
    return wanted if stored is None else min(wanted, max(stored, longest_sequence(examples)))


def budget_key(cell: Cell, device: str) -> str:
    """The key of a stored budget: model, method and GPU."""
    gpu = "cpu"
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device)
    return f"{cell.model_name} | {cell.method_label} | {gpu}"


def stored_budgets(runs_dir: Path) -> dict[str, int]:
    """The effective budgets by key; a damaged file holds none, and is overwritten by the next."""
    try:
        stored = read_json_object(runs_dir / BUDGETS_FILE)
    except Unreadable:
        return {}
    return {key: value for key, value in stored.items() if isinstance(value, int) and value > 0}


def store_budget(runs_dir: Path, key: str, budget: int) -> None:
    """Stores a budget beside those of other models, methods and GPUs.

    Raises:
        StorageError: the file cannot be written.
    """
    from filelock import FileLock

    path = runs_dir / BUDGETS_FILE
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(runs_dir / f".{BUDGETS_FILE}.lock"):  # the other workers write it too
            budgets = stored_budgets(runs_dir) | {key: budget}
            write_text(path, json.dumps(budgets, indent=1, sort_keys=True) + "\n")
    except (OSError, NotImplementedError) as fault:  # the second: a file system without locks
        raise StorageError(f"{path}: cannot be written ({one_line(fault)})") from fault


def check_memory(context: CellContext) -> None:
    """Refuses a cell whose weights and optimizer alone are larger than a GPU; never on a CPU.

    Raises:
        TrainingError: they do not fit.
    """
    cell, device = context.cell, context.settings.device
    if not device.startswith("cuda"):
        return
    import torch

    trained = METHODS[cell.method].count_parameters(cell.model.shape, cell.options)
    needed = memory_bytes(
        cell.model.shape.num_parameters,
        trained,
        num_devices=context.settings.rank_info.world_size,
        quantization=cell.train.base_quantization if cell.train else None,
        optimizer=cell.train.optimizer if cell.train else None,
    )
    gpu = torch.cuda.get_device_properties(device).total_memory
    if needed > gpu:
        sharded = "raise gpus_per_cell or " if trained == cell.model.shape.num_parameters else ""
        raise TrainingError(
            f"{cell.label}: weights and optimizer need {needed / 1e9:.0f} GB and activations more, "
            f"but {torch.cuda.get_device_name(device)} has {gpu / 1e9:.0f} GB; "
            f"{sharded}take a larger GPU"
        )


def memory_bytes(
    total_parameters: int,
    trained_parameters: int,
    *,
    num_devices: int = 1,
    quantization: str | None = None,
    optimizer: Mapping[str, Any] | None = None,
) -> float:
    """Bytes of weights, gradients and the optimizer's state on each GPU, activations apart.

    Frozen weights take 2 bytes in half precision; trained ones 16 in all with AdamW: fp32 weight,
    gradient and its two moments. Adapters are copied to every GPU. In full fine-tuning every GPU
    keeps its shard of these bytes, but holds all weights in fp32 until they are sharded.
    """
    each = 8 + state_bytes(optimizer)
    if trained_parameters >= total_parameters:
        return max(each * trained_parameters / num_devices, 4 * trained_parameters)
    frozen = total_parameters - trained_parameters
    return FROZEN_BYTES[quantization] * frozen + each * trained_parameters
