"""What `plan`, `status` and `run-grid` say of a grid's tunings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from harness.grid.method_settings import settings_text
from harness.grid.tuned_methods import TunedMethod, tied_with
from harness.grid.workspace import OpenGrid


def tuning_lines(grid: OpenGrid) -> Iterator[str]:
    """Yields one line on how far each tuning is, or what it chose."""
    for one in grid.tunings:
        yield f"{one.label}: {_progress(one)}{_faults(one)}"


def stand_in_line(grid: OpenGrid) -> list[str]:
    """The line that says how the cells are counted that a tuning will decide, if there are any."""
    if not grid.waiting:
        return []
    number = len(grid.waiting)
    waits = f"{number} cells wait for a tuning, and are"
    if number == 1:
        waits = "1 cell waits for a tuning, and is"
    return [f"{waits} counted with the settings of the published recipe"]


def _progress(one: TunedMethod) -> str:
    spec = one.spec
    if one.chosen is not None:
        chosen = settings_text(one.trials[one.chosen].settings)
        same = ", which is the published recipe" if one.keeps_recipe else ""
        number = tied_with(one.trials, one.chosen)
        tied = f"; tied with {number} other{'s' * (number > 1)}" if number else ""
        return (
            f"trial {one.chosen} of {spec.trials} chosen on {spec.on_words}: {chosen}{same}{tied}"
        )
    if one.has_ended:
        return f"none of {spec.trials} trials was done, so that nothing is chosen"
    return f"{one.num_ended} of {spec.trials} trials have ended, to be compared on {spec.on_words}"


def _faults(one: TunedMethod) -> str:
    stopped = sum(trial.status == "pruned" for trial in one.trials)
    early = f"; {stopped} stopped early by the {one.spec.pruner_words}" if stopped else ""
    return early + _failures(one)


def _failures(one: TunedMethod) -> str:
    failed = [trial for trial in one.trials if trial.status == "failed"]
    if not failed:
        return ""
    first = f"{settings_text(failed[0].settings)}: {failed[0].note}"
    counts = "1 failed and counts" if len(failed) == 1 else f"{len(failed)} failed and count"
    return f"; {counts} as the worst ({first})"


def tuning_records(grid: OpenGrid) -> list[dict[str, Any]]:
    """The same for a machine to read."""
    return [
        {
            "model": one.model,
            "method": one.choice.label,
            "data": one.block.data,
            "on": one.spec.on_words,
            "num_trials": one.spec.trials,
            "chosen": one.chosen,
            "settings": None if one.chosen is None else dict(one.trials[one.chosen].settings),
            "trials": [
                {
                    "number": trial.number,
                    "settings": dict(trial.settings),
                    "status": trial.status,
                    "value": trial.value,
                    "cells": [cell.id for cell in trial.cells],
                    "note": trial.note,
                }
                for trial in one.trials
            ],
        }
        for one in grid.tunings
    ]


def waiting_lines(grid: OpenGrid) -> list[str]:
    """One line for each kind of cells that wait for a tuning."""
    kinds = Counter((cell.model_name, cell.method_label, waits) for cell, waits in grid.waiting)
    return [
        f"waits:   {model}/{method}: {number} cell{'s' * (number > 1)} ({waits})"
        for (model, method, waits), number in kinds.items()
    ]
