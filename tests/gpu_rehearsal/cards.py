"""The cards that a rehearsal can put into this machine; torch is not needed to read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CardSpec:
    """What a card says of itself, from its data sheet."""

    name: str
    """As `torch.cuda.get_device_name` gives it."""
    gigabytes: float
    """Memory, in 1e9 bytes."""
    capability: tuple[int, int]
    """CUDA compute capability."""
    processors: int
    """Streaming multiprocessors."""


CARDS = {
    "h200": CardSpec("NVIDIA H200", 141, (9, 0), 132),
    "a100-80": CardSpec("NVIDIA A100-SXM4-80GB", 80, (8, 0), 108),
    "v100-32": CardSpec("Tesla V100-SXM2-32GB", 32, (7, 0), 80),
}
"""Cards by the names that the commands take."""
