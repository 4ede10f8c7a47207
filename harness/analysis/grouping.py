"""Divides scores into groups: in one column of a table all were measured in the same way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import Group, Setting, is_missing, records_of
from harness.analysis.layout import Column, Layout
from harness.evaluation.shown import NOT_SHOWN

if TYPE_CHECKING:
    import pandas as pd

    from harness.evaluation.benchmark import Benchmark


def find_groups(
    scores: pd.DataFrame, benchmarks: Mapping[str, Benchmark], layout: Layout
) -> tuple[tuple[Group, ...], dict[Setting, pd.DataFrame]]:
    """Groups, and the rows of each setting (at most one row per cell).

    `scores` are rows of whole benchmarks. The columns of the grid's tables come first, then those
    of the other benchmarks. Within a protocol the settings of a column are ranked: without a limit
    first, then larger limits, then more cells. The group of rank r takes the r-th of each column; a
    column with one setting stands in all of them.
    """
    rows: dict[Setting, pd.DataFrame] = {}
    groups: list[Group] = []
    for columns, is_rest in ((layout.columns, False), (layout.rest, True)):
        ranked: dict[tuple[str, str], list[Setting]] = {}
        for column in columns.values():
            for setting, chosen in _settings(scores, benchmarks, column):
                ranked.setdefault((setting.protocol, column.title), []).append(setting)
                rows[setting] = chosen
        for found in ranked.values():
            found.sort(key=lambda setting: _order(setting, len(rows[setting])))
        whole = layout.is_stated and not is_rest
        for protocol in sorted({name for name, _ in ranked}):
            depth = max(len(found) for (name, _), found in ranked.items() if name == protocol)
            for rank in range(depth):
                settings = _ranked(protocol, rank, columns, ranked, lends=whole)
                group = _group(protocol, rank, columns, settings, rows, whole=whole)
                group = replace(group, is_rest=is_rest)
                # Of columns that each have one protocol alone, all stand in one table.
                if not any(group.settings == other.settings for other in groups if whole):
                    groups.append(group)
    return tuple(groups), rows


def by_metric(
    scores: pd.DataFrame, benchmarks: Mapping[str, Benchmark], setting: Setting, metric: str
) -> tuple[Setting, pd.DataFrame] | None:
    """The setting, and its rows, of the same evaluations by another of their metrics."""
    column = Column("", (setting.benchmark,), metric, setting.where)
    told = ("metric", "unit", "higher_is_better")
    for found, rows in _settings(scores, benchmarks, column):
        if replace(found, **{name: getattr(setting, name) for name in told}) == setting:
            return found, rows
    return None


def _ranked(
    protocol: str,
    rank: int,
    columns: Mapping[str, Column],
    ranked: Mapping[tuple[str, str], list[Setting]],
    *,
    lends: bool,
) -> dict[str, Setting]:
    """The setting of each column that has one of this rank; a column of one benchmark lends it."""
    settings = {}
    for title, column in columns.items():
        found = ranked.get((protocol, title), [])
        if not found and lends and len(column.names) == 1:
            found = next((all_ for (_, name), all_ in ranked.items() if name == title), [])[:1]
        place = 0 if len(found) == 1 else rank
        if place < len(found):
            settings[title] = found[place]
    return settings


def _group(
    protocol: str,
    rank: int,
    columns: Mapping[str, Column],
    settings: Mapping[str, Setting],
    rows: Mapping[Setting, pd.DataFrame],
    *,
    whole: bool,
) -> Group:
    """A group; `whole`: with the columns that were not measured."""
    noted = {column: _deviations(rows[setting]) for column, setting in settings.items()}
    told = {c: _deviations(rows[s], of_pictures=True) for c, s in settings.items()}
    averages = {title: column for title, column in columns.items() if column.weights}
    return Group(
        protocol=protocol,
        settings=settings,
        rank=rank,
        deviations={column: texts for column, texts in noted.items() if texts},
        remarks={column: texts for column, texts in told.items() if texts},
        columns=tuple(
            title for title, one in columns.items() if one.is_shown and (whole or title in settings)
        ),
        weights={title: column.weights for title, column in averages.items()},
        meanings={title: column.meaning for title, column in averages.items()},
    )


def _deviations(frame: pd.DataFrame, *, of_pictures: bool = False) -> tuple[str, ...]:
    """Scores' notes, each with the models that it concerns unless it does all, and with the methods
    unless it does all of theirs; `of_pictures`: those about methods that take no pictures, which
    are no deviations.
    """
    rows = list(zip(frame["model"], frame["method"], strict=True))
    noted: dict[str, list[tuple[str, str]]] = {}
    for row, note in zip(rows, frame["note"], strict=True):
        parts = [] if is_missing(note) else str(note).split("; ")
        meant = [part for part in parts if part.endswith(NOT_SHOWN) == of_pictures]
        if meant:
            noted.setdefault("; ".join(meant), []).append(row)
    return tuple(
        f"{_concerned(concerned, rows)}: {note.rstrip('.')}." for note, concerned in noted.items()
    )


def _concerned(some: Sequence[tuple[str, str]], rows: Sequence[tuple[str, str]]) -> str:
    """Which models and methods of all rows some are, in parentheses; nothing where all are."""
    models = list(dict.fromkeys(model for model, _ in some))
    found = [] if models == list(dict.fromkeys(model for model, _ in rows)) else models
    if {*some} != {row for row in rows if row[0] in models}:
        found += dict.fromkeys(method for _, method in some)
    return f" ({', '.join(found)})" if found else ""


def _order(setting: Setting, num_cells: int) -> tuple[Any, ...]:
    limit = math.inf if setting.limit is None else setting.limit
    return (-limit, -num_cells, *(str(getattr(setting, entry.name)) for entry in fields(setting)))


def _settings(
    whole: pd.DataFrame, benchmarks: Mapping[str, Benchmark], column: Column
) -> Iterator[tuple[Setting, pd.DataFrame]]:
    """Each setting of the benchmarks of a column, and its rows."""
    for name in column.names:
        known = benchmarks.get(name)
        mine = whole[whole["benchmark"] == name]
        if column.metric is not None:
            mine = mine[mine["metric"] == column.metric]
        else:
            mine = _of_one_metric(mine, known)
        settings = [
            replace(_setting_of(row, known), where=column.where) for row in records_of(mine)
        ]
        for setting in dict.fromkeys(settings):
            mask = [each == setting for each in settings]
            yield setting, mine[mask].drop_duplicates("cell_id", keep="last")


def _of_one_metric(scores: pd.DataFrame, benchmark: Benchmark | None) -> pd.DataFrame:
    """The scores of a benchmark by its primary metric; by another where that was not measured."""
    wanted = None if benchmark is None else benchmark.primary_metric
    first = (
        scores.assign(_is_other=scores["metric"] != wanted)
        .sort_values("_is_other", kind="stable")
        .drop_duplicates(["cell_id", "key"])[["cell_id", "key", "metric"]]
    )
    chosen = set(first.itertuples(index=False, name=None))
    mine = scores[["cell_id", "key", "metric"]].itertuples(index=False, name=None)
    return scores[[entry in chosen for entry in mine]]


def _setting_of(row: Mapping[str, Any], known: Benchmark | None) -> Setting:
    direction = row.get("higher_is_better", True)
    lower = not is_missing(direction) and not direction
    if known is not None and known.primary_metric == row["metric"]:
        lower = lower or not known.higher_is_better
    return Setting(
        benchmark=str(row["benchmark"]),
        protocol=str(row["protocol"]),
        metric=str(row["metric"]),
        shots=int(row["shots"]),
        limit=None if is_missing(row["limit"]) else int(row["limit"]),
        task_version=str(row["task_version"]),
        lm_eval_version=str(row["lm_eval_version"]),
        data=_items_of(row),
        temperature=None if is_missing(row.get("temperature")) else float(row["temperature"]),
        unit=None if is_missing(row.get("unit")) else str(row["unit"]),
        higher_is_better=not lower,
        form=None if is_missing(row.get("form")) else str(row["form"]),
        definition=None if is_missing(row.get("definition")) else str(row["definition"]),
        is_control=known is not None and known.is_control,
    )


def _items_of(row: Mapping[str, Any]) -> str:
    """The identity of a score's items: their content, or what an older record has of it."""
    known = (row.get(name) for name in ("content_sha256", "data_sha256"))
    return next((str(one) for one in known if not is_missing(one)), str(row["data_source"]))
