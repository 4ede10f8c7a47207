"""One cell on several devices: its processes, how they meet, and what each of them computes.

Every process (a rank) holds one device and runs the same training. An optimizer batch is divided
among them by tokens; what comes of it is the same for any number of ranks, up to rounding. Rank 0
alone writes files and tells events.
"""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

SILENCE_SECONDS = 1800.0
"""A rank that hears nothing of the others for so long gives up; loading a model from a slow disk
takes minutes."""


@dataclass(frozen=True)
class GroupMember:
    """One process of a cell that runs in several."""

    rank: int
    """From 0."""
    size: int
    """Processes in all."""
    store: str
    """A file that all of them can write, absent at first: they find each other through it."""
    silence_seconds: float = SILENCE_SECONDS

    @property
    def environment(self) -> dict[str, str]:
        """What accelerate and torch read: each process sees one device only, its number 0."""
        # All are on this machine, whose name need not resolve to an address.
        loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
        return loopback | {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": str(self.size),
        }


@contextlib.contextmanager
def joined(member: GroupMember | None, device: str) -> Iterator[None]:
    """Makes this process one of its group: over NCCL on CUDA, over gloo on the CPU.

    A process that fails inside leaves the group as it is: to say goodbye it would have to wait for
    the others, and it is about to end.
    """
    if member is None:
        yield
        return
    import torch

    on_cuda = device.startswith("cuda")
    torch.distributed.init_process_group(
        "nccl" if on_cuda else "gloo",
        init_method=f"file://{member.store}",
        rank=member.rank,
        world_size=member.size,
        timeout=datetime.timedelta(seconds=member.silence_seconds),
        device_id=torch.device("cuda", 0) if on_cuda else None,
    )
    yield
    torch.distributed.destroy_process_group()
