"""Out of memory: what a cell needs at least, and the token budget that is effective after it.

A run that is out of memory resumes in a fresh process (a full allocator never recovers all) with
half the tokens in a forward pass; the gradient stays the same. The effective budget is kept in
`token_budgets.json` in the runs folder, per model, method and GPU, and for each way of taking less
memory; remove it to try more again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cell.memory_model import TokenPass, Training
from harness.cell.settings import CellContext
from harness.errors import StorageError, TrainingError, one_line
from harness.grid.schema import Cell
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import write_text

if TYPE_CHECKING:
    from harness.data.instructions import Example

SLOTS_PER_NODE = 1.5
"""Rows of attention for each row of a linear layer, where shared prefixes are computed once: 1.35
with Alpaca, whose template is a quarter of its tokens."""

BUDGETS_FILE = "token_budgets.json"


class SmallerBudget(TrainingError):
    """Out of memory: a request to retry in a fresh process with a smaller budget, not a failure.

    It is a TrainingError so that a caller that does not retry reports it in one line.
    """


def smaller_budget(
    context: CellContext, *, used: int, longest: int, largest_pass: int | None = None
) -> Exception:
    """Stores half of a budget that was too large; returns the error to leave the process with.

    That is SmallerBudget, or a plain TrainingError where single sequences are too large.

    Args:
        context: the context of the cell that is out of memory.
        used: the token budget of its forward passes.
        longest: the number of tokens of the longest sequence.
        largest_pass: the most tokens that a pass had, where one was begun: a budget above it would
            change nothing.

    Raises:
        StorageError: the budget cannot be stored.
    """
    held = min(used, largest_pass or used)
    if held <= longest:
        return TrainingError(
            f"{context.cell.label}: out of memory with one sequence of {longest} tokens at a time; "
            "take a larger GPU, free this one of other processes, or lower train.max_length"
        )
    # Below the longest sequence a budget changes nothing: one sequence is the least.
    smaller = max(held // 2, longest)
    key = budget_key(context.cell, context.settings.device)
    store_budget(context.settings.runs_dir, key, smaller)
    return SmallerBudget(
        f"out of memory with {held} tokens in a forward pass; resumes with {smaller} in a fresh "
        "process"
    )


def effective_budget(context: CellContext, examples: Sequence[Example]) -> int:
    """Tokens of a forward pass: as set, but no more than the stored budget.

    Where nothing is set, no more on a GPU than its memory holds by the memory model, nor fewer
    than the longest sequence.

    Raises:
        TrainingError: the setting is less than the longest sequence.
    """
    from harness.training.micro_batches import longest_sequence

    cell, settings = context.cell, context.settings
    wanted = full_budget(context, examples)
    if _budget_setting(context) is None and settings.device.startswith("cuda"):
        import torch

        room = torch.cuda.get_device_properties(settings.device).total_memory
        fitting = fitting_budget(_training(context), examples, room)
        wanted = min(wanted, max(fitting, longest_sequence(examples)))
    stored = stored_budgets(settings.runs_dir).get(budget_key(cell, settings.device))
    # A budget stored for other data may be less than the longest sequence here.
    return wanted if stored is None else min(wanted, max(stored, longest_sequence(examples)))


def full_budget(context: CellContext, examples: Sequence[Example]) -> int:
    """Tokens of a forward pass as set, or the device's default, whatever its memory.

    Raises:
        TrainingError: the setting is less than the longest sequence.
    """
    import torch

    from harness.training.micro_batches import resolve_budget

    device = torch.device(context.settings.device)
    return resolve_budget(_budget_setting(context), examples, device)


def _budget_setting(context: CellContext) -> int | None:
    assert context.cell.train is not None
    return context.settings.token_budget or context.cell.train.token_budget


def budget_key(cell: Cell, device: str) -> str:
    """The key of a stored budget: model, method and GPU; and, where they are set, several GPUs, a
    quantised base and gradient checkpointing, with which a pass may be larger."""
    gpu = "cpu"
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device)
    parts = [cell.model_name, cell.method_label, gpu]
    if cell.gpus_per_cell > 1:
        parts.append(f"{cell.gpus_per_cell} GPUs")
    if cell.train is not None and cell.train.base_quantization is not None:
        parts.append(cell.train.base_quantization)
    if cell.train is not None and cell.train.gradient_checkpointing:
        parts.append("gradient checkpointing")
    return " | ".join(parts)


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
    if not device.startswith("cuda") or cell.train is None:
        return
    import torch

    training = _training(context)
    needed = training.least_bytes()
    gpu = torch.cuda.get_device_properties(device).total_memory
    if needed > gpu:
        ways = "take a larger GPU"
        if training.work.trains_base:
            ways = f"raise gpus_per_cell or {ways}"
        elif training.quantization != "nf4":
            ways = f"set train.base_quantization, which is another cell, or {ways}"
        raise TrainingError(
            f"{cell.label}: weights and optimizer need {needed / 1e9:.0f} GB and activations more, "
            f"but {torch.cuda.get_device_name(device)} has {gpu / 1e9:.0f} GB; {ways}"
        )


def _training(context: CellContext) -> Training:
    """What a cell trains, on the device that it was given."""
    from harness.models.devices import resolve_precision

    assert context.cell.train is not None
    precision = resolve_precision(context.cell.train.precision, context.settings.device)
    ranks = context.settings.rank_info.world_size
    return Training.of(context.cell, precision, ranks=ranks)


def fitting_budget(training: Training, examples: Sequence[Example], room: float) -> int:
    """The most tokens of a forward pass with which the modelled peak is no larger than `room`.

    0 where not even a pass of one token fits.

    Args:
        training: what is trained.
        examples: their labels tell how many logits a pass has.
        room: bytes of the GPU.
    """
    tokens = max(1, sum(len(example.token_ids) for example in examples))
    labels = sum(example.num_labels for example in examples)
    slots = SLOTS_PER_NODE if training.work.shares_prefix else 1.0
    sequences = slots * len(examples) / tokens
    virtual = sequences * training.work.virtual_tokens  # of which a budget knows nothing
    like = TokenPass(1.0 + virtual, slots + virtual, labels / tokens * slots, sequences)
    return int(training.largest_pass(room, like) / like.nodes)
