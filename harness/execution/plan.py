"""The records of a grid's run: where its cells run, and how they ended."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cell.settings import RunSettings


@dataclass(frozen=True)
class RunPlan:
    """Where a grid's cells run."""

    settings: RunSettings
    devices: tuple[str, ...]
    """One worker process each: `cpu`, or `cuda:0`, ..."""


@dataclass(frozen=True)
class GridOutcome:
    """Ids of the cells by how their run ended."""

    done: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    """Done before, running elsewhere, or not reached."""
    interrupted: bool = False
    """Whether ctrl-C or SIGTERM ended the run."""
