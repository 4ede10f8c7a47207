"""Rows of a study that are one method under several settings, read as that method's tuning.

They are ordinary cells with scores of their own: which of them is chosen is told by the validation
loss, where rows are held out. Without any it is told by the benchmark itself, and so is biased.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from harness.analysis.tuning import Tuning
from harness.grid.choosing import choose, validation_value
from harness.grid.method_settings import differing_settings
from harness.grid.tuned_methods import Trial, TrialStatus
from harness.grid.tuning import TuneSpec, ValidationScore

if TYPE_CHECKING:
    from harness.grid.choices import MethodChoice
    from harness.grid.schema import Block
    from harness.grid.status import CellState
    from harness.grid.workspace import OpenGrid


def gathered_tunings(grid: OpenGrid) -> tuple[Tuning, ...]:
    """What is known of the rows that the grid gathers, as tunings, in the order of its blocks."""
    return tuple(_tunings(grid))


def _tunings(grid: OpenGrid) -> Iterator[Tuning]:
    spec = grid.spec
    for name, labels in spec.gather.items():
        for block in spec.blocks:
            choices = {choice.label: choice for choice in block.methods if choice.label in labels}
            if choices.keys() < {*labels}:
                continue  # some of them alone, such as with more seeds
            rows = [choices[label] for label in labels]
            for model, fraction in product(block.models, block.fractions):
                yield _tuning(grid, block, name, rows, model, fraction)


def _tuning(
    grid: OpenGrid,
    block: Block,
    name: str,
    rows: Sequence[MethodChoice],
    model: str,
    fraction: float,
) -> Tuning:
    validated = grid.spec.data_of(block.data).validation is not None
    task = block.tasks[0]
    on: Literal["validation"] | ValidationScore = (
        "validation"
        if validated
        else ValidationScore(task=task, metric=task.benchmark.primary_metric)
    )
    tune = TuneSpec(trials=len(rows), on=on, space={})
    settings = differing_settings(rows)
    trials = []
    for number, choice in enumerate(rows):
        states = {
            state.cell.seed: state
            for state in grid.states
            if state.cell.method_label == choice.label
            and (state.cell.model_name, state.cell.fraction) == (model, fraction)
            and state.cell.data_name == block.data
            and state.cell.seed in block.seeds
            and not state.cell.is_noise
        }
        trials.append(_trial(number, settings[number], states, tune))
    values = {trial.number: trial.value for trial in trials}
    chosen = (
        None if None in values.values() else choose(values, lower_is_better=tune.lower_is_better)
    )
    return Tuning(
        model=model,
        method=name,
        method_title=name,
        data=block.data,
        fraction=fraction,
        on=tune.on_words,
        lower_is_better=tune.lower_is_better,
        num_trials=tune.trials,
        space={key: _distinct(one[key] for one in settings) for key in settings[0]},
        sampler="rows of the grid",
        trials=tuple(trials),
        chosen=chosen,
        unit=tune.unit,
        gathered=tuple(choice.label for choice in rows),
    )


def _distinct(values: Iterable[Any]) -> tuple[Any, ...]:
    """Values in their order, each once; some have no hash."""
    return tuple({repr(value): value for value in values}.values())


def _trial(
    number: int,
    settings: Mapping[str, object],
    states: Mapping[int, CellState],
    tune: TuneSpec,
) -> Trial:
    values = {
        seed: None if state.result is None else validation_value(state.result, tune.on)
        for seed, state in states.items()
    }
    failed = any(state.status == "failed" for state in states.values())
    status: TrialStatus = "done" if all(v is not None for v in values.values()) else "to do"
    seconds = [s.result.train.seconds for s in states.values() if s.result and s.result.train]
    return Trial(
        number=number,
        settings=settings,
        values=values,
        status="failed" if failed and status != "done" else status,
        cells=tuple(state.cell for state in states.values()),
        seconds=sum(seconds) if seconds else None,
    )
