"""The process group of a cell that several devices train.

Every process (a rank) holds one device and runs the same loop. An optimizer batch is divided
among them by tokens; the result is the same for any number of ranks, up to rounding. Rank 0 alone
writes files and emits events.
"""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Iterator
from dataclasses import dataclass

TIMEOUT_SECONDS = 1800.0
"""A collective fails after so long; loading a model from a slow disk takes minutes."""


@dataclass(frozen=True)
class RankInfo:
    """What a process needs to know to join the process group of its cell; by default, none."""

    rank: int = 0
    world_size: int = 1
    store: str = ""
    """A file that all ranks can write, absent at first: torch's FileStore for the rendezvous."""
    timeout_seconds: float = TIMEOUT_SECONDS

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for torch: each process sees one device only, its number 0."""
        # All are on this machine, whose name need not resolve to an address.
        loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
        return loopback | {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": str(self.world_size),
        }


@contextlib.contextmanager
def joined(rank_info: RankInfo, device: str) -> Iterator[None]:
    """Initializes the process group, over NCCL on CUDA, over gloo on the CPU; none for one process.

    A process that fails inside does not destroy the group: it would have to wait for the others,
    and it is about to exit.
    """
    if rank_info.world_size == 1:
        yield
        return
    import torch

    on_cuda = device.startswith("cuda")
    torch.distributed.init_process_group(
        "nccl" if on_cuda else "gloo",
        init_method=f"file://{rank_info.store}",
        rank=rank_info.rank,
        world_size=rank_info.world_size,
        timeout=datetime.timedelta(seconds=rank_info.timeout_seconds),
        device_id=torch.device("cuda", 0) if on_cuda else None,
    )
    yield
    torch.distributed.destroy_process_group()
