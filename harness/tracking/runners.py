"""Which processes log cells: each says so in a tag of the grid's own run, again and again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.records.process import is_alive, process_identity

if TYPE_CHECKING:
    from mlflow.entities import Run

RUNNER = "zbench.runner."
"""Tags of the grid's own run: one for each process that runs cells of it."""
BEAT_SECONDS = 60.0
SILENT_SECONDS = 600.0
"""A process of another machine that has said nothing for so long has gone; clocks may differ."""


def runner_tag() -> str:
    """The tag by which this process says that it runs cells of the grid."""
    return RUNNER + hashlib.sha256(process_identity().encode()).hexdigest()[:12]


def runner_text() -> str:
    """What stands in it: who this is, and when it said so."""
    return f"{process_identity()} {time.time():.0f}"


def is_heard(text: str) -> bool:
    """Whether the process that wrote a runner's tag is known to live, or was heard of lately."""
    owner, _, seconds = text.partition(" ")
    alive = is_alive(owner) if owner else False
    if alive is not None:
        return alive
    return seconds.isdecimal() and time.time() - float(seconds) < SILENT_SECONDS


def owner_lives(run: Run) -> bool | None:
    """Whether another process owns a run and lives; None where that cannot be known."""
    tags: Mapping[str, str] = run.data.tags
    owner = tags.get("zbench.owner", "")
    # A process that has been replaced by itself (see `run-cell`) has no open run at its beginning.
    return False if owner in ("", process_identity()) else is_alive(owner)
