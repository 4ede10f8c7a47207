"""Figures of Pareto fronts: what is drawn, and that names do not touch."""

from __future__ import annotations

from itertools import combinations

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.analysis.pareto import Axis, Front, Point, front_of
from harness.report.figures import GRID, STYLES
from harness.report.pareto import front_drawing, within_text

PARAMETERS = Axis("trainable_parameters", "Trained parameters")
SCORES = {"full": (6.7e9, 0.60), "lora": (4.2e6, 0.58), "random-init": (1.2e6, 0.50),
          "zero-init-linear": (1.2e6, 0.52), "zero-init-nonlinear": (1.2e6, 0.53)}  # fmt: skip


@pytest.fixture
def front() -> Front:
    points = [Point("Base model", 0, 0.25, (0.22, 0.28))]
    points += [
        Point(name, cost, value, (value - 0.03, value + 0.03), (0.9 * cost, 1.1 * cost), name)
        for name, (cost, value) in SCORES.items()
    ]
    found = front_of(points, PARAMETERS, "Average")
    assert found is not None
    return found


def draw(front: Front) -> Axes:
    drawing = front_drawing("pareto-tiny", "Tiny", "Caption.", [front], STYLES)
    assert drawing is not None
    (panel,) = drawing.panels
    figure = Figure(figsize=(5.4, 4.0), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    panel.draw(axes)
    assert panel.finish is not None
    panel.finish(axes)
    return axes


def test_every_point_is_named_and_no_two_names_touch(front: Front) -> None:
    axes = draw(front)
    assert {text.get_text() for text in axes.texts} == set(SCORES)
    renderer = axes.figure.canvas.get_renderer()
    for text in axes.texts:
        text.update_positions(renderer)
    # An annotation's own extent holds its line too.
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_what_costs_nothing_is_a_horizontal_line_on_a_log_axis(front: Front) -> None:
    axes = draw(front)
    assert axes.get_xscale() == "log"
    lines = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in lines if len(line.get_xdata())] == [[25.0, 25.0]]
    legend = axes.get_legend_handles_labels()[1]
    assert legend[-1] == "Base model"


def test_error_bars_are_the_interval_and_the_range_of_the_cost(front: Front) -> None:
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in draw(front).get_lines()]
    assert (pytest.approx([4.2e6, 4.2e6]), pytest.approx([55.0, 61.0])) in drawn
    assert (pytest.approx([0.9 * 4.2e6, 1.1 * 4.2e6]), pytest.approx([58.0, 58.0])) in drawn


def test_the_stairs_go_through_the_front_alone(front: Front) -> None:
    stairs = next(line for line in draw(front).get_lines() if line.get_color() == GRID
                  and len(line.get_xdata()) > 2)  # fmt: skip
    assert list(stairs.get_xdata()) == [1.2e6, 4.2e6, 4.2e6, 6.7e9, 6.7e9]
    assert list(stairs.get_ydata()) == pytest.approx([53.0, 53.0, 58.0, 58.0, 60.0])


def test_the_same_fronts_give_the_same_bytes(front: Front) -> None:
    drawings = [front_drawing("pareto-tiny", "Tiny", "Caption.", [front], STYLES) for _ in "ab"]
    first, second = (one.files() for one in drawings if one is not None)
    assert first == second


def test_without_a_front_there_is_no_figure() -> None:
    assert front_drawing("pareto-tiny", "Tiny", "Caption.", []) is None


def test_a_title_within_a_sentence_keeps_what_is_written_large() -> None:
    assert within_text("Trained parameters") == "trained parameters"
    assert within_text("GPU hours") == "GPU hours"
