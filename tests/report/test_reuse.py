"""Figures are drawn again where what they show has changed, or a file of theirs is gone."""

from __future__ import annotations

import pytest

from harness.report import build_report
from harness.report.figures import Drawing

NAMES = {"sample-efficiency-tiny", "training-loss-tiny"}


@pytest.fixture
def drawn(monkeypatch) -> list[str]:
    """Names of what is drawn, as it is drawn."""
    names: list[str] = []
    files = Drawing.files

    def recorded(drawing: Drawing, *args, **named) -> dict[str, bytes]:
        names.append(drawing.name)
        return files(drawing, *args, **named)

    monkeypatch.setattr(Drawing, "files", recorded)
    return names


@pytest.fixture
def grid(results, answer):
    results.add("lora", 0, answer("1100", ["arc_easy", "arc_challenge"]), losses=[2.0, 1.0])
    return results


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_unchanged_report_draws_nothing_and_is_the_same(grid, tmp_path, drawn) -> None:
    first = build_report(grid.input(), tmp_path)
    before = contents(tmp_path)
    assert set(drawn) == NAMES
    drawn.clear()
    second = build_report(grid.input(), tmp_path)
    assert drawn == []
    assert (first.files, contents(tmp_path)) == (second.files, before)


def test_another_score_or_loss_is_drawn(grid, tmp_path, drawn) -> None:
    build_report(grid.input(), tmp_path)
    for change in (grid.scores[0], grid.losses[0]):
        before = contents(tmp_path)
        drawn.clear()
        change["value" if "value" in change else "loss"] += 0.125
        build_report(grid.input(), tmp_path)
        assert drawn
        assert contents(tmp_path)["index.html"] != before["index.html"]
        assert {name for name, held in contents(tmp_path).items() if held != before[name]} >= {
            "training-loss-tiny.svg" if change is grid.losses[0] else "sample-efficiency-tiny.svg"
        }


def test_a_figure_without_its_file_is_drawn_alone(grid, tmp_path, drawn) -> None:
    build_report(grid.input(), tmp_path)
    before = contents(tmp_path)
    drawn.clear()
    (tmp_path / "training-loss-tiny.pdf").unlink()
    build_report(grid.input(), tmp_path)
    assert set(drawn) == {"training-loss-tiny"}
    assert contents(tmp_path) == before


def test_a_page_of_something_else_is_written_over(grid, tmp_path, drawn) -> None:
    (tmp_path / "index.html").write_bytes(b"\xff<figure id='x'>")
    build_report(grid.input(), tmp_path)
    assert set(drawn) == NAMES
