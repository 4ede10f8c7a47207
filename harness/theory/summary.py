"""The results of a study: errors and slopes beside the expected exponents, and their file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.errors import StorageError
from harness.theory.identity import Identity
from harness.theory.losses import TITLES
from harness.theory.prediction import Expectation, expectations, predict_errors
from harness.theory.scenarios import Scenario
from harness.theory.slopes import FEWEST_OBSERVATIONS, Slope, fit_slope, verdict
from harness.theory.study import Errors

STUDY_FILE = "theory.json"
LATE = 10_000
"""From here on the second slope of a row is fitted."""
VERSION = 1
"""Version of the file's format."""


@dataclass(frozen=True)
class Point:
    """A quantity of a scenario at one n."""

    n: int
    mean: float
    stderr: float
    """Standard error of the mean over repetitions."""
    repetitions: int
    """With a number: an over-fit has none where it lacks the cell in question."""


@dataclass(frozen=True)
class Row:
    """A quantity of a scenario over all n."""

    scenario: Scenario
    quantity: str
    """A key of `losses.TITLES`."""
    points: tuple[Point, ...]
    slope: Slope | None
    late_slope: Slope | None
    """From n = LATE on."""
    predicted: float | None
    """The slope over the same n that the Cramér-Rao bound gives; None for over-fits."""
    expected: Expectation | None
    """None where nothing is expected; such a row is in the files only."""

    @property
    def title(self) -> str:
        """The quantity, as printed."""
        return TITLES[self.quantity]

    @property
    def verdict(self) -> str:
        """Where the interval lies from the expected exponent; a dash where there is none."""
        return verdict(self.slope, self.expected.exponent) if self.expected else "–"


@dataclass(frozen=True)
class Effort:
    """How well the fits of a scenario converged."""

    scenario: Scenario
    converged: float
    """Share of the fits that converged, 0..1."""
    starts_at_best: float
    """Share of the starts that ended within 0.5 of the lowest chi^2, 0..1."""
    empty_cells: int
    """Cells without an atom from n = 1000 on, over all repetitions."""


@dataclass(frozen=True)
class Study:
    """All that a report of the simulation shows."""

    size: str
    seed: int
    sizes: tuple[int, ...]
    """All n."""
    repetitions: int
    """The most that a scenario has."""
    rows: tuple[Row, ...]
    efforts: tuple[Effort, ...]
    identities: tuple[Identity, ...] = ()
    """Attention as a mixture of experts; empty where it was not computed."""

    def find(self, **properties: Any) -> list[Row]:
        """Rows with a slope whose quantity and fields of the scenario are these."""
        sloped = [row for row in self.rows if row.slope is not None]
        fields = [vars(row.scenario) | {"quantity": row.quantity} for row in sloped]
        wanted = properties.items()
        return [row for row, own in zip(sloped, fields, strict=True) if wanted <= own.items()]

    def to_json(self) -> str:
        """The text of the study's file."""
        return json.dumps({"version": VERSION} | asdict(self), indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str, *, place: str) -> Study:
        """The study that a file's text holds.

        Raises:
            StorageError: it holds none, or one of another version; `place` is named.
        """
        from pydantic import TypeAdapter

        try:
            raw = json.loads(text)
            if raw["version"] != VERSION:
                raise ValueError(f"version {raw['version']}")
            return TypeAdapter(Study).validate_python(raw)
        except (ValueError, KeyError, TypeError) as fault:
            raise StorageError(
                f"{place}: not a study of this version; run `zbench theory` again"
            ) from fault


def summarise(found: Sequence[Errors], *, size: str, seed: int) -> Study:
    """The study of what was measured."""
    groups: dict[Scenario, list[Errors]] = {}
    for errors in found:
        groups.setdefault(errors.scenario, []).append(errors)
    rows = [row for scenario, group in groups.items() for row in _rows(scenario, group, seed)]
    return Study(
        size=size,
        seed=seed,
        sizes=tuple(sorted({errors.n for errors in found})),
        repetitions=max(len(errors.chi2) for errors in found),
        rows=tuple(rows),
        efforts=tuple(_effort(scenario, group) for scenario, group in groups.items()),
    )


def _rows(scenario: Scenario, group: Sequence[Errors], seed: int) -> list[Row]:
    expected = expectations(scenario)
    sizes = [errors.n for errors in group]
    predicted = _predicted(scenario, sizes, seed)
    rows = []
    for quantity in (name for name in TITLES if name in group[0].losses):
        values = [errors.losses[quantity] for errors in group]
        known = [each[~np.isnan(each)] for each in values]
        random = _generator(seed, scenario.name, quantity)
        row = Row(
            scenario=scenario,
            quantity=quantity,
            points=tuple(_point(n, e) for n, e in zip(sizes, known, strict=True) if len(e)),
            slope=fit_slope(sizes, values, random),
            late_slope=fit_slope(sizes, values, random, fewest=LATE),
            predicted=predicted.get(quantity),
            expected=expected.get(quantity),
        )
        if row.points:
            rows.append(row)
    return rows


def _predicted(scenario: Scenario, sizes: Sequence[int], seed: int) -> dict[str, float]:
    """Slopes that the Cramér-Rao bound gives; none for fixed truths and over-fits."""
    if not scenario.is_sequence:
        return {}
    used = [n for n in sizes if n >= FEWEST_OBSERVATIONS]
    draws = [
        predict_errors(scenario, n, _generator(seed, scenario.name, f"prediction {n}"))
        for n in used
    ]
    means = {name: [each[name].mean() for each in draws] for name in draws[0]}
    log_n = np.log(used)
    return {name: float(np.polyfit(log_n, np.log(m), 1)[0]) for name, m in means.items()}


def _point(n: int, errors: np.ndarray) -> Point:
    spread = float(errors.std(ddof=1) / np.sqrt(len(errors))) if len(errors) > 1 else 0.0
    return Point(n, float(errors.mean()), spread, len(errors))


def _effort(scenario: Scenario, group: Sequence[Errors]) -> Effort:
    late = [errors.losses for errors in group if errors.n >= FEWEST_OBSERVATIONS]
    return Effort(
        scenario=scenario,
        converged=float(np.concatenate([errors.converged for errors in group]).mean()),
        starts_at_best=float(np.concatenate([e.starts_at_best for e in group]).mean()),
        empty_cells=sum(int(losses["empty"].sum()) for losses in late if "empty" in losses),
    )


def _generator(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])
