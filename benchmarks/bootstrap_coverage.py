"""How often the stratified bootstrap's interval of an interquartile mean holds the true value.

`python benchmarks/bootstrap_coverage.py` prints the table of docs/outcomes.md: five benchmarks, a
seed's score on each with a standard deviation of 1.15 points, drawn for each benchmark apart, or
shared by all of them. One minute on one core.
"""

from __future__ import annotations

import numpy as np

from harness.analysis.aggregates import interquartile_mean, mean_interval

SEED_SD = 0.0115
LEVELS = np.array([0.35, 0.45, 0.5, 0.55, 0.65])
"""True scores on the five benchmarks."""
GRIDS, EXPECTED_OVER = 500, 20_000


def coverage(num_seeds: int, *, is_shared: bool, generator: np.random.Generator) -> float:
    """Share of drawn grids whose interval holds the expected interquartile mean."""

    def drawn() -> np.ndarray:
        size = (num_seeds, 1 if is_shared else len(LEVELS))
        return LEVELS + generator.normal(0, SEED_SD, size)

    truth = float(np.mean([interquartile_mean(drawn()) for _ in range(EXPECTED_OVER)]))
    intervals = (mean_interval(drawn()) for _ in range(GRIDS))
    return float(np.mean([found is not None and found[0] <= truth <= found[1]
                          for found in intervals]))  # fmt: skip


if __name__ == "__main__":
    print("| seeds | a seed's error is each benchmark's own | it is shared by all |")
    print("| ---: | ---: | ---: |")
    for number in (2, 3, 5, 8, 20):
        shares = [
            coverage(number, is_shared=shared, generator=np.random.default_rng(0))
            for shared in (False, True)
        ]
        print(f"| {number} | {shares[0]:.2f} | {shares[1]:.2f} |")
