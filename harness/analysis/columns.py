"""Which scores may stand in one column: those that were measured in exactly the same way.

A column is filled by one `Setting` (benchmark, protocol, metric, shots, limit, task version,
lm-eval version, data, temperature). Where the scores of a grid hold several settings of a column,
there are several groups, and so several tables; `grouping` finds them. Which columns there are is
said in `layout`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.analysis.layout import OTHERS
from harness.evaluation.protocols import LM_EVAL, PROTOCOLS, Protocol
from harness.grid.column_sets import Where
from harness.grid.seed_sd import SeedSd, SeedSds

if TYPE_CHECKING:
    import pandas as pd

NOTED = "‡"
"""Marks a column whose scores deviate from the benchmark's definition."""
LOWER_IS_BETTER = "↓"
"""Marks a column in which the lower score is the better one."""


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
    unit: str | None = None
    """What the scores count where they are no shares."""
    higher_is_better: bool = True
    form: str | None = None
    """How the prompts differ from plain ones, such as `chat template`."""
    definition: str | None = None
    """What defines a task of the user's own."""
    where: Where = ()
    """Which of the items count; all where empty."""
    is_control: bool = False
    """Whether its benchmark is a control: see `harness.evaluation.benchmark.Benchmark`."""


@dataclass(frozen=True, eq=False)
class Group:
    """The settings of one set of tables, by column; a group equals itself alone."""

    protocol: str
    settings: Mapping[str, Setting]
    rank: int
    """0, 1, ... among the groups of a protocol."""
    deviations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column: how scores deviate from the benchmark's definition."""
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column: what must be known of its scores besides, and is no deviation."""
    columns: tuple[str, ...] = ()
    """Columns of its tables in order, averages among them."""
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of the averages: weights of the measured columns."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """Of the averages: what they are the means of, in words."""
    is_rest: bool = False
    """Whether its columns are those of the benchmarks in no table of the grid."""
    unscored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column of some of the items: why it has no score, in words."""

    def weights_of(self, column: str) -> Mapping[str, float]:
        """Weights of the measured columns in a column: those of an average, or itself alone."""
        return self.weights.get(column, {column: 1.0})

    def is_average(self, column: str) -> bool:
        """Whether a column is an average."""
        return column in self.weights

    def parts(self, column: str) -> tuple[Setting, ...] | None:
        """How the parts of a column were measured; None where one is missing, or is no share and
        so in no average."""
        found = [self.settings.get(part) for part in self.weights_of(column)]
        known = tuple(one for one in found if one is not None)
        mixed = self.is_average(column) and any(one.unit is not None for one in known)
        return None if mixed or len(known) < len(found) else known

    def unit(self, column: str) -> str | None:
        """What a column counts; None of shares, and of averages."""
        setting = self.settings.get(column)
        return None if setting is None or self.is_average(column) else setting.unit

    def is_lower_better(self, column: str) -> bool:
        """Whether the lower score of a column is the better one."""
        known = [self.settings.get(part) for part in self.weights_of(column)]
        return all(one is not None and not one.higher_is_better for one in known)

    @property
    def lower_is_better(self) -> frozenset[str]:
        """The columns, shown or not, of which the lower score is the better one."""
        return frozenset(c for c in (*self.settings, *self.weights) if self.is_lower_better(c))

    @property
    def averages(self) -> tuple[str, ...]:
        """Those of its columns that are averages of what was measured."""
        return tuple(c for c in self.columns if self.is_average(c) and self.parts(c))

    def showing(self, columns: Sequence[str]) -> Group:
        """The group with some of its columns alone, for titles and notes."""
        if tuple(columns) == self.columns:
            return self
        parts = {part for column in columns for part in self.weights_of(column)}
        settings = {name: one for name, one in self.settings.items() if name in parts}
        return replace(self, columns=tuple(columns), settings=settings)

    def by_benchmark(self, *, shares_alone: bool = False, controls: bool = True) -> dict[str, str]:
        """The column that stands for each benchmark: the first of all its items, else of some.

        Args:
            shares_alone: only benchmarks of which the scores are shares.
            controls: controls too.
        """
        known = [
            (column, setting)
            for column in self.columns
            if (setting := self.settings.get(column)) is not None
            and not (shares_alone and setting.unit is not None)
            and (controls or not setting.is_control)
        ]
        whole = {setting.benchmark for _, setting in known if not setting.where}
        found: dict[str, str] = {}
        for column, setting in known:
            if not (setting.where and setting.benchmark in whole):
                found.setdefault(setting.benchmark, column)
        return found

    @property
    def title(self) -> str:
        """One line that tells the group from the others: protocol, shots, limit, deviations."""
        parts = [protocol_of(self.protocol).title, _shots(self.settings), _limits(self.settings)]
        drawn = {one.temperature for one in self.settings.values() if one.temperature is not None}
        if drawn:
            parts.append(f"temperature {', '.join(f'{each:g}' for each in sorted(drawn))}")
        parts += sorted({one.form for one in self.settings.values() if one.form is not None})
        return " · ".join(part for part in parts if part)

    @property
    def notes(self) -> tuple[str, ...]:
        """Deviations from the benchmarks' definitions and columns of another protocol."""
        lines, deviating, remarked = [], dict[str, list[str]](), dict[str, list[str]]()
        for column, setting in self.settings.items():
            if setting.protocol != self.protocol:
                lines.append(f"{column}: measured with the {setting.protocol} protocol.")
            for deviation in self.deviations.get(column, ()):
                deviating.setdefault(deviation, []).append(column)
            for remark in self.remarks.get(column, ()):
                remarked.setdefault(remark, []).append(column)
        lines += [f"{NOTED} {', '.join(columns)}{said}" for said, columns in deviating.items()]
        lines += [f"{', '.join(columns)}{said}" for said, columns in remarked.items()]
        unscored: dict[str, list[str]] = {}
        for column in self.columns:
            for why in self.unscored.get(column, ()):
                unscored.setdefault(why, []).append(column)
        lines += [f"{', '.join(columns)}: not made, as {why}." for why, columns in unscored.items()]
        lower = [column for column in self.columns if self.is_lower_better(column)]
        if lower:
            lines.append(f"{LOWER_IS_BETTER} Lower is better: {', '.join(lower)}.")
        counted = {c: self.unit(c) for c in self.columns if self.unit(c) is not None}
        if counted:
            named = ", ".join(f"{column} ({unit})" for column, unit in counted.items())
            lines.append(f"No shares, and so in no average, and printed as they are: {named}.")
        for column in self.columns:
            mixed = [part for part in self.weights_of(column) if self.unit(part) is not None]
            if self.is_average(column) and mixed:
                lines.append(f"{column}: not made, as {', '.join(mixed)} is no share.")
        if any(setting.limit is not None for setting in self.settings.values()):
            lines.append(
                "Limit: the first so many items of each lm-eval task (of each subject in MMLU); "
                "such scores are not the benchmarks'."
            )
        return tuple(lines)

    def head(self, column: str) -> str:
        """Head of a column: its name, another protocol, marks of its direction and deviations."""
        setting = self.settings.get(column)
        text = column
        if setting is not None and setting.protocol != self.protocol:
            text += f" ({setting.protocol})"
        text += f" {LOWER_IS_BETTER}" if self.is_lower_better(column) else ""
        marked = any(self.deviations.get(part) for part in self.weights_of(column))
        return text + (NOTED if marked else "")

    def suffix(self) -> str:
        """What file names of this group end with: nothing for the first of lm-eval's protocol."""
        mark = protocol_of(self.protocol).mark
        marks = [OTHERS] * self.is_rest + [mark] * bool(mark)
        marks += [str(self.rank + 1)] if self.rank else []
        return "".join(f"-{mark}" for mark in marks)


def stated_sd(stated: SeedSds, group: Group, column: str) -> SeedSd | None:
    """What a grid states of the spread of a column over seeds: by its title or its benchmark."""
    setting = group.settings.get(column)
    is_whole = setting is not None and not setting.where
    names = (column, setting.benchmark) if setting is not None and is_whole else (column,)
    return stated.of(*names, is_share=group.unit(column) is None)


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
    if not by_shots:
        return ""
    common = max(by_shots, key=lambda shots: len(by_shots[shots]))
    others = [f"{', '.join(names)} {n}-shot" for n, names in by_shots.items() if n != common]
    return ", ".join([f"{common}-shot", *others])


def _limits(settings: Mapping[str, Setting]) -> str:
    by_limit = _columns_by(settings, "limit")
    sizes = {n: "all items" if n is None else f"limit {n}" for n in by_limit}
    if len(by_limit) <= 1:
        return next(iter(sizes.values()), "")
    return ", ".join(f"{' '.join(names)} {sizes[limit]}" for limit, names in by_limit.items())


def is_aggregate(scores: pd.DataFrame) -> pd.Series:
    """Which rows are a whole benchmark's score, not one of its subjects'."""
    num_tasks = scores.groupby(["cell_id", "key", "benchmark"])["task"].transform("nunique")
    return (scores["task"] == scores["benchmark"]) | (num_tasks == 1)


def is_missing(value: Any) -> bool:
    """Whether a frame's value is None, NaN or NA."""
    import pandas as pd

    return value is None or bool(pd.isna(value))


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as `to_dict("records")` gives them, in a third of the time."""
    import numpy as np

    names, columns = list(frame.columns), []
    for _, column in frame.items():
        if column.dtype.kind in "biuf":
            columns.append(column.tolist())
        else:
            values = column.to_numpy(dtype=object)
            columns.append([v.item() if isinstance(v, np.generic) else v for v in values])
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
