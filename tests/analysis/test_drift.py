"""How far another stack moved the scores: by cell, by item, and in the order of methods."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.drift import Drift, drift, same_cells
from harness.analysis.sides import stored_sides
from harness.commands.drift import drift_command, drift_record
from harness.errors import UsageError
from harness.grid.folders import cell_folders, items_path
from harness.grid.schema import Cell
from harness.records.files import write_frame
from tests.analysis.test_compare import items, scored, written
from tests.analysis.test_compare_groups import cells
from tests.records.test_results import RESULT

OLD = {"lora": [1.0, 1.0, 1.0, 0.0], "ia3": [1.0, 1.0, 0.0, 0.0], "base": [0.0, 0.0, 0.0, 1.0]}
NEW = {"lora": [1.0, 0.0, 0.0, 0.0], "ia3": [1.0, 0.0, 1.0, 0.0], "base": [0.0, 0.0, 1.0, 1.0]}
ENVIRONMENT = {"torch": "2.9.0", "transformers": "4.57.1", "peft": "0.17.0"}


def store(
    cell: Cell, runs: Path, answers: list[float], torch: str, weights: str, *, limited: bool = False
) -> None:
    score = scored(answers)
    limit = replace(score, limit=2, key="limited", value=score.value / 2)
    environment = {**ENVIRONMENT, "torch": torch, "device": "x86, 2 threads"}
    assert RESULT.train is not None
    train = None if cell.train is None else replace(RESULT.train, weights_sha256=weights)
    result = replace(
        RESULT, cell=cell.record(), cell_id=cell.id, train=train,
        scores=(score, limit) if limited else (score,),
        environment=environment, evaluation_environments={score.evaluation: environment},
        base={**RESULT.base, "weights_sha256": "b" * 64},
    )  # fmt: skip
    folder = written(cell, runs, result)
    write_frame(items_path(folder, score.benchmark, score.evaluation), items(answers))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old", tmp_path / "new"
    for cell in cells():
        if cell.fraction in (None, 1.0) and cell.seed in (None, 0, 1):
            store(cell, old, OLD[cell.method], "2.9.0", "1" * 64)
            again = "1" if cell.seed == 0 else "2"  # the first seed's weights are the same
            store(cell, new, NEW[cell.method], "2.13.0", again * 64)
    return old, new


def found(folders: tuple[Path, Path]) -> Drift:
    return drift(*(stored_sides(folder, cell_folders(folder)) for folder in folders))


def test_scoring_is_told_apart_from_training(folders: tuple[Path, Path]) -> None:
    rows = {row.part: row for row in found(folders).rows}
    assert set(rows) == {"scoring", "training"}
    assert sorted(rows["scoring"].differences) == [
        "a/base",
        "a/ia3/100%/seed0",
        "a/lora/100%/seed0",
    ]
    assert sorted(rows["training"].differences) == ["a/ia3/100%/seed1", "a/lora/100%/seed1"]


def test_the_differences_are_new_minus_old_over_the_cells(folders: tuple[Path, Path]) -> None:
    row = next(row for row in found(folders).rows if row.part == "scoring")
    moved = [0.25, 0.0, -0.5]  # base, ia3, lora
    assert row.mean == pytest.approx(statistics.fmean(moved))
    assert row.mean_absolute == pytest.approx(0.25)
    assert row.deviation == pytest.approx(statistics.stdev(moved))
    assert row.largest == "a/lora/100%/seed0"
    # Of 12 items: one of base, two of IA3 that cancel out, two of LoRA.
    assert (row.turned, row.num_items) == (pytest.approx(5 / 12), 12)


def test_methods_whose_order_turned_over_are_named(folders: tuple[Path, Path]) -> None:
    (rank,) = found(folders).ranks
    assert rank.of == "a/100%"
    assert rank.methods == {"lora": (1, 2), "ia3": (2, 1)}
    assert (rank.swapped, rank.num_pairs, rank.num_moved) == ((("ia3", "lora"),), 1, 2)


def test_the_stacks_of_both_are_told(folders: tuple[Path, Path]) -> None:
    old, new = found(folders).stacks
    assert {(what, stack.torch, n) for (what, stack), n in old.items()} == {
        ("trained", "2.9.0", 4),
        ("scored", "2.9.0", 5),
    }
    assert {stack.torch for _, stack in new} == {"2.13.0"}
    assert {stack.device for _, stack in new} == {"cpu"}


def test_cells_of_another_id_are_paired_by_their_label(folders: tuple[Path, Path]) -> None:
    old, new = folders
    cell = next(
        one for one in cells() if (one.method, one.seed) == ("lora", 0) and one.fraction == 1
    )
    twin = cell.model_copy(update={"world": "demo-1"})
    for folder in (new / "cells").glob(f"*{cell.id}"):
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        folder.rmdir()
    store(twin, new, NEW["lora"], "2.13.0", "1" * 64)
    pairs = same_cells(*(stored_sides(folder, cell_folders(folder)) for folder in (old, new)))
    ids = {(one.result.cell_id, other.result.cell_id) for one, other in pairs.pairs}
    assert (cell.id, twin.id) in ids
    assert len(pairs.pairs) == 5


def test_both_outputs_say_the_same(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new = map(str, folders)
    places = {"only": None, "runs_dir": tmp_path, "tracking_uri": None}
    assert drift_command(old, new, **places, as_json=False) == 0  # type: ignore[arg-type]
    text = capsys.readouterr().out
    assert "5 scored with torch 2.9.0" in text
    assert "The same weights, scored again: what the evaluation moved (3 cells)" in text
    assert "ia3 and lora (a/100%)" in text
    record = json.loads(json.dumps(drift_record(found(folders))))
    scoring = next(row for row in record["scores"] if row["part"] == "scoring")
    assert scoring["by_cell"]["a/lora/100%/seed0"] == pytest.approx(-0.5)
    assert record["ranks"][0]["swapped"] == [["ia3", "lora"]]
    drift_command(old, new, **{**places, "only": "ia3"}, as_json=True)  # type: ignore[arg-type]
    assert len(json.loads(capsys.readouterr().out)["cells"]) == 2


def test_what_is_no_runs_folder_or_has_nothing_in_common_is_told(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    places = {"only": None, "runs_dir": tmp_path, "tracking_uri": None, "as_json": True}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty: is no runs folder"):
        drift_command(str(folders[0]), str(tmp_path / "empty"), **places)  # type: ignore[arg-type]
    (cell,) = [one for one in cells() if (one.method, one.fraction, one.seed) == ("lora", 0.1, 2)]
    store(cell, tmp_path / "other", OLD["lora"], "2.9.0", "1" * 64)
    store(cell.model_copy(update={"seed": 7}), tmp_path / "other", OLD["lora"], "2.9.0", "1" * 64)
    with pytest.raises(UsageError, match="no cell of the same id or label"):
        drift_command(str(folders[0]), str(tmp_path / "other"), **places)  # type: ignore[arg-type]


def test_cells_of_one_label_and_evaluations_of_one_name_are_all_counted(
    folders: tuple[Path, Path],
) -> None:
    old, new = folders
    lora = next(one for one in cells() if (one.method, one.seed, one.fraction) == ("lora", 0, 1.0))
    twin = lora.model_copy(update={"world": "demo-1"})
    for folder, answers in ((old, [1.0, 1.0, 0.0, 0.0]), (new, [0.0, 0.0, 1.0, 0.0])):
        store(twin, folder, answers, "2.9.0", "1" * 64, limited=True)
    rows = {row.asked: row for row in found(folders).rows if row.part == "scoring"}
    assert set(rows) == {"all items", "limit 2"}
    labels = [f"a/lora/100%/seed0 ({one.id})" for one in (lora, twin)]
    assert rows["all items"].differences == {
        "a/base": 0.25, "a/ia3/100%/seed0": 0.0, labels[0]: -0.5, labels[1]: -0.25
    }  # fmt: skip
    assert rows["limit 2"].differences == {labels[1]: -0.125}
    (rank,) = found(folders).ranks
    assert sorted(rank.methods.values()) == [(1, 2), (2, 1), (2, 2)]
