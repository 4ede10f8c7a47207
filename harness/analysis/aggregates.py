"""One number over many benchmarks: the interquartile mean and the probability of improvement.

Definitions and intervals are those of Agarwal et al., Deep RL at the Edge of the Statistical
Precipice (arXiv 2108.13264), as their library `rliable` computes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.columns import Group
from harness.analysis.comparisons import asked_pairs
from harness.analysis.measurements import Measurements
from harness.analysis.stats import LEVEL
from harness.analysis.variants import Variant

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000
"""Bootstrap samples of every interval."""
SEED = 0
"""Of their random numbers: the same scores give the same interval."""
TRIMMED = 0.25
"""Share of the scores that is left out at each end."""
FEWEST_BENCHMARKS = 3
"""Of fewer no mean that leaves out quarters says anything."""

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class MeanLine:
    """A row of the tables over all benchmarks of a group."""

    group: Group
    columns: tuple[str, ...]
    """The benchmarks that went in."""
    variant: Variant
    num_seeds: int
    value: float
    """Interquartile mean over seeds and benchmarks, 0..1."""
    interval: Interval | None
    """None of one seed."""


@dataclass(frozen=True, eq=False)
class ImprovementLine:
    """A pair that the grid claims or compares."""

    group: Group
    columns: tuple[str, ...]
    left: Variant
    right: Variant
    num_seeds: tuple[int, int]
    value: float
    """Probability that a run of the left one is better than one of the right, mean of benchmarks.
    """
    interval: Interval | None
    """None where one of the two has one seed."""


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of what is left of all scores, of any shape, without the lowest and highest quarter.

    As `scipy.stats.trim_mean(scores, 0.25, axis=None)`: of n scores floor(n/4) are left out at each
    end.
    """
    return float(_trimmed_means(scores.reshape(1, -1))[0])


def _trimmed_means(rows: np.ndarray) -> np.ndarray:
    """(rows,) trimmed means of (rows, scores)."""
    import numpy as np

    number = rows.shape[1]
    cut = int(TRIMMED * number)
    return np.sort(rows, axis=1)[:, cut : number - cut].mean(axis=1)


def probability_of_improvement(left: np.ndarray, right: np.ndarray) -> float:
    """Mean over tasks of P(a run of left > a run of right), ties counted half: 0..1.

    `left` is (k, tasks) and `right` (l, tasks): runs by tasks, the higher the better. Of each task
    this is the Mann-Whitney U over k·l.
    """
    return float(_improvements(left[None], right[None])[0])


def _improvements(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(samples,) probabilities of (samples, k, tasks) against (samples, l, tasks)."""
    wins = left[:, :, None, :] > right[:, None, :, :]
    ties = left[:, :, None, :] == right[:, None, :, :]
    return (wins + 0.5 * ties).mean(axis=(1, 2, 3))


def mean_interval(scores: np.ndarray) -> Interval | None:
    """95% interval of the interquartile mean of (k, tasks) scores; None of one run.

    Percentiles of a stratified bootstrap: of each task k runs are drawn from its own, again and
    again. It knows the seeds alone and takes the items as given.
    """
    if len(scores) < 2:
        return None
    drawn = _resampled(scores, _generator())
    return _percentiles(_trimmed_means(drawn.reshape(len(drawn), -1)))


def improvement_interval(left: np.ndarray, right: np.ndarray) -> Interval | None:
    """95% interval of `probability_of_improvement`, by the same bootstrap of both; None where one
    of them has one run."""
    if min(len(left), len(right)) < 2:
        return None
    generator = _generator()
    return _percentiles(_improvements(_resampled(left, generator), _resampled(right, generator)))


def _generator() -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(SEED)


def _resampled(scores: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, k, tasks): of each task its runs, drawn with replacement."""
    import numpy as np

    num_runs, num_tasks = scores.shape
    chosen = generator.integers(num_runs, size=(RESAMPLES, num_runs, num_tasks))
    return scores[chosen, np.arange(num_tasks)]


def _percentiles(values: np.ndarray) -> Interval:
    import numpy as np

    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def benchmarks_of(group: Group) -> tuple[str, ...]:
    """The columns that are taken together: one of each benchmark, of which the scores are shares.

    What is no share (a perplexity) has no scale in common with the others. A control says nothing
    of how good a method is.
    """
    return tuple(group.by_benchmark(shares_alone=True, controls=False).values())


def _summed_up(measured: Measurements) -> Iterator[tuple[Group, tuple[str, ...]]]:
    """Yields the groups of the grid's own tables with enough benchmarks."""
    for group in measured.groups:
        columns = benchmarks_of(group)
        if not group.is_rest and len(columns) >= FEWEST_BENCHMARKS:
            yield group, columns


def _runs(
    measured: Measurements, variant: Variant, group: Group, columns: tuple[str, ...]
) -> np.ndarray | None:
    """(seeds, benchmarks) scores of the seeds that have all of them, the higher the better; None
    without one."""
    import numpy as np

    found = [measured.seed_scores(variant, group, column) for column in columns]
    seeds = [seed for seed in found[0] if all(seed in scores for scores in found)]
    if not seeds:
        return None
    runs = np.array([[scores[seed] for scores in found] for seed in seeds], dtype=float)
    flipped = [group.is_lower_better(column) for column in columns]
    return np.where(flipped, 1 - runs, runs)


def mean_lines(measured: Measurements) -> Iterator[MeanLine]:
    """Yields the interquartile mean of every row of the tables, group by group."""
    for group, columns in _summed_up(measured):
        for variant in measured.tabled:
            runs = _runs(measured, variant, group, columns)
            if runs is not None:
                number, value = len(runs), interquartile_mean(runs)
                yield MeanLine(group, columns, variant, number, value, mean_interval(runs))


def improvement_lines(measured: Measurements) -> Iterator[ImprovementLine]:
    """Yields the probability of improvement of the pairs that the grid claims or compares."""
    for group, columns in _summed_up(measured):
        for model in measured.models:
            for left, right in asked_pairs(measured, model):
                ours = _runs(measured, left, group, columns)
                theirs = _runs(measured, right, group, columns)
                if ours is None or theirs is None:
                    continue
                yield ImprovementLine(
                    group=group,
                    columns=columns,
                    left=left,
                    right=right,
                    num_seeds=(len(ours), len(theirs)),
                    value=probability_of_improvement(ours, theirs),
                    interval=improvement_interval(ours, theirs),
                )
