"""How often the host waits for the card in a piece of work, and where."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WORDS = "called a synchronizing CUDA operation"


@dataclass
class Waits:
    """What was seen; read it when the context has ended."""

    warned: list[str] = field(default_factory=list)
    """Lines at which torch says that it waited."""
    reads: int = 0
    """Copies from the card to the host, and values that are read."""
    blocking_writes: int = 0
    """Copies from the host to the card that wait for it: those that are not `non_blocking`."""

    @property
    def count(self) -> int:
        """Waits, the copies to the card apart."""
        return max(self.reads, len(self.warned) - self.blocking_writes)

    @property
    def places(self) -> dict[str, int]:
        """Their lines, by how often."""
        return dict(Counter(self.warned))


class _Copies(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[-1]
        if name in ("_local_scalar_dense", "nonzero", "_unique2") and args[0].is_cuda:
            self.waits.reads += 1
        elif name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            aim = torch.device(kwargs.get("device") or source.device)
            if name == "copy_":
                aim = args[0].device
            free = kwargs.get("non_blocking") or (name == "copy_" and args[2:3] == (True,))
            if source.is_cuda and aim.type == "cpu":
                self.waits.reads += 1
            elif aim.type == "cuda" and not source.is_cuda and not free:
                self.waits.blocking_writes += 1
        return func(*args, **kwargs)


@contextlib.contextmanager
def counted_waits() -> Iterator[Waits]:
    """Counts the waits of the code inside, by torch's own debug mode on a card."""
    found = Waits()
    with warnings.catch_warnings(record=True) as caught, _Copies(found):
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")
    found.warned = [f"{one.filename}:{one.lineno}" for one in caught if WORDS in str(one.message)]
