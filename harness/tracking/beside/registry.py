"""The trackers by the names that a grid gives; a new one is a file here and an entry."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TrackerEntry:
    """Where a tracker's code is."""

    module: str
    """It has `open_run(info, begun)`, which returns a `BesideRun`, and may have `note(runs_dir)`:
    what is said of it at the end."""
    package: str
    """What must be installed."""


TRACKERS: dict[str, TrackerEntry] = {
    "wandb": TrackerEntry("harness.tracking.beside.wandb_run", "wandb"),
    "trackio": TrackerEntry("harness.tracking.beside.trackio_run", "trackio"),
    "tensorboard": TrackerEntry("harness.tracking.beside.tensorboard_run", "tensorboard"),
}


def not_installed(names: Sequence[str]) -> dict[str, str]:
    """Of these trackers those that are not here, each with a line that says what to do."""
    return {
        name: f"tracking.also: {name} is not installed, and gets nothing; `pip install "
        f"'zbench[{name}]'`"
        for name in names
        if importlib.util.find_spec(TRACKERS[name].package) is None
    }
