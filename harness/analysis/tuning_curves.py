"""What the trials of a tuning show: the response to a setting, and choices at an edge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from harness.grid.method_settings import settings_text
from harness.grid.tuning import Range, Values

if TYPE_CHECKING:
    from harness.analysis.tuning import Tuning
    from harness.grid.tuned_methods import Trial

RATES = ("learning_rate", "base_learning_rate")
"""What a response is drawn against, where it is tuned."""

NEAR_END = 0.05
"""Share of a range, on a log scale where it is drawn so, that counts as its end."""

LOG_RATIO = 5.0
"""Positive numbers that span this factor are told apart on a log scale."""


@dataclass(frozen=True)
class Edge:
    """A chosen setting at the edge of what was tried: the optimum may lie beyond."""

    setting: str
    value: float
    is_highest: bool
    span: tuple[float, float]
    """The lowest and highest that could be drawn."""
    is_range: bool
    """Whether it is a range; else a list of values."""
    beyond: float | None
    """A value to go on to; None where there is none (below 0)."""


@dataclass(frozen=True)
class Response:
    """The trials of a method over one setting."""

    tuning: Tuning
    setting: str
    """What the horizontal axis tells."""
    is_numeric: bool
    is_log: bool
    places: Mapping[str, float]
    """Place of each value on the axis, by its text: the number itself, or 0, 1, ... of what is no
    number."""
    lines: Mapping[str, Sequence[Trial]]
    """Trials by the other tuned settings, in words; by the empty text where there are none."""

    def place(self, settings: Mapping[str, Any]) -> float | None:
        """Where such settings stand on the axis; None where they do not."""
        value = settings.get(self.setting)
        if is_number(value) and self.is_numeric:
            return float(value)
        return self.places.get(repr(value))


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a setting's value is a number: a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def tuned_settings(tuning: Tuning) -> list[str]:
    """Names of the settings that differ between the trials, the learning rate first."""
    names = dict.fromkeys(name for trial in tuning.trials for name in trial.settings)
    varied = [
        name
        for name in names
        if len({repr(trial.settings.get(name)) for trial in tuning.trials}) > 1
    ]
    return sorted(varied, key=lambda name: _plain(name) not in RATES)


def _plain(name: str) -> str:
    return name.rpartition(".")[2]


def response(tuning: Tuning) -> Response | None:
    """The trials over the learning rate, or else over the number with the most values.

    None where no setting differs between the trials.
    """
    varied = tuned_settings(tuning)
    if not varied:
        return None
    values = {name: [trial.settings.get(name) for trial in tuning.trials] for name in varied}
    numbers = [name for name in varied if all(map(is_number, values[name]))]
    if numbers and _plain(numbers[0]) in RATES:
        setting = numbers[0]
    else:
        setting = max(numbers or varied, key=lambda name: len(set(map(repr, values[name]))))
    shown = {repr(value): value for value in values[setting]}
    if setting in numbers:
        places = {text: float(value) for text, value in shown.items() if is_number(value)}
    else:
        places = {text: float(place) for place, text in enumerate(sorted(shown))}
    others = [name for name in varied if name != setting]
    lines: dict[str, list[Trial]] = {}
    for trial in sorted(tuning.trials, key=lambda one: places[repr(one.settings.get(setting))]):
        lines.setdefault(settings_text(trial.settings, others), []).append(trial)
    is_log = setting in numbers and _is_log(list(places.values()))
    return Response(tuning, setting, setting in numbers, is_log, places, lines)


def _is_log(numbers: Sequence[float]) -> bool:
    return min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_RATIO


def edges(tuning: Tuning) -> list[Edge]:
    """The numbers of the chosen settings that lie at an end of their list or range.

    Of a list its smallest and largest value are its ends, of a range the first and last NEAR_END of
    it. Below 0 nothing lies: it is no end. Gathered rows may differ in several settings at a time:
    one of two values is no end of a list there.
    """
    if tuning.choice is None:
        return []
    found = []
    for name, values in tuning.space.items():
        value = tuning.choice.settings.get(name)
        edge = _edge(name, float(value), values) if is_number(value) else None
        if tuning.gathered and not isinstance(values, Range) and len(values) < 3:
            continue
        if edge is not None and (edge.is_highest or edge.value > 0):
            found.append(edge)
    return found


def _edge(name: str, value: float, values: Values) -> Edge | None:
    if isinstance(values, Range):
        place = math.log if values.log else float
        low, high = place(values.low), place(values.high)
        share = (place(value) - low) / (high - low)
        if NEAR_END < share < 1 - NEAR_END:
            return None
        is_highest = share > 0.5
        end = values.high if is_highest else values.low
        beyond = _step(end, values.low if is_highest else values.high, values.log)
        return Edge(name, value, is_highest, (values.low, values.high), True, beyond)
    listed = sorted({float(one) for one in values if is_number(one)})
    if len(listed) < 2 or value not in (listed[0], listed[-1]):
        return None
    is_highest = value == listed[-1]
    next_to_it = listed[-2] if is_highest else listed[1]
    beyond = _step(value, next_to_it, next_to_it > 0 and value > 0)
    return Edge(name, value, is_highest, (listed[0], listed[-1]), False, beyond)


def _step(end: float, inner: float, by_factor: bool) -> float | None:
    """One step further than an end, as large as the last one; of a range as long as it is, but of
    no more than a factor of 10."""
    if by_factor:
        factor = min(10.0, max(0.1, end / inner))
        beyond = end * factor
    else:
        beyond = end + (end - inner)
    return float(f"{beyond:.2g}") if beyond > 0 else None
