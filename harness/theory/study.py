"""A study: its suite of scenarios × n, measured on one or two processes, the same on both."""

from __future__ import annotations

import operator
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.errors import UsageError, did_you_mean
from harness.theory.fitting import draw_starts, fit
from harness.theory.losses import cell_losses, function_loss, matched_losses
from harness.theory.regression import make_design
from harness.theory.sampling import draw_continuous, draw_on_grid, grid_inputs, observe
from harness.theory.scenarios import RATES, Scenario, drawn, fixed, sequences
from harness.theory.world import Array

SIZES = ("quick", "final", "full")


@dataclass(frozen=True)
class Plan:
    """One scenario, and how thoroughly it is simulated."""

    scenario: Scenario
    sizes: tuple[int, ...]
    """n, ascending."""
    repetitions: int
    iterations: int = 600
    """Largest number of iterations from each start."""

    @property
    def starts(self) -> int:
        """Starting points: an over-fit has many local minima, an exact fit had none in trials."""
        return 6 if self.scenario.extra_atoms else 3


def half_decades(first: float, last: float) -> tuple[int, ...]:
    """n from 10^first to 10^last by half decades."""
    return tuple(round(10 ** (i / 2)) for i in range(round(2 * first), round(2 * last) + 1))


def make_suite(size: str) -> tuple[Plan, ...]:
    """Plans of a size: `quick`, `final` or `full`.

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


@dataclass(frozen=True)
class Errors:
    """What was measured at one n of a plan."""

    scenario: Scenario
    n: int
    losses: dict[str, Array]
    """By quantity, (R,)."""
    chi2: Array
    """(R,)."""
    converged: np.ndarray
    """(R,)."""
    starts_at_best: Array
    """(R,)."""


def measure(plan: Plan, n: int, seed: int) -> Errors:
    """Draws data, fits and measures; all randomness comes from the seed, the name and n."""
    scenario = plan.scenario
    problem = scenario.problem(n)
    random = np.random.default_rng([seed, zlib.crc32(scenario.name.encode()), n])
    truth, world, true = problem.truth, problem.world, problem.true_model()
    theta = true.pack_truth(truth)
    grid = make_design(world.pretrained, grid_inputs(world))
    f = true.evaluate(theta, grid).f[0]
    if scenario.family == "continuous":
        design, noise = draw_continuous(world, n, plan.repetitions, random)
        each = true.evaluate(np.repeat(theta, plan.repetitions, axis=0), design).f
        sample = observe(world, each, design, noise)
    else:
        sample = draw_on_grid(world, f, grid, n, plan.repetitions, random)
    model = problem.model
    starts = draw_starts(model, truth, plan.repetitions, plan.starts, random)
    gauge = float(np.log(np.exp(truth.biases).sum()))
    found = fit(model, sample, starts, problem.box, gauge=gauge, max_iterations=plan.iterations)
    losses_of = matched_losses if scenario.is_sequence else cell_losses
    losses = losses_of(model, truth, found.theta)
    losses["function"] = function_loss(model, found.theta, f, grid)
    return Errors(scenario, n, losses, found.chi2, found.converged, found.starts_at_best)


def jobs_of(plans: Sequence[Plan], seed: int) -> list[Callable[[], Errors]]:
    """Functions that measure each n of each plan, in order."""
    return [partial(measure, plan, n, seed) for plan in plans for n in plan.sizes]


def run_jobs(jobs: Sequence[Callable[[], object]], *, workers: int) -> Iterator[object]:
    """Runs picklable functions, and yields results in their order; 1 worker is this process."""
    if workers == 1:
        yield from (job() for job in jobs)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Fresh processes: a fork would take this one's threads and locks with it. They leave ctrl-C to
    # this one, which stops the pool.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        yield from pool.map(operator.call, jobs)
    finally:
        pool.shutdown(cancel_futures=True)
