"""Which scores may stand in one column: those that were measured in exactly the same way.

A column is filled by one `Setting` (benchmark, protocol, metric, shots, limit, task version,
lm-eval version, data, temperature). Where the scores of a grid hold several settings of a column,
there are several groups, and so several tables. A benchmark that is no column of the paper's tables
has a column of its own, in a group of such benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from harness.evaluation.protocols import LM_EVAL, PROTOCOLS, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from harness.evaluation.benchmarks import Benchmark

COLUMNS = ("ARC-e", "ARC-c", "MMLU", "HellaSwag", "TruthfulQA")
"""The measured columns of the paper's tables."""

AVERAGES: Mapping[str, Mapping[str, float]] = {
    "ARC avg": {"ARC-e": 1 / 2, "ARC-c": 1 / 2},
    "Average": {
        "ARC-e": 1 / 8,
        "ARC-c": 1 / 8,
        "MMLU": 1 / 4,
        "HellaSwag": 1 / 4,
        "TruthfulQA": 1 / 4,
    },
}
"""Averages as weights of columns: ARC avg is the unweighted mean of Easy and Challenge, the Average
that of ARC avg, MMLU, HellaSwag and TruthfulQA (arXiv 2502.03029, Tables 1-2)."""


TABLE_COLUMNS = ("ARC-e", "ARC-c", "ARC avg", "MMLU", "HellaSwag", "TruthfulQA", "Average")
"""In the paper's order."""

PAPER_BENCHMARKS = {
    "ARC-e": "arc_easy",
    "ARC-c": "arc_challenge",
    "MMLU": "mmlu",
    "HellaSwag": "hellaswag",
    "TruthfulQA": "truthfulqa",
}
"""What the names of the benchmarks hold that the paper's columns are made of, and of their
analogues in the embedded world."""

OTHERS = "benchmarks"
"""Marks the groups of benchmarks that are no column of the paper's tables."""

NOTED = "‡"
"""Marks a column whose scores deviate from the benchmark's definition."""
LOWER_IS_BETTER = "↓"
"""Marks a column in which the lower score is the better one."""


def weights_of(column: str) -> Mapping[str, float]:
    """Weights of the measured columns in a column: those of an average, or itself alone."""
    return AVERAGES.get(column, {column: 1.0})


@dataclass(frozen=True)
class Setting:
    """How one column was measured."""

    benchmark: str
    protocol: str
    metric: str
    shots: int
    limit: int | None
    task_version: str
    lm_eval_version: str
    data: str
    """Identity of the items."""
    temperature: float | None = None
    """Sampling temperature of generated responses; None where log-likelihoods were scored."""


@dataclass(frozen=True, eq=False)
class Group:
    """The settings of one set of tables, by column; a group equals itself alone."""

    protocol: str
    settings: Mapping[str, Setting]
    rank: int
    """0, 1, ... among the groups of a protocol."""
    deviations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column: how scores deviate from the benchmark's definition."""
    columns: tuple[str, ...] = TABLE_COLUMNS
    """Columns of its tables in order, averages among them."""
    is_paper: bool = True
    """Whether its columns are those of the paper's tables."""
    lower_is_better: frozenset[str] = frozenset()
    """Columns in which the lower score is the better one."""

    @property
    def title(self) -> str:
        """One line that tells the group from the others: protocol, shots, limit, deviations."""
        parts = [protocol_of(self.protocol).title, _shots(self.settings), _limits(self.settings)]
        drawn = {one.temperature for one in self.settings.values() if one.temperature is not None}
        if drawn:
            parts.append(f"temperature {', '.join(f'{each:g}' for each in sorted(drawn))}")
        return " · ".join(parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """Deviations from the benchmarks' definitions and columns of another protocol."""
        lines = []
        for column, setting in self.settings.items():
            if setting.protocol != self.protocol:
                lines.append(f"{column}: measured with the {setting.protocol} protocol.")
            for deviation in self.deviations.get(column, ()):
                lines.append(f"{NOTED} {column}{deviation}")
            if self.is_paper and PAPER_BENCHMARKS[column] not in setting.benchmark:
                lines.append(f"{column}: the benchmark {setting.benchmark}, not the paper's.")
        lower = [column for column in self.columns if column in self.lower_is_better]
        if lower:
            lines.append(f"{LOWER_IS_BETTER} Lower is better: {', '.join(lower)}.")
        if any(setting.limit is not None for setting in self.settings.values()):
            lines.append(
                "Limit: the first so many items of each lm-eval task (of each subject in MMLU); "
                "such scores are not the benchmarks'."
            )
        return tuple(lines)

    def head(self, column: str) -> str:
        """Head of a column: its name, another protocol, a mark if it deviates."""
        parts = weights_of(column)
        setting = self.settings.get(column)
        text = column
        if setting is not None and setting.protocol != self.protocol:
            text += f" ({setting.protocol})"
        text += f" {LOWER_IS_BETTER}" if column in self.lower_is_better else ""
        return text + (NOTED if any(self.deviations.get(part) for part in parts) else "")

    def suffix(self) -> str:
        """What file names of this group end with: nothing for the paper's columns by lm-eval."""
        mark = protocol_of(self.protocol).mark
        marks = [OTHERS] * (not self.is_paper) + [mark] * bool(mark)
        marks += [str(self.rank + 1)] if self.rank else []
        return "".join(f"-{mark}" for mark in marks)


def protocol_of(name: str) -> Protocol:
    """The protocol of a name; one that is not known here is told by its name alone."""
    return PROTOCOLS.get(name) or Protocol(name, f"{name} protocol", LM_EVAL.scorer, mark=name)


def _columns_by(settings: Mapping[str, Setting], name: str) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for column, setting in settings.items():
        found.setdefault(getattr(setting, name), []).append(column)
    return found


def _shots(settings: Mapping[str, Setting]) -> str:
    by_shots = _columns_by(settings, "shots")
    common = max(by_shots, key=lambda shots: len(by_shots[shots]))
    others = [f"{', '.join(names)} {n}-shot" for n, names in by_shots.items() if n != common]
    return ", ".join([f"{common}-shot", *others])


def _limits(settings: Mapping[str, Setting]) -> str:
    by_limit = _columns_by(settings, "limit")
    sizes = {n: "all items" if n is None else f"limit {n}" for n in by_limit}
    if len(by_limit) == 1:
        return next(iter(sizes.values()))
    return ", ".join(f"{' '.join(names)} {sizes[limit]}" for limit, names in by_limit.items())


def find_groups(
    scores: pd.DataFrame, benchmarks: Mapping[str, Benchmark]
) -> tuple[tuple[Group, ...], dict[Setting, pd.DataFrame]]:
    """Groups, and the rows of each setting (at most one row per cell).

    The paper's columns come first, then those of the other benchmarks. Within a protocol the
    settings of a column are ranked: without a limit first, then larger limits, then more cells.
    The group of rank r takes the r-th of each column; a column with one setting stands in all of
    them.
    """
    ranked: dict[tuple[str, str], list[Setting]] = {}
    rows: dict[Setting, pd.DataFrame] = {}
    for setting, column, chosen in _settings(scores, benchmarks):
        ranked.setdefault((setting.protocol, column), []).append(setting)
        rows[setting] = chosen
    for found in ranked.values():
        found.sort(key=lambda setting: _order(setting, len(rows[setting])))
    others = tuple(dict.fromkeys(column for _, column in ranked if column not in COLUMNS))
    groups = []
    for columns in (COLUMNS, others):
        for protocol in sorted({name for name, column in ranked if column in columns}):
            depth = max(len(ranked.get((protocol, column), ())) for column in columns)
            groups += [_group(protocol, rank, columns, ranked, rows) for rank in range(depth)]
    lower = {name for name, known in benchmarks.items() if not known.higher_is_better}
    return tuple(_directed(group, lower) for group in groups), rows


def _directed(group: Group, lower: set[str]) -> Group:
    """The group, told which of its benchmarks are the better the lower they are."""
    found = {column for column, setting in group.settings.items() if setting.benchmark in lower}
    return replace(group, lower_is_better=frozenset(found)) if found else group


def _group(
    protocol: str,
    rank: int,
    columns: tuple[str, ...],
    by_column: Mapping[tuple[str, str], list[Setting]],
    rows: Mapping[Setting, pd.DataFrame],
) -> Group:
    settings = {}
    for column in columns:
        ranked = by_column.get((protocol, column), [])
        if not ranked:
            lender = protocol_of(protocol).borrows.get(column)
            ranked = by_column.get((lender, column), [])[:1] if lender else []
        place = 0 if len(ranked) == 1 else rank
        if place < len(ranked):
            settings[column] = ranked[place]
    found = {column: _deviations(rows[setting]) for column, setting in settings.items()}
    deviations = {column: texts for column, texts in found.items() if texts}
    if columns is COLUMNS:
        return Group(protocol, settings, rank, deviations)
    return Group(protocol, settings, rank, deviations, tuple(settings), is_paper=False)


def _deviations(frame: pd.DataFrame) -> tuple[str, ...]:
    """Scores' notes, each with the models that it concerns unless it does all."""
    models = list(dict.fromkeys(frame["model"]))
    noted: dict[str, list[str]] = {}
    for model, note in zip(frame["model"], frame["note"], strict=True):
        if not is_missing(note) and model not in noted.setdefault(str(note), []):
            noted[str(note)].append(model)
    return tuple(
        ("" if concerned == models else f" ({', '.join(concerned)})") + f": {note.rstrip('.')}."
        for note, concerned in noted.items()
    )


def _order(setting: Setting, num_cells: int) -> tuple[Any, ...]:
    limit = math.inf if setting.limit is None else setting.limit
    return (-limit, -num_cells, *(str(getattr(setting, entry.name)) for entry in fields(setting)))


def _settings(
    scores: pd.DataFrame, benchmarks: Mapping[str, Benchmark]
) -> Iterator[tuple[Setting, str, pd.DataFrame]]:
    """Each setting of a benchmark, its column, and its rows."""
    whole = scores[is_aggregate(scores)]
    present = set(whole["benchmark"])
    order = [name for name in benchmarks if name in present]
    columns: dict[str, str] = {}
    for name in dict.fromkeys([*order, *whole["benchmark"]]):
        known = benchmarks.get(name)
        mine = _of_one_metric(whole[whole["benchmark"] == name], known)
        settings = [_setting_of(row) for row in mine.to_dict("records")]
        for setting in dict.fromkeys(settings):
            mask = [each == setting for each in settings]
            chosen = mine[mask].drop_duplicates("cell_id", keep="last")
            yield setting, _column_of(name, known, columns), chosen


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


def _column_of(name: str, benchmark: Benchmark | None, columns: dict[str, str]) -> str:
    """The column that a benchmark fills: the paper's, or one of its own, which no other fills.

    `columns` holds the names of such columns by benchmark, and is added to.
    """
    if benchmark is not None and benchmark.column in COLUMNS:
        return str(benchmark.column)
    if name not in columns:
        column = name if benchmark is None else benchmark.column or benchmark.title
        if column in columns.values() or column in TABLE_COLUMNS:
            column = f"{column} ({name})"
        columns[name] = column
    return columns[name]


def is_aggregate(scores: pd.DataFrame) -> pd.Series:
    """Which rows are a whole benchmark's score, not one of its subjects'."""
    num_tasks = scores.groupby(["cell_id", "key", "benchmark"])["task"].transform("nunique")
    return (scores["task"] == scores["benchmark"]) | (num_tasks == 1)


def _setting_of(row: Mapping[str, Any]) -> Setting:
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
    )


def _items_of(row: Mapping[str, Any]) -> str:
    """The identity of a score's items: their content, or what an older record has of it."""
    known = (row.get(name) for name in ("content_sha256", "data_sha256"))
    return next((str(one) for one in known if not is_missing(one)), str(row["data_source"]))


def is_missing(value: Any) -> bool:
    """Whether a frame's value is None, NaN or NA."""
    import pandas as pd

    return value is None or bool(pd.isna(value))
