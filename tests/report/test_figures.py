"""Figures: the same bytes for the same input, one style per method, and what is drawn."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from harness.analysis.findings import Findings
from harness.analysis.variants import Variant
from harness.report.contents import drawings
from harness.report.curves import efficiency_drawings, loss_drawing
from harness.report.figures import (
    FORMATS,
    MOST_METHODS,
    STYLES,
    Drawing,
    Plot,
    apart,
    draw_curve,
    styles_of,
)

SIGNATURES = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture
def findings(small_grid) -> Findings:
    return small_grid.findings()


def draw_efficiency(findings: Findings) -> Drawing:
    styles = styles_of(list(findings.measured.cells))
    return efficiency_drawings(findings, *next(iter(findings.efficiency)), styles)[0]


def draw_losses(findings: Findings) -> Drawing:
    styles = styles_of(list(findings.measured.cells))
    return loss_drawing(findings, findings.losses[0], styles)


def axes_of(panel: Plot):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    panel.draw(axes)
    return axes


def test_files_hold_no_date_and_no_tool_version(small_report) -> None:
    figures = [path for path in small_report.files if path.suffix.strip(".") in FORMATS]
    assert len(figures) == 9
    for path in figures:
        content = path.read_bytes()
        assert content.startswith(SIGNATURES[path.suffix.strip(".")])
        assert not re.search(rb"CreationDate|dc:date|Software|matplotlib \d", content, re.I)


def test_a_method_has_one_style_whatever_else_is_in_the_grid(findings, small_grid) -> None:
    few = styles_of([v for v in findings.measured.cells if v.method.startswith("zero")])
    small_grid.add("dora", 0)
    small_grid.add("lora", 0, label="lora-r64")
    many = styles_of(list(small_grid.findings().measured.cells))
    assert few.items() <= many.items()
    assert many["zero-init-linear"] == STYLES["zero-init-linear"]
    assert len(set(many.values())) == len(many)
    assert "base" not in many


def test_sample_efficiency_shows_means_seeds_band_base_and_chance(findings) -> None:
    arc, average = draw_efficiency(findings).panels
    axes = axes_of(arc)
    lines = {line.get_label(): line for line in axes.get_lines()}
    # Two seeds of linear at 100%: 6 of 8 (11101001) and 5 of 8 (10101011); at 10%: 4 and 3 of 8.
    assert list(lines["Zero-init + linear"].get_ydata()) == pytest.approx([43.75, 62.5])
    assert lines["Base model"].get_ydata()[0] == pytest.approx(25.0)
    assert lines["Chance"].get_ydata()[0] == pytest.approx(25.02)
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10%", "100%"]
    # Three prompt methods, LoRA and full.
    assert len(axes.collections) == 5
    assert average.title == "Average"


def test_methods_of_one_share_stand_beside_each_other(findings) -> None:
    axes = axes_of(draw_efficiency(findings).panels[0])
    ends = {line.get_label(): line.get_xdata()[-1] for line in axes.get_lines()}
    places = [ends[name] for name in ("Random-init", "Zero-init + linear", "LoRA")]
    assert len(set(places)) == 3
    assert all(0.85 < place < 1.18 for place in places)


def test_without_a_part_the_average_is_not_drawn(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy", "arc_challenge"]))
    findings = results.findings()
    assert [panel.title for panel in draw_efficiency(findings).panels] == ["ARC avg"]


def test_nothing_trained_gives_no_figure(results, answer) -> None:
    results.add("base", None, answer("1100"))
    findings = results.findings()
    assert (findings.efficiency, findings.losses) == ({}, ())


def test_loss_is_the_mean_over_seeds_at_the_largest_share(findings) -> None:
    whole, later = draw_losses(findings).panels
    lines = {line.get_label(): line for line in axes_of(whole).get_lines()}
    assert list(lines["Random-init"].get_ydata()) == pytest.approx([4.0, 1.2, 1.1, 1.055])
    assert list(lines["LoRA"].get_xdata()) == [0, 1, 2]
    assert not any("published" in name for name in lines)
    assert axes_of(later).get_lines()[-1].get_xdata()[0] == 1


@pytest.mark.parametrize(("fraction", "shown"), [(1.0, True), (0.5, False)])
def test_published_losses_stand_beside_llama_7b_on_all_data_alone(
    results, answer, fraction, shown
) -> None:
    losses = [4.0, 1.2, 1.1, 1.1, 1.0]
    results.add("random-init", 0, answer("11"), model="llama-7b", fraction=fraction, losses=losses)
    drawing = draw_losses(results.findings())
    lines = {line.get_label(): line for line in axes_of(drawing.panels[0]).get_lines()}
    assert ("Random-init, published" in lines) is shown
    assert ("published" in drawing.caption) is shown
    if shown:
        assert list(lines["Random-init, published"].get_ydata())[0] == 4.023


def test_a_model_name_makes_a_safe_file_name(results, answer) -> None:
    results.add("lora", 0, answer("1100"), model="org/name 7b")
    assert draw_efficiency(results.findings()).name == "sample-efficiency-org-name-7b"


def test_of_more_labels_than_styles_those_of_the_methods_themselves_are_drawn(
    results, answer
) -> None:
    labels = ["lora", *(f"lora-r{rank}" for rank in range(MOST_METHODS))]
    for label in labels:
        results.add("lora", 0, answer("1100"), label=label, losses=[2.0, 1.0])
    findings = results.findings()
    for drawing in (draw_efficiency(findings), draw_losses(findings)):
        names = {line.get_label() for line in axes_of(drawing.panels[0]).get_lines()}
        assert {name for name in names if name.startswith("LoRA")} == {"LoRA"}
        assert f"Not drawn, for their number: {MOST_METHODS} other settings" in drawing.caption
    del results.cells[-1]  # as many labels as styles
    drawing = draw_efficiency(results.findings())
    names = {line.get_label() for line in axes_of(drawing.panels[0]).get_lines()}
    assert len({name for name in names if name.startswith("LoRA")}) == MOST_METHODS
    assert "Not drawn" not in drawing.caption


@pytest.mark.parametrize(("losses", "is_drawn"), [([2.0], False), ([2.0, 1.0], True)])
def test_one_epoch_of_too_many_methods_is_no_figure(results, answer, losses, is_drawn) -> None:
    for rank in range(MOST_METHODS + 1):
        results.add("lora", 0, answer("1100"), label=f"lora-r{rank}", losses=losses)
    findings = results.findings()
    drawing = loss_drawing(findings, findings.losses[0], styles_of(list(findings.measured.cells)))
    assert (drawing is not None) is is_drawn


@pytest.mark.filterwarnings("error")
def test_a_long_legend_makes_the_figure_taller_and_leaves_the_panel_its_size() -> None:
    def plot(number: int) -> Drawing:
        def draw(axes) -> None:
            for index in range(number):
                axes.plot([0, 1], [0, index], label=f"A name that is rather long, number {index}")

        return Drawing("a", "A", "", (Plot("One", draw),))

    heights = [Image.open(io.BytesIO(plot(n).render("png"))).height for n in (2, 6, 30)]
    assert heights[0] == heights[1] == 640
    assert heights[2] > 640 + 10 * 27  # pixels of a line of the legend


@pytest.mark.filterwarnings("error")
def test_text_from_outside_is_no_mathematics_and_what_has_no_letter_is_a_number() -> None:
    names = ["$\\frac{1$", "_hidden", "模型 модель", "x" * 80, "a_b^c {d}"]

    def draw(axes) -> None:
        for place, name in enumerate(names):
            draw_curve(axes, [(1.0, [float(place)])], ("#000000", "o"), name)

    long = Drawing("a", f"$x {'y' * 200}", "", (Plot("$\\z " + "p" * 99, draw),))
    image = Image.open(io.BytesIO(long.render("png")))
    assert image.width == 864
    text = long.render("svg").decode()
    for shown in ("\\frac{1", " _hidden", "\\u6a21\\u578b модель"):
        assert shown in re.sub(r"<!-- (.*?) -->", r"\1", text)


def test_labels_of_an_axis_do_not_touch() -> None:
    assert apart([1.0], 0.1) == [0]
    assert apart([0.01, 0.1, 1.0], 0.1) == [0, 1, 2]
    assert apart([0.01, 0.011, 0.98, 1.0], 0.1) == [1, 3]


def test_methods_beyond_the_styles_share_colours_and_no_markers() -> None:
    labels = [f"lora-{number:02d}" for number in range(2 * MOST_METHODS)]
    found = styles_of([Variant("m", label, "lora", label, 1.0) for label in labels])
    assert len(set(found.values())) == 2 * MOST_METHODS


def test_one_epoch_has_one_tick(results, answer) -> None:
    results.add("lora", 0, answer("1100"), losses=[2.0])
    axes = axes_of(draw_losses(results.findings()).panels[0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0"]


def test_losses_that_are_no_numbers_are_not_drawn(results, answer) -> None:
    results.add("lora", 0, answer("1100"), losses=[2.0, float("nan"), float("inf")])
    results.add("full", 0, answer("1100"), losses=[float("nan")])
    drawing = draw_losses(results.findings())
    (line,) = (one for one in axes_of(drawing.panels[0]).get_lines() if one.get_label()[0] != "_")
    assert list(line.get_ydata()) == [2.0]
    assert len(drawing.panels) == 1


def test_two_models_of_one_file_name_have_two_figures(results, answer) -> None:
    for model in ("a b", "a-b", "A-B"):
        results.add("lora", 0, answer("1100"), model=model)
    names = [drawing.name for drawing in drawings(results.findings())]
    ends = ("a-b", "a-b-2", "A-B-3")
    assert names == [f"sample-efficiency-{end}" for end in ends]
