"""What is simulated at each size of the study, and how many n, repetitions and iterations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import UsageError, did_you_mean
from harness.theory.scenarios import RATES, Scenario, drawn, fixed, sequences

SIZES = ("quick", "final", "full")


@dataclass(frozen=True)
class Plan:
    """One scenario, and how thoroughly it is simulated."""

    scenario: Scenario
    sizes: tuple[int, ...]
    """n, ascending."""
    repetitions: int
    iterations: int = 600
    """Of each start, at most."""

    @property
    def starts(self) -> int:
        """Starting points: an over-fit has many local minima, an exact fit had none in trials."""
        return 6 if self.scenario.extra_atoms else 3


def half_decades(first: float, last: float) -> tuple[int, ...]:
    """Returns n from 10^first to 10^last by half decades."""
    return tuple(round(10 ** (i / 2)) for i in range(round(2 * first), round(2 * last) + 1))


def make_suite(size: str) -> tuple[Plan, ...]:
    """Returns the plans of a size: `quick`, `final` or `full`.

    Raises:
        UsageError: another name.
    """
    if size not in SIZES:
        raise UsageError(f"theory: no suite is called '{size}'{did_you_mean(size, SIZES)}")
    return tuple({"quick": _quick, "final": _final, "full": _full}[size]())


def _quick() -> Iterator[Plan]:
    rates = (0.0, 0.25)
    for each in (*fixed((0, 1)), *sequences("copy", rates), *sequences("gate", rates)):
        yield Plan(each, half_decades(3, 5), 24, 300)


def _final() -> Iterator[Plan]:
    moving = (*sequences("copy", RATES), *sequences("gate", RATES), *sequences("merge", (0.125,)))
    for each in (*fixed((0, 1)), *moving):
        yield Plan(each, half_decades(2, 6), 40)


def _full() -> Iterator[Plan]:
    moving = (*sequences("copy", (*RATES, 0.375)), *sequences("gate", RATES))
    moving += tuple(sequences("merge", (0.125, 0.25)))
    for each in (*fixed((0, 1, 2), has_nonlinear_joint=True), *moving):
        yield Plan(each, half_decades(2, 6), 100, 1500)
    for each in drawn("random", 6):
        yield Plan(each, half_decades(3, 6), 24)
    for each in drawn("continuous", 1):
        yield Plan(each, half_decades(2.5, 4.5), 12, 200)
