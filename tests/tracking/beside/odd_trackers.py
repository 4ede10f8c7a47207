"""Trackers that no run should notice: one sleeps, one raises, one ends its process."""

from __future__ import annotations

import os
import time

from harness.tracking.beside.run import Begun, RunInfo


class Sleeps:
    """Each call takes ten seconds."""

    def log(self, *values: object, **options: object) -> None:
        time.sleep(10)

    log_epoch = finish = log

    def leave(self) -> None:
        time.sleep(10)


class Raises:
    """No call succeeds."""

    def log(self, *values: object, **options: object) -> None:
        raise ValueError("no room for token=hunter2hunter2")

    log_epoch = finish = leave = log


class Dies:
    """Its first call ends the process."""

    def log(self, *values: object, **options: object) -> None:
        os._exit(7)

    log_epoch = finish = leave = log


def open_run(info: RunInfo, begun: Begun) -> Sleeps | Raises | Dies:
    """The tracker that the grid is named after."""
    kinds: dict[str, type[Sleeps | Raises | Dies]] = {
        "sleeps": Sleeps, "raises": Raises, "dies": Dies
    }  # fmt: skip
    return kinds[os.environ["ODD_TRACKER"]]()
