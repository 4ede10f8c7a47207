"""Overlap of training rows and test items: found as a cell is scored, read by the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness.analysis.frames import scores_of
from harness.analysis.overlap import Overlap, OverlapLine, OverlapScore
from harness.analysis.overlap_files import find_overlap
from harness.cell.run import run_cell
from harness.cell.settings import RunSettings
from harness.demo.world import write_world
from harness.grid.folders import cell_folder, items_path
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.records.overlap import FOLDER
from harness.records.results import CellResult
from harness.report.overlap import overlap_score_table, overlap_table, unknown_sentences
from tests.fixtures.results import make_small_grid
from tests.integration.test_end_to_end import grid_text

Run = tuple[Cell, CellResult, Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A cell whose training file holds the first two of the items, one of them word by word."""
    folder = tmp_path_factory.mktemp("overlap")
    world = write_world(folder / "world")
    asked = pd.read_parquet(world / "arc_easy/test.parquet")["question"]
    rows = pd.read_parquet(world / "alpaca/train.parquet")
    rows.loc[0, "instruction"] = asked[0].upper()
    rows.to_parquet(world / "mine.parquet")
    raw = yaml.safe_load(grid_text()) | {"data": {"path": str(world / "mine.parquet")}}
    raw["train"] = {"epochs": 1, "batch_size": 8}
    cell = expand(resolve_grid(raw, place="g.yaml"), {None: "0" * 64})[1]
    cell = cell.model_copy(update={"tasks": cell.tasks[:1], "data_sha256": None})
    settings = RunSettings(runs_dir=folder / "runs", data_root=world)
    return cell, run_cell(cell, settings, lambda event: None), folder / "runs"


def items_of(run: Run, benchmark: str) -> pd.DataFrame:
    cell, result, runs_dir = run
    (task,) = cell.tasks
    name = scores_of(task, result)[0].evaluation
    return pd.read_parquet(items_path(cell_folder(runs_dir, cell), benchmark, name))


def test_an_item_in_the_rows_is_found_and_told(run: Run) -> None:
    cell, result, runs_dir = run
    items = items_of(run, "demo_arc_easy")
    found = find_overlap([cell], {cell.id: result}, runs_dir, lambda _, name: items_of(run, name))
    (line,) = found.lines
    frame = pd.read_parquet(next((runs_dir / FOLDER).iterdir()))
    assert bool(frame["question"][0])
    assert line.items == len(frame) > len(items) == 12
    assert line.questions == int(frame["question"].sum()) >= 1
    hits = frame["question"][:12] | frame["ngram"][:12]
    (score,) = found.scores
    assert (score.hits, score.items) == (int(hits.sum()), 12)
    assert score.all == pytest.approx(items["acc"].mean())
    assert score.without == pytest.approx(items["acc"][~hits].mean())
    assert found.unknown == ()


def test_what_is_not_at_hand_is_said(run: Run, tmp_path: Path) -> None:
    cell, result, _ = run
    found = find_overlap([cell], {cell.id: result}, tmp_path, lambda *_: None)
    assert found.lines == ()
    assert found.unknown == (f"demo_arc_easy ({cell.data.path})",)
    assert result.train is not None
    old = replace(result, train=replace(result.train, data_content_sha256=None))
    assert find_overlap([cell], {cell.id: old}, tmp_path, lambda *_: None) == Overlap()


def test_the_report_has_a_table_of_each() -> None:
    overlap = Overlap(
        (OverlapLine("mine", "mmlu", 14_042, 3, 1),),
        (OverlapScore("m/lora", "mmlu", "acc", 4, 100, 0.5, 0.25, 1.0),),
        ("arc (mine)",),
    )
    findings = make_small_grid().findings(overlap=overlap)
    (table,) = overlap_table(findings)
    assert [entry.text for entry in table.rows[0].entries] == ["mine", "mmlu", "14,042", "3", "1"]
    (scores,) = overlap_score_table(findings)
    assert [entry.text for entry in scores.rows[0].entries][3:] == [
        *("4 of 100", "0.5000", "0.2500", "1.0000")
    ]
    assert unknown_sentences(findings)[0].startswith("Not known of arc (mine): it is found as")
    assert overlap_table(make_small_grid().findings()) == []
