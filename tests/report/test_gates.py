"""Gates and shares in the report: which cell is shown, what is drawn, nothing without a trace."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd
import pytest

from harness.analysis.findings import Findings
from harness.methods.zero_init.telemetry import GATES_FILE, SHARES_FILE
from harness.report import build_report, contents
from harness.report.figures import FORMATS, Drawing, Plot
from harness.report.gates import MOST_TICKS, gate_drawing, share_table
from harness.report.render import to_markdown

Traces = dict[tuple[str, str], pd.DataFrame]


def course(scale: float = 1.0, *, layers: int = 2, heads: int = 3) -> pd.DataFrame:
    """Returns gates that grow with step, layer and head; those of odd heads are negative."""
    return pd.DataFrame(
        [
            (step, 2 + layer, head, scale * step / 40 * (layer + 1) * (-1) ** head)
            for step in (1, 10, 20)
            for layer in range(layers)
            for head in range(heads)
        ],
        columns=["step", "layer", "head", "strength"],
    )


def shares(before: float, after: float) -> pd.DataFrame:
    """Returns shares of two heads around means; the outputs' are half the weights'."""
    rows = [
        (when, 2, head, mean + spread, (mean + spread) / 2)
        for when, mean in (("before", before), ("after", after))
        for head, spread in ((0, -0.01), (1, 0.01))
    ]
    return pd.DataFrame(rows, columns=["when", "layer", "head", "mass_share", "norm_share"])


def find(results, traces: Mapping[tuple[str, str], pd.DataFrame]) -> Findings:
    return results.findings(traces=lambda cell, file: traces.get((cell, file)))


def drawings_of(results, traces: Mapping[tuple[str, str], pd.DataFrame]) -> list[Drawing]:
    return [gate_drawing(curves) for curves in find(results, traces).gates]


def add(results, answer, method: str, seed: int, **others) -> str:
    return results.add(method, seed, answer("1100"), **others)


def axes_of(panel: Plot):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    panel.draw(axes)
    return axes


def panels_of(results, gates: pd.DataFrame, answer) -> tuple[Drawing, list]:
    cell = add(results, answer, "zero-init-linear", 0)
    (drawing,) = drawings_of(results, {(cell, GATES_FILE): gates})
    return drawing, [axes_of(panel) for panel in drawing.panels]


def test_without_traces_the_report_says_nothing_of_gates(small_report, small_grid) -> None:
    page = small_report.page.read_text(encoding="utf-8")
    assert "Gates and prompts" not in page
    assert not any(path.name.startswith("gates") for path in small_report.files)
    findings = find(small_grid, {})
    assert (findings.gates, share_table(findings)) == ((), [])


def test_the_map_shows_every_gate_of_the_last_step_with_its_sign(results, answer) -> None:
    _, (axes, _) = panels_of(results, course(), answer)
    (mesh,) = axes.collections
    assert mesh.get_array().tolist() == [[0.5, -0.5, 0.5], [1.0, -1.0, 1.0]]
    assert mesh.get_clim() == (-1.0, 1.0)  # nothing is white but zero
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2", "3"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]


def test_the_curves_are_means_of_sizes_over_heads(results, answer) -> None:
    _, (_, axes) = panels_of(results, course(), answer)
    found = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
    assert [xs for xs, _ in found] == [[1, 10, 20]] * 2
    assert found[0][1] == pytest.approx([0.025, 0.25, 0.5])
    assert found[1][1] == pytest.approx([0.05, 0.5, 1.0])
    colours = {line.get_color() for line in axes.get_lines()}
    assert len(colours) == 2


@pytest.mark.parametrize(("layers", "heads"), [(30, 32), (1, 1)])
def test_a_map_of_any_size_has_room_for_its_names(results, answer, layers, heads) -> None:
    _, (axes, _) = panels_of(results, course(layers=layers, heads=heads), answer)
    (mesh,) = axes.collections
    assert mesh.get_array().shape == (layers, heads)
    places = axes.get_yticks(), axes.get_xticks()
    assert all(0 < len(ticks) <= MOST_TICKS for ticks in places)
    texts = [label.get_text() for label in axes.get_yticklabels()]
    assert [float(text) - 2 + 0.5 for text in texts] == list(places[0])


def test_gates_that_never_moved_are_drawn_too(results, answer) -> None:
    drawing, (axes, _) = panels_of(results, course(0.0), answer)
    assert axes.collections[0].get_clim() == (-1.0, 1.0)
    assert drawing.render("png").startswith(b"\x89PNG")


def test_the_first_seed_at_the_largest_share_is_drawn_and_named(results, answer) -> None:
    cells = {
        (fraction, seed): add(results, answer, "zero-init-linear", seed, fraction=fraction)
        for fraction in (0.1, 1.0)
        for seed in (0, 1)
    }
    traces: Traces = {(cell, GATES_FILE): course(1.0 + seed) for (_, seed), cell in cells.items()}
    (drawing,) = drawings_of(results, traces)
    assert drawing.name == "gates-tiny-zero-init-linear"
    assert "100% of the training data. Seed 0 of 2; only this one is drawn." in drawing.caption
    assert axes_of(drawing.panels[0]).collections[0].get_clim() == (-1.0, 1.0)
    del traces[cells[1.0, 0], GATES_FILE]
    (other,) = drawings_of(results, traces)
    assert "Seed 1 of 2" in other.caption
    assert axes_of(other.panels[0]).collections[0].get_clim() == (-2.0, 2.0)
    del traces[cells[1.0, 1], GATES_FILE]
    assert drawings_of(results, traces) == []  # not those of a smaller share


def test_each_method_is_drawn_once_and_its_other_settings_counted(results, answer) -> None:
    traces: Traces = {}
    for method in ("zero-init-linear", "zero-init-nonlinear"):
        for label in (f"{method}-short", method):
            cell = add(results, answer, method, 0, label=label)
            traces[cell, GATES_FILE] = course()
            traces[cell, SHARES_FILE] = shares(0.0, 0.3)
    linear, nonlinear = drawings_of(results, traces)
    assert linear.title == "tiny: gates of Zero-init + linear"
    assert nonlinear.name == "gates-tiny-zero-init-nonlinear"
    assert "1 other settings of the method" in linear.caption
    (table,) = share_table(find(results, traces))
    assert len(table.rows) == 4


def test_shares_are_means_over_seeds_and_heads(results, answer) -> None:
    traces: Traces = {}
    for seed, after in ((0, 0.3), (1, 0.5)):
        cell = add(results, answer, "zero-init-linear", seed)
        traces[cell, SHARES_FILE] = shares(0.0, after)
    traces[add(results, answer, "random-init", 0), SHARES_FILE] = shares(0.2, 0.1)
    add(results, answer, "random-init", 1)  # an older cell, without a trace
    results.cells[0] |= {"final_gate_mean_abs": 0.2, "final_gate_max_abs": 0.5}
    results.cells[1] |= {"final_gate_mean_abs": 0.4, "final_gate_max_abs": 0.9}
    (table,) = share_table(find(results, traces))
    lines = to_markdown(table).splitlines()
    assert "| tiny | Zero-init + linear | 2 | 0.300 | 0.900 | 0.0 | 40.0 | 0.0 | 20.0 |" in lines
    assert "|  | Random-init | 1 | – | – | 20.0 | 10.0 | 10.0 | 5.0 |" in lines


def test_the_page_holds_figures_and_table_and_says_once_what_a_gate_is(
    small_grid, tmp_path, monkeypatch
) -> None:
    every = contents.drawings
    monkeypatch.setattr(
        contents, "drawings", lambda found: [d for d in every(found) if d.name.startswith("gates-")]
    )
    traces: Traces = {}
    for cell in small_grid.cells:
        if cell["method_name"].startswith("zero-init") and cell["status"] == "done":
            traces[cell["cell_id"], GATES_FILE] = course()
            traces[cell["cell_id"], SHARES_FILE] = shares(0.0, 0.3)
    data = small_grid.input(traces=lambda cell, file: traces.get((cell, file)))
    report = build_report(data, tmp_path / "a")
    again = build_report(data, tmp_path / "b")
    names = [path.name for path in report.files if path.name.startswith("gates-")]
    methods = ("zero-init-linear", "zero-init-nonlinear")
    assert names == [f"gates-tiny-{m}.{suffix}" for m in methods for suffix in FORMATS]
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert not re.search(rb"CreationDate|dc:date|Software|matplotlib \d", content, re.I)
        assert name.endswith(".png") or b"/png" not in content  # shapes, not a picture of them
    page = report.page.read_text(encoding="utf-8")
    assert page == again.page.read_text(encoding="utf-8")
    assert page.count("At 0, where every gate begins, the head is the base model") == 1
    assert page.count('<figure id="gates-tiny-') == 2
    assert "The prompt&#39;s share of attention" in page
    assert '<a href="#gates">Gates and prompts</a>' in page
