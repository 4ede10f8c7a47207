"""Finished cells come whole into another runs folder, and never over another result."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import StorageError, UsageError
from harness.grid.folders import CELL_FILE, STEPS_FILE, cell_folder, cell_folders
from harness.grid.locks import locked
from harness.grid.merging import Merged, check_places, merge_cells, merge_rest
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.upkeep import verify_cell
from harness.records import files
from harness.records.picture_files import features_file, read_features, write_features
from harness.records.results import RESULT_FILE, read_result, write_result
from tests.grid.test_loader import GRID
from tests.grid.test_upkeep import begin, finish
from tests.records.test_results import RESULT, SCORE


@pytest.fixture
def cells() -> list[Cell]:
    """Of a grid with one benchmark, which `finish` scores."""
    raw = yaml.safe_load(GRID)
    return expand(resolve_grid({**raw, "tasks": ["arc_easy"]}, place="g.yaml"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "from"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "to" / "cells").mkdir(parents=True)
    return tmp_path / "to"


def merged(source: Path, target: Path, **options: bool) -> list[Merged]:
    return list(merge_cells(source, target, **options))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_finished_cell_is_copied_without_its_checkpoints_and_then_left(
    cells: list[Cell], source: Path, target: Path
) -> None:
    folder = finish(cells[1], source)
    before = content(folder)
    (folder / ".lock").touch()
    (folder / "checkpoints" / "step-00000005").mkdir(parents=True)
    (folder / "checkpoints" / "step-00000005" / "a").write_text("large")
    planned = merged(source, target, dry_run=True)
    assert content(target) == {}
    (one,) = merged(source, target)
    assert [one] == planned
    assert one.kind == "copied"
    assert one.size_bytes == sum(map(len, before.values()))
    copy = cell_folders(target)[cells[1].id]
    assert content(copy) == before
    assert list(verify_cell(copy)) == []
    assert [one.kind for one in merged(source, target)] == ["there"]
    copied = [path.stat().st_ctime_ns for path in copy.rglob("*.parquet")]
    assert (copy / RESULT_FILE).stat().st_ctime_ns >= max(copied), "else status reads them"


def test_what_is_not_finished_or_runs_stays_where_it_is(
    cells: list[Cell], source: Path, target: Path
) -> None:
    begin(cells[1], source)
    finish(cells[2], source)
    unscored = finish(cells[3], source)
    result = read_result(unscored)
    assert result is not None
    write_result(unscored, replace(result, scores=()))
    with locked(cell_folder(source, cells[2])):
        found = {one.source: one.kind for one in merged(source, target)}
    assert found == {
        cell_folder(source, cells[1]): "unfinished",
        cell_folder(source, cells[2]): "running",
        unscored: "unfinished",
    }
    assert cell_folders(target) == {}


def test_another_result_is_kept_and_an_unfinished_cell_gives_way_unless_it_runs(
    cells: list[Cell], source: Path, target: Path
) -> None:
    other, further, begun, running = cells[1:5]
    for cell in (other, further, begun, running):
        finish(cell, source)
    for cell, scores in ((other, (replace(SCORE, value=0.6),)), (further, (SCORE,) * 2)):
        folder = finish(cell, target)
        result = read_result(folder)
        assert result is not None
        more = tuple(replace(s, key=f"k{n}" if n else s.key) for n, s in enumerate(scores))
        write_result(folder, replace(result, scores=more))
    begin(begun, target)
    begin(running, target)
    kept = {cell.id: content(cell_folder(target, cell)) for cell in (other, further, running)}
    with locked(cell_folder(target, running)):
        found = {one.source.name.rpartition("--")[2]: one for one in merged(source, target)}
    assert [found[cell.id].kind for cell in cells[1:5]] == ["kept", "there", "copied", "running"]
    assert "holds another result" in found[other.id].text
    for cell in (other, further, running):
        now = content(cell_folder(target, cell))
        assert {k: v for k, v in now.items() if k != ".lock"} == kept[cell.id]
    assert content(cell_folder(target, begun)).keys() >= {RESULT_FILE, CELL_FILE, STEPS_FILE}
    assert not (cell_folder(target, begun) / "checkpoints").exists()


def test_a_damaged_cell_is_named_and_not_copied(
    cells: list[Cell], source: Path, target: Path
) -> None:
    folder = finish(cells[1], source)
    (folder / STEPS_FILE).write_bytes(b"x")
    (one,) = merged(source, target)
    assert one.kind == "kept"
    assert str(folder / STEPS_FILE) in one.text
    assert content(target) == {}
    assert list((target / "cells").iterdir()) == []


def test_a_dry_run_counts_a_cell_of_two_folders_once(
    cells: list[Cell], source: Path, target: Path, tmp_path: Path
) -> None:
    finish(cells[1], source)
    shutil.copytree(source, tmp_path / "second")
    before: dict[str, Path] = {}
    kinds = [
        one.kind
        for folder in (source, tmp_path / "second")
        for one in merge_cells(folder, target, dry_run=True, before=before)
    ]
    assert kinds == ["copied", "there"]
    assert cell_folders(target) == {}


def test_a_folder_inside_one_that_is_copied_is_refused(cells: list[Cell], source: Path) -> None:
    finish(cells[1], source)
    for target, told in ((source, "into itself"), (source / "inner", "is not changed")):
        with pytest.raises(UsageError, match=told):
            check_places([source], target, dry_run=False)
    assert not (source / "inner").exists()


def test_a_merge_that_was_cut_short_is_made_up_for(
    cells: list[Cell], source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cell in cells[1:4]:
        finish(cell, source)
    flushed = []

    def full(path: Path) -> None:
        flushed.append(path)
        if len(flushed) == 9:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "flush", full)
        with pytest.raises(StorageError, match="No space left"):
            merged(source, target)
    there = cell_folders(target)
    assert 0 < len(there) < 3
    assert all(list(verify_cell(folder)) == [] for folder in there.values())
    kinds = sorted(one.kind for one in merged(source, target))
    assert kinds == ["copied"] * (3 - len(there)) + ["there"] * len(there)
    assert len(cell_folders(target)) == 3


def test_draws_and_overlap_come_along_where_they_are_absent(source: Path, target: Path) -> None:
    for name, text in (("tuning/draws/a.json", "1"), ("tuning/draws/b.json", "2")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    (source / "overlap").mkdir()
    (source / "world" / "demo-1").mkdir(parents=True)
    (source / "world" / "demo-1" / "world.json").write_text("{}")
    (source / "overlap" / "c.parquet").write_text("3")
    (target / "tuning" / "draws").mkdir(parents=True)
    (target / "tuning" / "draws" / "b.json").write_text("other")
    found = {one.label: one.kind for one in merge_rest(source, target)}
    copied = dict.fromkeys(("demo-1", "a.json", "c.parquet"), "copied")
    assert found == copied | {"b.json": "kept"}
    assert (target / "world" / "demo-1" / "world.json").read_text() == "{}"
    assert (target / "tuning" / "draws" / "b.json").read_text() == "other"
    assert (target / "overlap" / "c.parquet").read_text() == "3"


def test_the_command_copies_the_cells_of_a_grid_and_fails_for_another_result(
    cells: list[Cell], source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    folder = finish(cells[0], source)
    write_result(folder, replace(RESULT, cell_id=cells[0].id))
    assert run.invoke(app, ["merge", "from", "to", "--dry-run"]).exit_code == 0
    done = run.invoke(app, ["merge", "from", "to"], standalone_mode=False)
    assert done.return_value == 0
    assert "1 copied" in done.stdout
    write_result(folder, replace(RESULT, cell_id=cells[0].id, scores=(replace(SCORE, value=1.0),)))
    again = run.invoke(app, ["merge", "from", "to"], standalone_mode=False)
    assert again.return_value == 1
    assert "1 not copied" in again.stdout
    for wrong in (["from"], ["from", "from"], ["none", "to"], ["from", "to", "--grid", "demi"]):
        with pytest.raises(UsageError):
            run.invoke(app, ["merge", *wrong], catch_exceptions=False)


def test_features_of_pictures_come_along_where_they_are_whole(source: Path, target: Path) -> None:
    whole, there, cut = (
        features_file(source, {"weights_sha256": "a"}, [name]) for name in ("x", "y", "z")
    )
    for file in (whole, there, cut):
        write_features(file, np.ones((1, 3), np.float32))
    cut.write_bytes(cut.read_bytes()[:-3])
    own = target / there.relative_to(source)
    write_features(own, np.zeros((1, 3), np.float32))
    for dry_run in (True, False):
        told = {one.source: one for one in merge_rest(source, target, dry_run=dry_run)}
        assert (told[whole].kind, told[cut].kind) == ("copied", "kept")
        assert there not in told
        assert told[cut].text.endswith("; not copied")
    copied = target / whole.relative_to(source)
    assert copied.read_bytes() == whole.read_bytes()
    assert not (target / cut.relative_to(source)).exists()
    found = read_features(own)
    assert found is not None
    assert not found.any()
