"""What was drawn for trials, kept in the runs folder, so that a study stays the same under another
version of Optuna and on another machine. A lost file is drawn anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.grid.folders import Runs, runs_folders
from harness.grid.sampling import History, Settings, draw, num_asked, param_of, value_of_param
from harness.grid.tuned_methods import TunedMethod
from harness.grid.tuning import Range, Space, TuneSpec
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import sha256_of_json, write_text

FOLDER = Path("tuning", "draws")
Draw = Callable[[TuneSpec, Space, History], list[dict[str, Any]]]
"""Gives the settings of the next trials, from those before with their validation scores."""


def stored_draws(runs: Runs) -> Draw:
    """Draws what was drawn before in a runs folder, the first that knows it, and else anew."""

    def found(spec: TuneSpec, space: Space, history: History) -> list[dict[str, Any]]:
        for runs_dir in runs_folders(runs):
            kept = _read(_file(runs_dir, spec, space, history), space)
            if len(kept) == num_asked(spec, history):
                return kept
        return draw(spec, space, history)

    return found


def write_draws(tunings: Sequence[TunedMethod], runs_dir: Path) -> None:
    """Keeps the settings of all trials that are known.

    Raises:
        StorageError: a file cannot be written.
    """
    for one in tunings:
        spec, space = one.spec, one.spec.space[one.choice.label]
        first = 0
        while first < len(one.trials):
            history = [(trial.settings, trial.reported(spec)) for trial in one.trials[:first]]
            size = num_asked(spec, history)
            path = _file(runs_dir, spec, space, history)
            if not path.exists():
                drawn = [_params(space, t.settings) for t in one.trials[first : first + size]]
                write_text(path, json.dumps({"trials": drawn}, allow_nan=False) + "\n")
            first += size


def _file(runs_dir: Path, spec: TuneSpec, space: Space, history: History) -> Path:
    """Where draws lie, named by all that decides them but the installed software."""
    asked = {
        "space": {
            name: one.model_dump() if isinstance(one, Range) else list(one)
            for name, one in space.items()
        },
        "sampler": spec.sampler,
        "number": num_asked(spec, history),
        "batch": spec.batch,
        "lower_is_better": spec.lower_is_better,
        "history": [[_params(space, settings), value] for settings, value in history],
    }
    return runs_dir / FOLDER / f"{sha256_of_json(asked)[:16]}.json"


def _params(space: Space, settings: Settings) -> dict[str, Any]:
    return {name: param_of(values, settings[name]) for name, values in space.items()}


def _read(path: Path, space: Space) -> list[dict[str, Any]]:
    """The draws of a file; none where it cannot be read."""
    try:
        return [
            {name: value_of_param(values, trial[name]) for name, values in space.items()}
            for trial in read_json_object(path)["trials"]
        ]
    except (Unreadable, KeyError, TypeError, StopIteration):
        return []
