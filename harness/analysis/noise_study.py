"""All that a grid's results say of noise: its floor, where variance comes from, clusters, draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from harness.analysis.cell_scores import CellScores
from harness.analysis.clusters import ClusterLine, cluster_lines, cluster_problems
from harness.analysis.columns import Group
from harness.analysis.comparisons import Comparison
from harness.analysis.frames import NOISE, ReportInput
from harness.analysis.measurements import Measurements
from harness.analysis.noise import (
    Floors,
    NoiseRuns,
    Place,
    below_floor,
    noise_floors,
    noise_runs,
    place_of,
)
from harness.analysis.prediction_noise import DrawLine, draw_lines
from harness.analysis.variance import VarianceLine, variance_lines

if TYPE_CHECKING:
    from harness.evaluation.benchmark import Benchmark


@dataclass(frozen=True)
class NoiseStudy:
    """What is known of noise."""

    runs: tuple[NoiseRuns, ...]
    """What was trained again."""
    floors: Floors
    below: frozenset[Place]
    """Differences that are smaller than the noise floor."""
    variance: tuple[VarianceLine, ...]
    clusters: tuple[ClusterLine, ...]
    cluster_problems: tuple[str, ...]
    draws: tuple[DrawLine, ...]

    def is_below(self, entry: Comparison) -> bool:
        """Whether a difference is smaller than the noise floor."""
        return place_of(entry) in self.below


def study_noise(
    data: ReportInput,
    measured: Measurements,
    comparisons: Mapping[Group, Sequence[Comparison]],
    benchmarks: Mapping[str, Benchmark],
) -> NoiseStudy:
    """What results say of noise.

    Args:
        data: with the cells that are trained for noise.
        measured: the study, which has none of them.
        comparisons: of the study.
        benchmarks: all that are known, by name.
    """
    has_more = NOISE in data.cells or NOISE in data.scores
    scores = CellScores(Measurements(data, benchmarks) if has_more else measured)
    runs, floors = noise_runs(data.cells), noise_floors(data, measured, scores)
    return NoiseStudy(
        runs=tuple(runs),
        floors=floors,
        below=below_floor(chain(*comparisons.values()), floors, measured.cells),
        variance=tuple(variance_lines(data, measured, scores)),
        clusters=tuple(cluster_lines(measured, comparisons, data.clusters)),
        cluster_problems=tuple(cluster_problems(measured, data.clusters)),
        draws=tuple(draw_lines(data, measured.groups, runs)),
    )
