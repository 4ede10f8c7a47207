"""A study: scenarios × numbers of observations, run on one or two processes, the same on both."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.theory.fitting import draw_starts, fit
from harness.theory.losses import cell_losses, function_loss, matched_losses
from harness.theory.regression import make_design
from harness.theory.sampling import draw_continuous, draw_on_grid, grid_inputs, observe
from harness.theory.scenarios import Scenario
from harness.theory.suites import Plan
from harness.theory.world import Array


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
    theta = true.pack(truth.prompts, truth.biases, np.array(truth.alpha))[None]
    grid = make_design(world.pretrained, grid_inputs(world))
    f = true.evaluate(theta, grid).f[0]
    if scenario.family == "continuous":
        design, noise = draw_continuous(world, n, plan.repetitions, random)
        each = true.evaluate(np.repeat(theta, plan.repetitions, axis=0), design).f
        sample = observe(world, each, design, noise)
    else:
        sample = draw_on_grid(world, f, grid, n, plan.repetitions, random)
    starts = draw_starts(problem.model, truth, plan.repetitions, plan.starts, random)
    gauge = float(np.log(np.exp(truth.biases).sum()))
    found = fit(
        problem.model, sample, starts, problem.box, gauge=gauge, max_iterations=plan.iterations
    )
    losses_of = matched_losses if scenario.is_sequence else cell_losses
    losses = losses_of(problem.model, truth, found.theta)
    losses["function"] = function_loss(problem.model, found.theta, f, grid)
    return Errors(scenario, n, losses, found.chi2, found.converged, found.starts_at_best)


def jobs_of(plans: Sequence[Plan], seed: int) -> list[Callable[[], Errors]]:
    """Returns what measures each n of each plan, in order."""
    return [partial(measure, plan, n, seed) for plan in plans for n in plan.sizes]


def run_jobs(
    jobs: Sequence[Callable[[], object]], *, workers: int, on_result: Callable[[], None]
) -> list[object]:
    """Runs functions, on processes where `workers` is above 1; results are in the jobs' order.

    Args:
        jobs: functions that can be pickled, such as those of `jobs_of`.
        workers: processes; 1 works in this one.
        on_result: is called after each.
    """
    if workers == 1:
        found = []
        for job in jobs:
            found.append(job())
            on_result()
        return found
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # Fresh processes: a fork would take this one's threads and locks with it.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_ignore_interrupts
    )
    try:
        futures = [pool.submit(job) for job in jobs]
        for future in as_completed(futures):
            future.result()  # raises at once what the job raised
            on_result()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Leaves ctrl-C to the parent, which stops the pool."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
