"""Two results are found by any name, and their scores are paired item by item."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from harness.analysis.compare import compare
from harness.analysis.exact import PairedShares
from harness.analysis.sides import Side, find_side
from harness.cell.run import record_failure
from harness.commands.compare import NONE_FOUND, comparison_record, print_comparison
from harness.errors import StorageError, TrackingError, UsageError
from harness.grid.folders import CELL_FILE, cell_folder, items_path
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.records.files import write_frame
from harness.records.results import CellResult
from harness.records.scores import TaskScore
from harness.tracking.address import default_uri
from harness.tracking.runs import GridRuns
from tests.grid.test_loader import GRID
from tests.records.test_results import RESULT, SCORE
from tests.tracking.test_runs import empty_store, states, store

__all__ = ["empty_store"]


@pytest.fixture
def cells() -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"), {None: "1" * 64})


def items(answers: list[float], *, task: str = "arc_easy", start: int = 0) -> pd.DataFrame:
    numbers = range(start, start + len(answers))
    return pd.DataFrame(
        {"task": task, "doc_id": list(numbers), "question_id": [f"q{i}" for i in numbers],
         "acc": answers}
    )  # fmt: skip


def scored(answers: list[float], **change: object) -> TaskScore:
    score = replace(SCORE, value=float(np.mean(answers)), n=len(answers))
    return replace(score, **change)  # type: ignore[arg-type]


def side(tmp_path: Path, name: str, *scores: TaskScore, frame: pd.DataFrame | None) -> Side:
    folder = tmp_path / name
    if frame is not None:
        for score in scores:
            write_frame(items_path(folder, score.benchmark, score.key), frame)
    result = replace(RESULT, scores=scores)
    return Side(
        name, str(folder), result, lambda benchmark, key: items_path(folder, benchmark, key)
    )


def test_the_interval_is_that_of_the_paired_differences(tmp_path: Path) -> None:
    # 360 items: of fewer than 300 right/wrong answers the interval is Tango's.
    first, second = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0] * 60, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0] * 60
    found = compare(
        side(tmp_path, "a", scored(first), frame=items(first)),
        side(tmp_path, "b", scored(second), frame=items(second).sample(frac=1, random_state=0)),
    )
    (row,) = found.rows
    gained = np.subtract(second, first)
    reach = 1.9665855 * gained.std(ddof=1) / 360**0.5  # Student's t, 359 degrees of freedom
    assert row.interval == pytest.approx((1 / 3 - reach, 1 / 3 + reach), abs=1e-6)
    assert row.difference == pytest.approx(1 / 3)
    assert row.num_items == 360
    assert found.differences == ()


def test_few_right_or_wrong_answers_of_one_seed_have_an_exact_test_and_its_interval(
    tmp_path: Path,
) -> None:
    first, second = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    found = compare(
        side(tmp_path, "a", scored(first), frame=items(first)),
        side(tmp_path, "b", scored(second), frame=items(second)),
    )
    (row,) = found.rows
    assert row.interval == pytest.approx(PairedShares(2, 0, 6).interval(0.95))
    assert row.p_value == pytest.approx(0.5)  # McNemar: two of two discordant items
    assert row.scope == "models"


def test_a_macro_mean_is_paired_subject_by_subject(tmp_path: Path) -> None:
    def frame(first: list[float], second: list[float]) -> pd.DataFrame:
        return pd.concat([items(first, task="x"), items(second, task="y")])

    def macro(value: float) -> TaskScore:
        return replace(SCORE, benchmark="mmlu", task="mmlu", metric="acc_macro", value=value, n=6)

    found = compare(
        side(tmp_path, "a", macro(0.5), frame=frame([1.0, 0.0, 1.0, 0.0], [1.0, 0.0])),
        side(tmp_path, "b", macro(0.75), frame=frame([1.0, 1.0, 1.0, 1.0], [1.0, 0.0])),
    )
    (row,) = found.rows
    gained = np.array([0.0, 1.0, 0.0, 1.0])
    assert row.interval is not None
    middle, reach = np.mean(row.interval), np.ptp(row.interval) / 2
    assert middle == pytest.approx(0.25)
    assert reach == pytest.approx(3.1824463 * gained.std(ddof=1) / 2 / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (None, "no records of the items"),
        (items([1.0, 0.0], start=5), "other items"),
        (items([1.0, 1.0]), "the items' records do not give the score"),
    ],
)
def test_without_pairs_the_difference_stands_without_an_interval(
    tmp_path: Path, frame: pd.DataFrame | None, reason: str
) -> None:
    found = compare(
        side(tmp_path, "a", scored([1.0, 0.0]), frame=items([1.0, 0.0])),
        side(tmp_path, "b", scored([1.0, 0.0]), frame=frame),
    )
    (row,) = found.rows
    assert (row.interval, row.unpaired) == (None, reason)
    assert row.difference == 0


def test_scores_that_one_lacks_are_listed_as_such(tmp_path: Path) -> None:
    mmlu = scored([1.0], key="m", benchmark="mmlu", task="mmlu")
    norm = scored([1.0], metric="acc_norm")
    found = compare(
        side(tmp_path, "a", scored([1.0]), norm, mmlu, frame=None),
        side(tmp_path, "b", scored([1.0]), frame=None),
    )
    assert [row.metric for row in found.rows] == ["acc"]
    assert {(s.benchmark, s.metric) for s in found.only_first} == {
        ("arc_easy", "acc_norm"),
        ("mmlu", "acc"),
    }
    assert found.only_second == ()
    assert [difference.what for difference in found.differences] == ["metrics"]


def test_both_outputs_say_the_same(tmp_path: Path) -> None:
    answers = [1.0, 0.0, 1.0]
    one = side(tmp_path, "a", scored(answers), frame=items(answers))
    other = side(tmp_path, "b", scored(answers, bos="none"), frame=items(answers))
    assert shown(one, one).count(NONE_FOUND) == 1
    text = shown(one, other)
    assert "1 difference that can move a score" in text
    assert "BOS" in text
    assert NONE_FOUND not in text
    record = json.loads(json.dumps(comparison_record(compare(one, other))))
    assert record["differences"][0]["what"] == "BOS"
    assert record["scores"][0]["items"] == 3
    assert comparison_record(compare(one, one))["differences"] == []


def shown(one: Side, other: Side) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    print_comparison(console, compare(one, other))
    return console.export_text()


def written(cell: Cell, runs_dir: Path, result: CellResult = RESULT) -> Path:
    folder = cell_folder(runs_dir, cell)
    store(cell, runs_dir, result)
    record = cell.model_dump(mode="json", serialize_as_any=True)
    (folder / CELL_FILE).write_text(json.dumps(record))
    return folder


def test_a_cell_is_found_by_every_name_it_has(cells: list[Cell], tmp_path: Path) -> None:
    folder = written(cells[1], tmp_path)
    (tmp_path / "g.yaml").write_text(GRID)
    names = [
        cells[1].label, cells[1].id, cells[1].id[:6], cells[1].slug, str(folder),
        str(folder / "result.json"), f"{tmp_path / 'g.yaml'}:{cells[1].label}",
    ]  # fmt: skip
    for name in names:
        found = find_side(name, runs_dir=tmp_path, tracking_uri=None)
        assert (found.label, found.result.cell_id) == (cells[1].label, cells[1].id)
        assert found.items("arc_easy", "k") == folder / "items" / "arc_easy--k.parquet"


def test_an_unknown_name_offers_the_nearest(cells: list[Cell], tmp_path: Path) -> None:
    written(cells[1], tmp_path)
    with pytest.raises(UsageError, match="no such cell in .*did you mean 'a/zero-init-linear/10%"):
        find_side("a/zero-init-linear/10%/seed9", runs_dir=tmp_path, tracking_uri=None)
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises(UsageError, match="nothing: no such cell"):
        find_side("demo:nothing", runs_dir=tmp_path, tracking_uri=None)


def test_a_cell_without_a_result_and_a_broken_one_are_told(
    cells: list[Cell], tmp_path: Path
) -> None:
    folder = written(cells[1], tmp_path)
    (folder / "result.json").write_text("{")
    with pytest.raises(StorageError, match=r"result\.json: cannot be read"):
        find_side(cells[1].label, runs_dir=tmp_path, tracking_uri=None)
    (folder / "result.json").unlink()
    with pytest.raises(UsageError, match="has no result yet"):
        find_side(cells[1].label, runs_dir=tmp_path, tracking_uri=None)


def test_two_cells_of_one_label_are_told_by_their_ids(cells: list[Cell], tmp_path: Path) -> None:
    written(cells[1], tmp_path)
    twin = cells[1].model_copy(update={"world": "demo-1"})
    assert twin.label == cells[1].label
    written(twin, tmp_path)
    with pytest.raises(UsageError, match=f"2 cells have this name .*{twin.id}.*give an id"):
        find_side(cells[1].label, runs_dir=tmp_path, tracking_uri=None)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_run_of_mlflow_is_the_cell_that_it_logged(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml", text=GRID)
    cells = expand(grid)
    folder = written(cells[1], tmp_path)
    runs = GridRuns(grid, default_uri(tmp_path), tmp_path)
    runs.sync(states(grid, tmp_path))
    ((run,),) = runs.cell_runs().values()
    from_files = find_side(str(folder), runs_dir=tmp_path, tracking_uri=None)
    elsewhere = tmp_path / "elsewhere"
    for name in (run.info.run_id, cells[1].label):
        uri = default_uri(tmp_path)
        found = find_side(name, runs_dir=elsewhere, tracking_uri=uri)
        assert found.result == from_files.result
        assert found.label == cells[1].label
        file = found.items("arc_easy", "k")
        assert file is not None
        assert file.read_bytes() == (folder / "items" / "arc_easy--k.parquet").read_bytes()
        assert found.items("arc_easy", "another") is None
    with pytest.raises(UsageError, match="no such MLflow run; did you mean"):
        find_side(f"{cells[1].label}0", runs_dir=elsewhere, tracking_uri=uri)
    half = runs.create_cell_run(cells[2])
    with pytest.raises(UsageError, match="this MLflow run holds no result"):
        find_side(half, runs_dir=elsewhere, tracking_uri=uri)


def test_a_server_that_is_down_is_told_only_where_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no answer"):
        find_side("x", runs_dir=tmp_path, tracking_uri="http://127.0.0.1:9")


def test_a_failed_cell_without_scores_compares_as_nothing(
    cells: list[Cell], tmp_path: Path
) -> None:
    for cell in cells[1:3]:
        folder = cell_folder(tmp_path, cell)
        folder.mkdir(parents=True)
        record_failure(cell, folder, StorageError("the disk is full"))
    one, other = (
        find_side(str(cell_folder(tmp_path, cell)), runs_dir=tmp_path, tracking_uri=None)
        for cell in cells[1:3]
    )
    assert "No score that both have." in shown(one, other)
