"""Which process wrote something: known by more than its number, which is given out again."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class _Kernel:
    """Where process numbers mean the same."""

    host: str
    machine: str
    """Its id for as long as its system is installed; empty where there is none."""
    boot: str
    """Linux's id of this start of the machine; empty elsewhere."""
    namespace: str
    """Linux's number of the process namespace: every container counts anew."""


def process_identity() -> str:
    """This process, as text for a record of it; `is_alive` reads it."""
    kernel = _kernel()
    parts = (str(os.getpid()), _start(os.getpid()) or "", kernel.boot, kernel.namespace,
             kernel.machine)  # fmt: skip
    return ":".join((kernel.host, *parts))


def is_alive(identity: str) -> bool | None:
    """Whether the process that `process_identity` named still runs.

    None where that cannot be known from here: it ran on another host, in another container, or the
    system does not tell when a process of its number began.
    """
    host, *parts = identity.rsplit(":", 5)
    if len(parts) != 5:  # of older versions: `host:number`
        host, _, number = identity.rpartition(":")
        parts = [number, "", "", "", ""]
    number, start, boot, namespace, machine = parts
    kernel = _kernel()
    if host != kernel.host or not number.isdigit():
        return None
    if boot and boot != kernel.boot:
        # The same machine has been started again, or another one has the same name.
        return False if machine and machine == kernel.machine else None
    if namespace and namespace != kernel.namespace:
        return None
    if not _exists(int(number)):
        return False
    now = _start(int(number))
    return now == start if start and now else None


def _kernel() -> _Kernel:
    machine = _text(Path("/etc/machine-id"))
    boot = _text(PROC / "sys" / "kernel" / "random" / "boot_id")
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink(PROC / "self" / "ns" / "pid").strip("pid:[]")
    return _Kernel(platform.node(), machine, boot, namespace)


def _exists(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        pass
    return True


def _start(number: int) -> str | None:
    """When a process began, in the system's clock ticks; `ended` for one that nobody waited for."""
    # The name, in brackets, may hold blanks and brackets itself.
    fields = _text(PROC / str(number) / "stat").rpartition(")")[2].split()
    if len(fields) < 20:
        return None
    return "ended" if fields[0] in "ZX" else fields[19]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
