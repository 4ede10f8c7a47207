"""Scores of some of a benchmark's items, made of the item records of one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from harness.analysis.columns import Group, Setting
from harness.grid.column_sets import Where, where_text

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-6
"""Between a score and the mean of the records that it was made of."""
Known = tuple[int, int, int]
"""Items that are meant, items whose records tell whether they are, and all items."""
ItemsOf = Callable[[str, str], "pd.DataFrame | None"]


def choose(frame: pd.DataFrame, where: Where) -> pd.DataFrame:
    """The items that are meant; none of those whose records do not tell."""
    for name, values in where:
        if name not in frame:
            return frame.iloc[:0]
        frame = frame[_is_one_of(frame[name], values)]
    return frame


def count_known(frame: pd.DataFrame, where: Where) -> Known:
    """How many items are meant, how many records tell, and how many there are."""
    import numpy as np

    told = np.ones(len(frame), dtype=bool)
    for name, _ in where:
        told &= frame[name].notna().to_numpy() if name in frame else False
    return len(choose(frame, where)), int(told.sum()), len(frame)


def chance_of_some(frame: pd.DataFrame | None, where: Where) -> float | None:
    """Expected score of answers drawn among the options; None where their number is not told, or
    not of all items whether they are meant."""
    if frame is None or count_known(frame, where)[1] < len(frame):
        return None
    mine = choose(frame, where)
    if "num_options" in frame:
        options = mine["num_options"].astype("float64")
    elif "choices_loglikelihoods" in frame:
        options = mine["choices_loglikelihoods"].map(len).astype("float64")
    else:
        return None
    return float((1 / options).mean()) if len(options) and options.notna().all() else None


def _is_one_of(column: pd.Series, values: Sequence[object]) -> pd.Series:
    kinds = {(isinstance(one, bool), one) for one in values}
    return column.map(
        lambda value: (not _is_none(value)) and (_is_truth(value), value) in kinds
    ).astype(bool)


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")


def _is_none(value: object) -> bool:
    return value is None or value != value or type(value).__name__ == "NAType"


def scores_of_some(
    groups: Sequence[Group], rows: Mapping[Setting, pd.DataFrame], items: ItemsOf
) -> tuple[tuple[Group, ...], dict[Setting, pd.DataFrame]]:
    """The groups with what is not known of their columns, and the rows of each setting with the
    scores of its own items.

    A score is the mean over its items, its error their standard error. Where any record does not
    tell whether its item is meant, or the records do not give the whole score, it is NaN.
    """
    items = cache(items)  # a file is read once for all columns
    found: dict[Setting, pd.DataFrame] = dict(rows)
    unknown: dict[Setting, list[Known]] = {}
    for setting, frame in rows.items():
        if setting.where:
            found[setting], unknown[setting] = _of_setting(setting, frame, items)
    return tuple(_with_unscored(group, unknown) for group in groups), found


def _of_setting(
    setting: Setting, rows: pd.DataFrame, items: ItemsOf
) -> tuple[pd.DataFrame, list[Known]]:
    scored, unknown = [], []
    for record in rows.to_dict("records"):
        frame = items(str(record["cell_id"]), setting.benchmark)
        value = stderr = math.nan
        number = None
        if _gives_the_score(frame, setting, record["n"], record["value"]):
            assert frame is not None
            known = count_known(frame, setting.where)
            number = known[0]
            if known[1] < known[2] or not number:
                unknown.append(known)
            else:
                own = choose(frame, setting.where)[setting.metric].astype(float)
                value = float(own.mean())
                stderr = float(own.std(ddof=1) / math.sqrt(number)) if number > 1 else math.nan
        else:
            unknown.append((0, 0, 0))
        scored.append((value, stderr, number))
    values, errors, numbers = zip(*scored, strict=True) if scored else ((), (), ())
    own = rows.assign(value=list(values), stderr=list(errors), n=list(numbers))
    if "response_flags" in own:  # those of all items
        own["response_flags"] = None
    return own, list(dict.fromkeys(unknown))


def _gives_the_score(
    frame: pd.DataFrame | None, setting: Setting, number: object, value: float
) -> bool:
    return (
        frame is not None
        and setting.metric in frame
        and len(frame) == number
        and abs(float(frame[setting.metric].mean()) - value) < TOLERANCE
    )


def _with_unscored(group: Group, unknown: Mapping[Setting, Sequence[Known]]) -> Group:
    """A group that knows why its columns have no score."""
    reasons = {
        column: tuple(_reason(setting, known) for known in unknown[setting])
        for column, setting in group.settings.items()
        if unknown.get(setting)
    }
    return replace(group, unscored=reasons) if reasons else group


def _reason(setting: Setting, known: Known) -> str:
    names = " and ".join(name for name, _ in setting.where)
    if not known[2]:
        return f"the records of single items of {setting.benchmark} are missing"
    if known[1] < known[2]:
        return f"{known[1]:,} of {known[2]:,} rows tell their {names}"
    return f"no item has {where_text(setting.where)}"
