"""What a card's own profiler says of a step: launches, attention kernels, idle time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

SLOW_ATTENTION = ("fmha_cutlass", "efficient_attention")
FAST_ATTENTION = ("flash", "cudnn", "sdpa", "varlen")


@dataclass(frozen=True)
class Kernel:
    """One launch on the card: a kernel, a copy or a fill."""

    name: str
    start: float
    """Microseconds."""
    end: float


@dataclass(frozen=True)
class StepProfile:
    """Of one step."""

    launches: int
    attention: dict[str, int]
    """Launches of attention kernels, by name."""
    slow_attention: dict[str, int]
    """Those of the memory-efficient kernel, which is the slower one."""
    busy_seconds: float
    seconds: float
    """From the first launch to the last one's end."""
    longest: dict[str, float]
    """Seconds of the kernels that took most, by name."""

    @property
    def idle_share(self) -> float:
        """Share of the time in which nothing ran on the card."""
        return 1.0 - self.busy_seconds / self.seconds if self.seconds else 0.0


def profile(work: Callable[[], Any], device: str) -> StepProfile:
    """Runs a piece of work under torch.profiler; on a CPU its operations count as launches."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    on_card = device.startswith("cuda")
    if on_card:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as found:
        work()
        if on_card:
            torch.cuda.synchronize()
    wanted = torch.autograd.DeviceType.CUDA if on_card else torch.autograd.DeviceType.CPU
    return summary(
        [
            Kernel(event.name, event.time_range.start, event.time_range.end)
            for event in found.events() or []
            if event.device_type == wanted
            and not getattr(event, "is_user_annotation", False)
            and not event.name.startswith(("Optimizer.", "ProfilerStep"))
        ]
    )


def summary(kernels: Sequence[Kernel]) -> StepProfile:
    """Counts launches; overlapping ones are busy once."""
    busy, reached = 0.0, float("-inf")
    for one in sorted(kernels, key=lambda kernel: kernel.start):
        busy += max(0.0, one.end - max(one.start, reached))
        reached = max(reached, one.end)
    begin = min((one.start for one in kernels), default=0.0)
    slow = Counter(k.name for k in kernels if any(w in k.name.lower() for w in SLOW_ATTENTION))
    fast = Counter(k.name for k in kernels if any(w in k.name.lower() for w in FAST_ATTENTION))
    times: Counter[str] = Counter()
    for one in kernels:
        times[one.name[:120]] += one.end - one.start  # type: ignore[assignment]  # microseconds
    return StepProfile(
        launches=len(kernels),
        attention=dict(fast - slow),
        slow_attention=dict(slow),
        busy_seconds=busy / 1e6,
        seconds=max(0.0, reached - begin) / 1e6 if kernels else 0.0,
        longest={name: time / 1e6 for name, time in times.most_common(20)},
    )
