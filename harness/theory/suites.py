"""What is simulated at each size of the study, and with how much effort."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from harness.errors import UsageError, did_you_mean
from harness.theory.scenarios import RATES, Scenario, fixed, sequences

SuiteSize = Literal["quick", "final", "full"]

SIZES: tuple[SuiteSize, ...] = ("quick", "final", "full")


@dataclass(frozen=True)
class Plan:
    """One scenario with the effort that goes into it."""

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
    if size == "quick":
        scenarios = [
            *fixed((0, 1)),
            *sequences("copy", (0.0, 0.25)),
            *sequences("gate", (0.0, 0.25)),
        ]
        return tuple(Plan(each, half_decades(3, 5), 24, 300) for each in scenarios)
    if size == "final":
        scenarios = [*fixed((0, 1)), *sequences("copy", RATES), *sequences("gate", RATES)]
        scenarios += sequences("merge", (0.125,))
        return tuple(Plan(each, half_decades(2, 6), 40) for each in scenarios)
    if size == "full":
        return tuple(_full())
    raise UsageError(f"theory: no suite is called '{size}'{did_you_mean(size, SIZES)}")


def _full() -> Iterator[Plan]:
    for each in _fixed_and_moving():
        yield Plan(each, half_decades(2, 6), 100, 1500)
    for each in _each_model("random", draws=6):
        yield Plan(each, half_decades(3, 6), 24)
    for each in _each_model("continuous", draws=1):
        yield Plan(each, half_decades(2.5, 4.5), 12, 200)


def _fixed_and_moving() -> Iterable[Scenario]:
    yield from fixed((0, 1, 2), has_nonlinear_joint=True)
    yield from sequences("copy", (*RATES, 0.375))
    yield from sequences("gate", RATES)
    yield from sequences("merge", (0.125, 0.25))


def _each_model(family: Literal["random", "continuous"], *, draws: int) -> Iterator[Scenario]:
    for draw in range(draws):
        for extra in (0, 1):
            yield Scenario(family, "zero-init", extra_atoms=extra, draw=draw)
            yield Scenario(family, "joint", extra_atoms=extra, draw=draw)
