"""The figures of the theory: curves, guide lines and names."""

from __future__ import annotations

import pytest

from harness.report.theory_figure import drawings
from tests.fixtures.studies import study_of


def test_each_panel_has_a_curve_per_row_and_its_guides(small_study) -> None:
    from matplotlib.figure import Figure

    plots = [plot for drawing in drawings(small_study) for plot in drawing.panels]
    guides = ([-0.5], [-0.25], [-0.5], [-0.25, -0.5])
    for plot, exponents in zip(plots, guides, strict=True):
        axes = Figure().add_subplot()
        plot.draw(axes)
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert len(axes.get_legend_handles_labels()[1]) == 2
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        ends = [line.get_ydata()[1] / line.get_ydata()[0] for line in dotted]
        assert ends == pytest.approx([100**exponent for exponent in exponents])


def test_panels_that_share_a_legend_have_curves_of_different_names(small_study) -> None:
    from matplotlib.figure import Figure

    for drawing in drawings(small_study):
        labels = []
        for plot in drawing.panels:
            axes = Figure().add_subplot()
            plot.draw(axes)
            labels += axes.get_legend_handles_labels()[1]
        assert len(set(labels)) == len(labels) == 4


def test_panels_and_figures_without_rows_are_left_out(small_study) -> None:
    row = next(row for row in small_study.rows if row.quantity == "single")
    (drawing,) = drawings(study_of({(row.scenario, "single"): (-0.5, -0.52, -0.48)}))
    assert len(drawing.panels) == 1
