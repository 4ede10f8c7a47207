"""All checks, run side by side: each has a bounded time, and its faults are its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from harness.errors import mask_secrets, one_line
from harness.prepare.doctor import hardware, network, scheduler, software, storage
from harness.prepare.doctor.finding import Check, Context, Finding

THREADS = "doctor-"
"""How the names of checks' threads begin."""
LONGEST_SECONDS = 150.0
"""After which a check counts as one that does not answer."""


def check_grid(context: Context) -> Iterator[Finding]:
    """Whether the grid that was named can be read, with all that it names."""
    for fault in context.grid_faults:
        left_out = "" if context.grid else "; checks that need the grid are left out"
        yield Finding("grid", "error", fault, f"correct it{left_out}")
    if context.grid is not None:
        cells = len(context.grid.cells)
        yield Finding("grid", "ok", f"{context.grid.spec.name}: {cells} cells")


CHECKS: tuple[Check, ...] = (
    check_grid,
    scheduler.check_login_node,
    software.check_python,
    software.check_packages,
    hardware.check_gpus,
    hardware.check_visible,
    hardware.check_cuda,
    hardware.check_gpu_memory,
    hardware.check_host_memory,
    hardware.check_shared_memory,
    hardware.check_limits,
    storage.check_runs_folder,
    storage.check_lock_reach,
    storage.check_disks,
    storage.check_data_root,
    storage.check_file_clock,
    network.check_tracking,
    network.check_hub,
    network.check_access,
    network.check_caches,
    network.check_clocks,
    scheduler.check_slurm,
    scheduler.check_ray,
)
"""In the order in which they are told."""


def run_checks(
    context: Context,
    checks: Sequence[Check] = CHECKS,
    longest_seconds: float = LONGEST_SECONDS,
) -> list[Finding]:
    """What all checks find. One that raises or hangs is told as that, and hides none of the others.

    A thread that hangs goes on: `is_hanging` tells whoever wants to end.
    """
    found: list[list[Finding]] = [[] for _ in checks]
    threads = []
    for check, own in zip(checks, found, strict=True):
        name = f"{THREADS}{check.__name__}"
        thread = threading.Thread(target=_run, args=(check, context, own), name=name, daemon=True)
        thread.start()
        threads.append(thread)
    end = time.monotonic() + longest_seconds
    for check, thread, own in zip(checks, threads, found, strict=True):
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            said = f"no answer within {longest_seconds:.0f} s"
            advice = "a disk, driver or server hangs: look at what it reads"
            own.append(Finding(_name(check), "error", said, advice))
    return [
        Finding(one.name, one.status, mask_secrets(one.said), mask_secrets(one.advice))
        for own in found
        for one in list(own)
    ]


def is_hanging() -> bool:
    """Whether a check has not ended yet."""
    return any(thread.name.startswith(THREADS) for thread in threading.enumerate())


def _run(check: Check, context: Context, found: list[Finding]) -> None:
    try:
        found += check(context)
    except Exception as fault:  # a check's own fault, of any kind
        said = f"this check failed itself ({type(fault).__name__}: {one_line(fault)})"
        found.append(Finding(_name(check), "unknown", said, "please report it"))


def _name(check: Check) -> str:
    return check.__name__.removeprefix("check_").replace("_", " ")
