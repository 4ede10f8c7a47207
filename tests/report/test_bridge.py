"""Error against examples of a grid's runs, with slopes that say no more than they know."""

from __future__ import annotations

import pytest

from harness.analysis.measurements import Measurements
from harness.evaluation.benchmarks import BENCHMARKS
from harness.report.bridge import bridge_drawing, fit_decay
from harness.report.figures import styles_of
from tests.fixtures.results import ALL, GridResults, answers_of


def make_grid(fractions=(0.1, 0.3, 1.0)) -> GridResults:
    """Returns a grid whose zero-init errors fall as the root of the examples, over two seeds."""
    grid = GridResults()
    grid.add("base", None, answers_of("1" + 99 * "0"))
    for fraction in fractions:
        wrong = round(10 * (1 / fraction) ** 0.5)
        for seed in (0, 1):
            pattern = wrong * "0" + (100 - wrong) * "1"
            grid.add("zero-init-linear", seed, answers_of(pattern), fraction=fraction)
            grid.cells[-1]["examples"] = round(1000 * fraction)
    grid.add("lora", 0, answers_of("0" + 99 * "1"), fraction=1.0)
    return grid


def draw(grid: GridResults):
    measured = Measurements(grid.input(), BENCHMARKS)
    styles = styles_of(list(measured.cells))
    return bridge_drawing(measured, measured.groups[0], "tiny", None, styles)


def test_a_power_of_the_examples_has_its_slope_and_no_spread() -> None:
    decay = fit_decay([10, 100, 1000], [0.5, 0.5 / 10**0.5, 0.05])
    assert (decay.value, decay.low, decay.high) == pytest.approx((-0.5, -0.5, -0.5))


def test_the_interval_is_students_of_the_scatter() -> None:
    from numpy import log
    from scipy.stats import linregress, t

    x, y = [6, 60, 180, 300, 600], [0.7, 0.69, 0.6, 0.5, 0.42]
    theirs = linregress(log(x), log(y))
    decay = fit_decay(x, y)
    assert decay.value == pytest.approx(theirs.slope)
    assert decay.high - decay.value == pytest.approx(t.ppf(0.975, 3) * theirs.stderr)


def test_too_few_points_and_errors_of_zero_have_no_slope() -> None:
    assert fit_decay([10, 100], [0.5, 0.4]) is None
    assert fit_decay([10, 100, 1000], [0.5, 0.4, 0.0]) is None


def test_methods_with_enough_shares_are_drawn_with_their_slope() -> None:
    from matplotlib.figure import Figure

    drawing = draw(make_grid())
    assert drawing.name == "error-and-examples-tiny"
    assert [panel.title for panel in drawing.panels] == ["ARC avg", "Average"]
    axes = Figure().add_subplot()
    drawing.panels[0].draw(axes)
    (text,) = [text.get_text() for text in axes.texts]
    assert text.startswith("Zero-init + linear: slope −0.5")
    assert axes.get_legend_handles_labels()[1] == ["Zero-init + linear"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "300", "1000"]


def test_the_caption_says_what_may_not_be_read() -> None:
    caption = draw(make_grid()).caption
    assert "confirms or refutes a rate" in caption
    assert "no truth is known" in caption


def test_a_grid_of_one_share_has_no_such_figure() -> None:
    assert draw(make_grid(fractions=(1.0,))) is None
    assert len(ALL) == 5
