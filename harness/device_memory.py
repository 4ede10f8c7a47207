"""What a cell's weights and optimizer take of a card's memory, activations apart."""

from __future__ import annotations

from harness.errors import TrainingError
from harness.grid import Cell
from harness.methods import METHODS

FROZEN_BYTES = {None: 2.0, "int8": 1.0, "nf4": 0.5}
"""Of a parameter, by `base_quantization`."""


def check_memory(cell: Cell, device: str, num_devices: int = 1) -> None:
    """Refuses a cell whose weights and optimizer alone are larger than a card.

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
    card = torch.cuda.get_device_properties(device).total_memory
    if needed > card:
        raise TrainingError(
            f"{cell.label}: weights and optimizer need {needed / 1e9:.0f} GB and activations more, "
            f"but {torch.cuda.get_device_name(device)} has {card / 1e9:.0f} GB; "
            + (
                "raise gpus_per_cell or take a larger card"
                if trained == cell.model.shape.num_parameters
                else "take a larger card"
            )
        )


def memory_bytes(
    total_parameters: int,
    trained_parameters: int,
    *,
    num_devices: int = 1,
    quantization: str | None = None,
) -> float:
    """Returns the bytes of weights, gradients and AdamW's state on each card, activations apart.

    Frozen weights take 2 bytes in half precision; trained ones 16 in all: fp32 weight, gradient
    and AdamW's two moments. Adapters are copied to every card. In full fine-tuning every card keeps
    its part of the 16 bytes, but holds all weights in fp32 until they are divided.
    """
    if trained_parameters >= total_parameters:
        return max(16 * trained_parameters / num_devices, 4 * trained_parameters)
    frozen = total_parameters - trained_parameters
    return FROZEN_BYTES[quantization] * frozen + 16 * trained_parameters


def free_memory(device: str) -> None:
    """Gives a device back what nothing refers to any more."""
    import gc

    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
