"""TODO: say what this is for."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cell.settings import RunSettings


@dataclass(frozen=True)
class RunPlan:
    """Where the cells run."""

    settings: RunSettings
    devices: tuple[str, ...]
    """One worker each: `cpu`, or `cuda:0`, ..."""


@dataclass(frozen=True)
class GridOutcome:
    """What came of the cells that were to do."""

    done: tuple[str, ...]
    """Cell ids."""
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    """Done before, running elsewhere, or not reached."""
    interrupted: bool = False
