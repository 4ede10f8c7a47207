"""A GPU that others fill: what is free, what a cell needs at least, and who has the rest."""

from __future__ import annotations

import time

from harness.cell.memory_model import Training
from harness.cell.settings import CellContext
from harness.errors import TrainingError
from harness.grid.schema import Cell
from harness.models.devices import free_memory
from harness.records.nvidia_smi import users_of

PATIENCE_SECONDS = 10.0
"""How long a process that has just ended may take to give its memory back."""


def least_bytes(cell: Cell, *, trained: bool) -> float:
    """Bytes of weights, gradients and the optimizer's state on each GPU, activations apart; of the
    weights alone where the cell is trained already. Where the precision is that of the GPU, half
    precision is assumed."""
    setting = cell.train.precision if cell.train else "auto"
    training = Training.of(cell, "fp32" if setting == "fp32" else "bf16")
    if cell.train is None or trained:
        return training.weight_bytes()
    return training.least_bytes()


def who_uses(uuid: str | None) -> str:
    """The subject of "... the rest": other processes on a GPU, where nvidia-smi tells."""
    users = users_of(uuid) if uuid else ()
    return f"{', '.join(users)} use{'s' * (len(users) == 1)}" if users else "other processes use"


def check_free_memory(context: CellContext, *, trained: bool) -> None:
    """Refuses to begin a cell on a GPU that others fill; never on a CPU.

    Raises:
        TrainingError: less is free than the cell needs at least; says how much, and who uses it.
    """
    cell, device = context.cell, context.settings.device
    if not device.startswith("cuda"):
        return
    import torch

    needed = least_bytes(cell, trained=trained)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        free_memory(device)  # of the worker's cell before this one
        free, total = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device)
        if not free < needed <= total:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    properties = torch.cuda.get_device_properties(device)
    users = who_uses(f"GPU-{properties.uuid}")
    raise TrainingError(
        f"{cell.label}: {free / 1e9:.1f} of {total / 1e9:.1f} GB are free on {properties.name}, "
        f"and it needs at least {needed / 1e9:.1f}; {users} the rest: wait, or end it, then run "
        "the same command again"
    )
