"""Several runs folders are read as one: each cell from where it is furthest, no score by chance."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UsageError
from harness.grid.draws import stored_draws, write_draws
from harness.grid.folders import cell_folder, cell_folders
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.selection import find_folder
from harness.grid.several_folders import find_doubles
from harness.grid.status import read_states
from harness.records.results import CellError, CellResult, write_result
from tests.grid.test_loader import GRID
from tests.grid.test_trials import opened, run_all
from tests.grid.test_tune_entries import grid_of
from tests.grid.test_upkeep import begin, finish
from tests.records.test_results import RESULT, SCORE


@pytest.fixture
def cells() -> list[Cell]:
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "laptop", tmp_path / "cluster"


def write(cell: Cell, runs: Path, **changed: object) -> None:
    result: CellResult = replace(RESULT, cell_id=cell.id, **changed)  # type: ignore[arg-type]
    write_result(cell_folder(runs, cell), result)


def test_each_cell_is_taken_from_where_it_is_furthest(
    cells: list[Cell], places: tuple[Path, Path]
) -> None:
    first, second = places
    done, resumed, trained, failed, alone = cells[:5]
    failure = CellError("TrainingError", "no memory", "log.txt")
    cell_folder(first, done).mkdir(parents=True)
    finish(done, second)
    write(resumed, first, train=None, scores=(), error=failure)
    begin(resumed, second)
    write(trained, first, scores=())
    begin(trained, second)
    write(failed, first, train=None, scores=(), error=failure)
    cell_folder(second, failed).mkdir(parents=True)
    finish(alone, second)
    known = {cell.id: cell_folders(places)[cell.id].parent.parent.name for cell in cells[:5]}
    assert known == {
        done.id: "cluster",
        resumed.id: "cluster",
        trained.id: "laptop",
        failed.id: "laptop",
        alone.id: "cluster",
    }
    states = read_states(cells, runs_dir=places, data_root=None)
    assert states[-1].folder.is_relative_to(first), "what is in none would be begun in the first"
    assert [state.folder for state in states[:5]] == [cell_folders(places)[c.id] for c in cells[:5]]


def test_a_copy_is_one_result_and_two_trainings_are_told(
    cells: list[Cell], places: tuple[Path, Path]
) -> None:
    first, second = places
    copied, further, again, scored = cells[:4]
    assert RESULT.train is not None
    for cell in (copied, further, again, scored):
        write(cell, first)
    write(copied, second)
    write(further, second, scores=(SCORE, replace(SCORE, key="other")))
    write(again, second, train=replace(RESULT.train, seconds=99.0))
    write(scored, second, scores=(replace(SCORE, value=0.6),))
    found = find_doubles(places, [cell.id for cell in cells])
    (told,), (refused,) = found.other_training, found.other_scores
    assert "was trained twice" in told
    assert f"{cell_folder(first, again)} is used" in told
    assert "arc_easy acc is 0.5 and 0.6" in refused
    assert scored.id in refused
    assert find_folder(again.id, places) == cell_folder(first, again)
    with pytest.raises(UsageError, match="0.5 and 0.6"):
        find_folder(scored.id, places)
    assert find_folder(str(cell_folder(second, scored)), places) == cell_folder(second, scored)
    assert not find_doubles(first, [cell.id for cell in cells]).all


def test_what_was_drawn_in_one_of_them_stays_so(tmp_path: Path) -> None:
    places = tmp_path / "a", tmp_path / "b"
    grid = grid_of(sampler="random")
    one = opened(grid, run_all(grid)).tunings[0]
    spec, space = one.spec, one.spec.space[one.choice.label]
    write_draws([one], places[1])
    (file,) = places[1].rglob("*.json")
    trials = json.loads(file.read_text())["trials"]
    file.write_text(json.dumps({"trials": trials[::-1]}))
    own = stored_draws(places[0])(spec, space, ())
    assert stored_draws(places)(spec, space, ()) == own[::-1] != own
    write_draws([one], places[0])
    assert stored_draws(places)(spec, space, ()) == own, "the first that knows it"


def test_commands_read_several_and_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "g.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    cells = expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"), {None: "1" * 64})
    (tmp_path / "train.parquet").touch()
    write(cells[0], tmp_path / "a:b", scores=())
    shutil.copytree(tmp_path / "a:b", tmp_path / "c")
    write(cells[0], tmp_path / "c")
    write(cells[0], tmp_path / "d", scores=(replace(SCORE, value=0.6),))
    run, several = CliRunner(), ["--runs-dir", "a:b", "--runs-dir", "c"]
    monkeypatch.setenv("ZBENCH_RUNS_DIR", "a:b")
    only = ["--only", cells[0].id]
    assert "a:b/cells" in run.invoke(app, ["status", "g.yaml", "--json", *only]).stdout
    found = run.invoke(app, ["status", "g.yaml", "--json", *only, *several]).stdout
    assert '"folder": "c/cells/' in found
    for command in (["run-grid", "paper"], ["plan", "paper"], ["verify"]):
        with pytest.raises(UsageError, match=f"2 times; {command[0]} takes one folder"):
            run.invoke(app, [*command, "--runs-dir", "c", "--runs-dir=d"], catch_exceptions=False)
    with pytest.raises(UsageError, match="--runs-dir e: no such folder"):
        run.invoke(app, ["status", *several, "--runs-dir", "e"], catch_exceptions=False)
    with pytest.raises(UsageError, match="0.5 and 0.6"):
        run.invoke(app, ["report", "g.yaml", *several, "--runs-dir", "d"], catch_exceptions=False)
