"""Draws the settings of trials with Optuna's samplers, the same ones in every process.

A draw depends on the space, the sampler and, with tpe, on the results of earlier rounds: never on
the time at which a worker was done. Methods that have the same space are tried at the same
settings. Optuna is imported where there is something to draw: not for a grid that is tried whole.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness.grid.tuning import Range, Space, TuneSpec, combinations, lists_of, values_of
from harness.records.files import sha256_of_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

TRIES = 200
"""Draws of one trial that may hold settings that were drawn before."""

Settings = Mapping[str, Any]
History = Sequence[tuple[Settings, float | None]]
"""Settings of earlier trials with their validation scores; None of one that failed."""


def num_asked(spec: TuneSpec, history: History) -> int:
    """How many trials are drawn at once: all of them, or with tpe a round."""
    left = spec.trials - len(history)
    return min(spec.batch, left) if spec.sampler == "tpe" else left


def draw(spec: TuneSpec, space: Space, history: History = ()) -> list[dict[str, Any]]:
    """The settings of the next trials."""
    number = num_asked(spec, history)
    if spec.sampler == "grid":
        listed = lists_of(space, spec.trials)
        if math.prod(map(len, listed.values())) == spec.trials:
            return list(combinations(listed))
        space = {name: tuple(values) for name, values in listed.items()}
    return _draw(spec, space, history, number)


def _draw(spec: TuneSpec, space: Space, history: History, number: int) -> list[dict[str, Any]]:
    """So many settings that differ from each other and from those of the history."""
    study = _study(spec, space, history)
    distributions = {name: distribution_of(values) for name, values in space.items()}
    seen = {_key(settings) for settings, _ in history}
    found: list[dict[str, Any]] = []
    for settings in _asked(study, distributions, space, number * TRIES):
        if (key := _key(settings)) not in seen:
            seen.add(key)
            found.append(settings)
        if len(found) == number:
            return found
    listed = {name: values_of(values) for name, values in space.items()}
    left = (one for one in combinations(listed) if _key(one) not in seen)
    return found + list(islice(left, number - len(found)))  # what is left, in order


def _asked(
    study: Study, distributions: dict[str, BaseDistribution], space: Space, tries: int
) -> Iterator[dict[str, Any]]:
    for _ in range(tries):
        trial = study.ask(distributions)
        if not _waits(study):
            study.tell(trial, 0.0)  # nothing is made of it: the sampler asks for no results
        yield {name: value_of_param(values, trial.params[name]) for name, values in space.items()}


def _waits(study: Study) -> bool:
    """Whether trials stay open: tpe and the grid take those that run into account."""
    from optuna.samplers import GridSampler, TPESampler

    return isinstance(study.sampler, GridSampler | TPESampler)


def _study(spec: TuneSpec, space: Space, history: History) -> Study:
    """A study in memory that holds the history."""
    import optuna

    keep_quiet()
    study = optuna.create_study(
        sampler=_sampler(spec, space, history),
        direction="minimize" if spec.lower_is_better else "maximize",
    )
    for settings, value in history:
        study.add_trial(finished_trial(space, settings, value, spec.lower_is_better))
    return study


def finished_trial(
    space: Space, settings: Settings, value: float | None, lower_is_better: bool
) -> Any:
    """Optuna's record of a trial; a failed one has the worst value that there is."""
    from optuna.trial import create_trial

    worst = float("inf") if lower_is_better else float("-inf")
    return create_trial(
        params={name: param_of(values, settings[name]) for name, values in space.items()},
        distributions={name: distribution_of(values) for name, values in space.items()},
        value=worst if value is None else value,
    )


def _sampler(spec: TuneSpec, space: Space, history: History) -> BaseSampler:
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    plain = {
        name: one.model_dump(exclude_defaults=True) if isinstance(one, Range) else list(one)
        for name, one in space.items()
    }
    drawn_from = {"space": plain, "sampler": spec.sampler, "round": len(history)}
    seed = int(sha256_of_json(drawn_from)[:8], 16)
    match spec.sampler:
        case "grid":
            listed = {
                name: [param_of(one, v) for v in values_of(one)] for name, one in space.items()
            }
            return samplers.GridSampler(listed, seed=seed)
        case "random":
            return samplers.RandomSampler(seed=seed)
        case "qmc":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return samplers.QMCSampler(
                    scramble=True, seed=seed, warn_independent_sampling=False
                )
        case "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=spec.batch, constant_liar=True)


def distribution_of(values: tuple[Any, ...] | Range) -> BaseDistribution:
    """Optuna's distribution of a list of values, or of a range."""
    from optuna import distributions

    if not isinstance(values, Range):
        return distributions.CategoricalDistribution([param_of(values, one) for one in values])
    if values.is_whole:
        low, high = int(values.low), int(values.high)
        return distributions.IntDistribution(low, high, log=values.log)
    return distributions.FloatDistribution(values.low, values.high, log=values.log)


def param_of(values: tuple[Any, ...] | Range, value: Any) -> Any:
    """A value as Optuna stores it: a list or a mapping is text there."""
    plain = isinstance(values, Range) or value is None or isinstance(value, str | int | float)
    return value if plain else json.dumps(value, sort_keys=True)


def value_of_param(values: tuple[Any, ...] | Range, param: Any) -> Any:
    """The value that a parameter of Optuna's stands for."""
    if isinstance(values, Range):
        return values.fitted(param)
    return next(one for one in values if param_of(values, one) == param)


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)


def keep_quiet() -> None:
    """Lets Optuna say nothing of its studies: what is drawn is told in the plan."""
    logging.getLogger("optuna").setLevel(logging.ERROR)
