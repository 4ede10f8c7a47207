"""The figures of tuning: the response to a setting, and what more trials would buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from harness.analysis.expected_best import expected_best
from harness.analysis.tuning import Tuning
from harness.analysis.tuning_curves import Response, response
from harness.grid.method_settings import value_text
from harness.grid.tuned_methods import Trial
from harness.report.figures import (
    GRID,
    INK,
    MORE_STYLES,
    STYLES,
    Drawing,
    Plot,
    Styles,
    apart,
    legend_name,
    place_name,
)
from harness.report.numbers import share_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 6
"""Lines of one panel: more combinations of the other settings are drawn as marks alone."""
MOST_TICKS = 8
SPREAD = 8.0
"""Values that span this factor are drawn on a log scale."""
LONGEST_TICK = 12
MOST_EVEN = 40
"""Trials that are told one by one; more are drawn smaller, and counted on a log scale."""


def tuning_drawings(tunings: Sequence[Tuning], styles: Styles) -> list[Drawing]:
    """Of each model, data set and share: the responses, and the expected best of n trials."""
    found: dict[object, list[Tuning]] = {}
    for one in tunings:
        found.setdefault((one.model, one.data, one.fraction, one.on), []).append(one)
    drawn = []
    known = {**STYLES, **styles}  # before a choice there may be trials alone
    missing = (one.method for one in tunings if one.method not in known)
    styles = {**known, **dict(zip(dict.fromkeys(missing), cycle(MORE_STYLES), strict=False))}
    for alike in found.values():
        drawn += [_responses(alike, styles), _budgets(alike, styles)]
    return [one for one in drawn if one is not None]


def _where(one: Tuning) -> str:
    data = f" on {one.data}" if one.data is not None else ""
    return f"{one.model}{data}, {share_text(one.fraction)} of the data"


def _direction(one: Tuning) -> str:
    return "lower is better" if one.lower_is_better else "higher is better"


def axis_name(one: Tuning) -> str:
    """What a validation score counts, for an axis."""
    name = one.on.replace("validation loss", "Validation loss")  # a benchmark's stays as it is
    return f"{name} ({one.unit or '%'})"


def _factor(one: Tuning) -> float:
    return 100.0 if one.unit is None else 1.0


def _values(trial: Trial, factor: float = 1.0) -> list[float]:
    """The values of its seeds, of a trial that counts."""
    if trial.value is None:
        return []
    return [factor * value for value in trial.values.values() if value is not None]


def _is_wide(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) > SPREAD


# -- responses ------------------------------------------------------------------------------------


def _responses(tunings: Sequence[Tuning], styles: Styles) -> Drawing | None:
    shown = [found for one in tunings if (found := response(one)) is not None]
    first = tunings[0]
    shown = [one for one in shown if any(trial.value is not None for trial in one.tuning.trials)]
    if not shown:
        return None
    texts = dict.fromkeys(text for one in shown for text in one.lines if text)
    looks = {text: MORE_STYLES[index % len(MORE_STYLES)] for index, text in enumerate(texts)}
    draw = partial(_draw_response, styles=styles, looks=looks)
    marks = "Small marks: single seeds; line: their mean." if _has_seeds(tunings) else ""
    return Drawing(
        name=f"tuning-response-{place_name(first.model, first.data)}",
        title=f"{_where(first)}: {first.on} of the trials",
        caption=(
            f"{_where(first)}: {first.on} of each trial ({_direction(first)}), each panel on a "
            f"scale of its own. {marks} Ring: the "
            "chosen settings; its value is the best of many and so better than it would be again. "
            "Dotted: the published recipe. At the edge, without a value: trials that failed or "
            f"were stopped early.{_unconnected(shown)}"
        ).replace("  ", " "),
        panels=tuple(Plot(one.tuning.method, partial(draw, found=one)) for one in shown),
    )


def _has_seeds(tunings: Sequence[Tuning]) -> bool:
    return any(len(trial.values) > 1 for one in tunings for trial in one.trials)


def _unconnected(shown: Sequence[Response]) -> str:
    names = [one.tuning.method for one in shown if len(one.lines) > MOST_LINES]
    if not names:
        return ""
    return f" Marks without a line ({', '.join(names)}): the other settings differ from one to one."


def _log_axis(axes: Axes) -> None:
    """A vertical log scale with plain numbers, which has some on less than a decade too."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _limits(values: Sequence[float]) -> tuple[float, float, bool]:
    """Ends of a vertical axis, and whether it is a log scale."""
    low, high = min(values), max(values)
    if _is_wide(values):
        room = (high / low) ** 0.12
        return low / room, high * room, True
    room = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room, False


def _draw_response(
    axes: Axes,
    *,
    found: Response,
    styles: Styles,
    looks: Mapping[str, tuple[str, str]],
) -> None:
    tuning = found.tuning
    own = styles[tuning.method]
    is_crowded = len(found.lines) > MOST_LINES
    for text, trials in found.lines.items():
        look = own if is_crowded or not text else looks[text]
        label = "" if is_crowded or not text else text
        _draw_line(axes, found, trials, look, label, connected=not is_crowded)
    if is_crowded or "" in found.lines:  # each panel in its method's colour: one entry for all
        axes.plot([], [], "o-", color=GRID, label="trials")
    _draw_marks(axes, found)
    factor = _factor(tuning)
    low, high, is_log = _limits([v for trial in tuning.trials for v in _values(trial, factor)])
    if is_log:
        _log_axis(axes)
    axes.set_ylim(low, high)
    _horizontal_axis(axes, found)
    axes.set_ylabel(axis_name(tuning))


def _draw_line(
    axes: Axes,
    found: Response,
    trials: Sequence[Trial],
    style: tuple[str, str],
    label: str,
    *,
    connected: bool,
) -> None:
    factor, (colour, marker) = _factor(found.tuning), style
    shown = [
        (place, values)
        for trial in trials
        if (place := found.place(trial.settings)) is not None and (values := _values(trial, factor))
    ]
    if not shown:
        return
    seeds = [(place, value) for place, values in shown for value in values if len(values) > 1]
    if seeds:
        axes.plot(*zip(*seeds, strict=True), marker, markersize=3, color=colour, alpha=0.55)
    means: dict[float, list[float]] = {}
    for place, values in shown:
        means.setdefault(place, []).append(sum(values) / len(values))
    points = [(place, value) for place, found_here in means.items() for value in found_here]
    is_line = connected and all(len(found_here) == 1 for found_here in means.values())
    size = 6.0 if len(points) <= MOST_EVEN else 3.5
    axes.plot(
        *zip(*points, strict=True), marker, linestyle="-" if is_line else "none", color=colour,
        markersize=size, linewidth=1.5, label=legend_name(label) or None,
        alpha=1.0 if is_line else 0.75,
    )  # fmt: skip


def _draw_marks(axes: Axes, found: Response) -> None:
    """The chosen trial, the published recipe, and the trials without a value."""
    tuning = found.tuning
    places = {trial.number: found.place(trial.settings) for trial in tuning.trials}
    for trial in tuning.trials:
        values, place = _values(trial, _factor(tuning)), places[trial.number]
        if trial.number == tuning.chosen and values and place is not None:
            look: dict[str, Any] = {"markersize": 13, "markerfacecolor": "none", "color": INK}
            axes.plot(place, sum(values) / len(values), "o", **look, label="chosen")
    published = found.place(tuning.published)
    if published is not None and (published > 0 or not found.is_log):
        dots: dict[str, Any] = {"color": INK, "linestyle": ":", "linewidth": 1.1}
        axes.axvline(published, label="published recipe", **dots)
    end = 0.965 if tuning.lower_is_better else 0.035  # the worse end
    for status, mark, label in (("failed", "x", "failed"), ("pruned", "|", "stopped early")):
        without = [one.number for one in tuning.trials if one.status == status]
        shown = [place for number in without if (place := places[number]) is not None]
        if shown:
            look = {"markersize": 7, "markeredgewidth": 1.6, "color": INK, "alpha": 0.7}
            look |= {"transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(shown, [end] * len(shown), mark, label=label, **look)


def _horizontal_axis(axes: Axes, found: Response) -> None:
    places = sorted(set(found.places.values()))
    named = {}
    for trial in found.tuning.trials:
        named[found.place(trial.settings)] = value_text(trial.settings.get(found.setting))
    if found.is_log:
        axes.set_xscale("log")
    if found.is_log and len(places) <= 3 * MOST_TICKS:
        places = [places[index] for index in apart(places, 0.13)]
    if len(places) <= MOST_TICKS:
        texts = [named[place] for place in places]
        short = [t if len(t) <= LONGEST_TICK else f"{t[: LONGEST_TICK - 1]}…" for t in texts]
        axes.set_xticks(places, short)
        axes.minorticks_off()
    if len(found.places) == 1 or not found.is_log:
        axes.margins(x=0.08)
    axes.set_xlabel(found.setting + " (log scale)" * found.is_log)


# -- the budget -----------------------------------------------------------------------------------


def _budgets(tunings: Sequence[Tuning], styles: Styles) -> Drawing | None:
    first = tunings[0]
    curves: dict[str, list[float]] = {}
    for one in tunings:
        tried = [trial for trial in one.trials if trial.status != "to do"]
        values = [trial.value for trial in tried]
        found = expected_best(values, lower_is_better=one.lower_is_better)
        if found:
            curves[one.method] = [_factor(one) * value for value in found]
    if max(map(len, curves.values()), default=0) < 2:
        return None
    return Drawing(
        name=f"tuning-budget-{place_name(first.model, first.data)}",
        title=f"{_where(first)}: expected best of n trials",
        caption=(
            f"{_where(first)}: mean of the best {first.on} over all choices of n of a method's "
            "trials (Dodge et al. 2019, the unbiased estimate of Tang et al. 2020). A line that "
            "still moves at its end says that more trials would pay. It speaks of the values that "
            "were chosen on, which are better than the same settings would give again; failed and "
            f"stopped trials are never the best.{_adaptive(tunings)}"
        ),
        panels=(Plot(f"Best {first.on} of n trials", partial(_draw_budgets, curves=curves,
                                                          styles=styles, tuning=first)),),
    )  # fmt: skip


def _adaptive(tunings: Sequence[Tuning]) -> str:
    """What the expectation means where the trials are no independent draws."""
    if not any(one.sampler == "tpe" for one in tunings):
        return ""
    return (
        " Of tpe, which learns from earlier trials, it describes n of its trials drawn at random, "
        "not a shorter search."
    )


def _draw_budgets(
    axes: Axes, *, curves: Mapping[str, Sequence[float]], styles: Styles, tuning: Tuning
) -> None:
    from matplotlib.ticker import MaxNLocator

    for method, values in curves.items():
        colour, marker = styles[method]
        look: dict[str, Any] = {"color": colour, "linewidth": 1.6, "label": legend_name(method)}
        if len(values) <= MOST_EVEN:
            look |= {"marker": marker, "markersize": 5}
        axes.plot(range(1, len(values) + 1), values, **look)
    if _is_wide([value for values in curves.values() for value in values]):
        _log_axis(axes)
    if max(map(len, curves.values())) > MOST_EVEN:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Number of trials")
    axes.set_ylabel(axis_name(tuning))
