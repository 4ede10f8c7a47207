"""A database is whole, or put aside and made anew, or left alone with one line that says why."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from harness.errors import TrackingError
from harness.grid.resolver import resolve_grid
from harness.grid.schema import GridSpec, expand
from harness.tracking import database
from harness.tracking.address import default_uri, sqlite_path, sqlite_uri
from harness.tracking.database import check, is_behind, prepare
from harness.tracking.reading import TrackedResults
from harness.tracking.runs import GridRuns
from tests.grid.test_loader import GRID
from tests.tracking.test_runs import empty_store, finished, states

__all__ = ["empty_store"]

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


@pytest.fixture
def grid() -> GridSpec:
    return resolve_grid(yaml.safe_load(GRID), place="g.yaml", text=GRID)


def sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as opened, opened:
            opened.execute("pragma foreign_keys = off")
            for statement in statements:
                opened.execute(statement)

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    path.write_bytes(content)


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("no database " * 1000),
    "cut off": cut,
    "damaged": damage,
    "no version": sql("delete from alembic_version"),
    "two versions": sql("insert into alembic_version values ('0123456789ab')"),
    "a word as version": sql("update alembic_version set version_num = 'nothing'"),
    "no table of versions": sql("drop table alembic_version"),
    "half of the tables": sql("drop table metrics", "drop table tags"),
    "an older version without runs": sql("update alembic_version set version_num = '451aebb31d03'"),
    "an unknown version without runs": sql("delete from runs", "update alembic_version set "
                                           "version_num = 'ffffffffffff'"),
}  # fmt: skip


@pytest.fixture
def quick(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a new database copied: making one takes seconds."""
    monkeypatch.setattr(database, "_make", lambda path, _: shutil.copy(empty_store, path))


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_a_half_made_one_is_put_aside_and_made_anew(
    change: Callable[[Path], None], tmp_path: Path, empty_store: Path, quick: None
) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_store, path)
    sql("delete from tags", "delete from runs")(path)
    change(path)
    broken = path.read_bytes()
    told = prepare(path, own=True, runs_dir=tmp_path)
    assert (tmp_path / "mlflow.db.broken-1").read_bytes() == broken
    assert told is not None
    assert "put aside as mlflow.db.broken-1" in told
    assert len(told.splitlines()) == 1
    check(path)
    assert prepare(path, own=True, runs_dir=tmp_path) is None


def test_sync_makes_up_for_a_database_that_was_put_aside(
    grid: GridSpec, tmp_path: Path, quick: None
) -> None:
    path = tmp_path / "mlflow.db"
    cell = expand(grid)[1]
    finished(cell, tmp_path)
    for number in (1, 2):
        path.write_text("no database")
        runs = GridRuns(grid, default_uri(tmp_path), tmp_path)
        assert runs.store.told is not None
        assert (tmp_path / f"mlflow.db.broken-{number}").is_file()
        assert runs.sync(states(grid, tmp_path)) == 1
        assert TrackedResults(grid, default_uri(tmp_path), tmp_path).runs.keys() == {cell.id}


def test_one_in_good_order_stays(grid: GridSpec, tmp_path: Path, empty_store: Path) -> None:
    path = tmp_path / "mlflow.db"
    for change, said in (
        (sql("update alembic_version set version_num = '451aebb31d03'"), "mlflow db upgrade"),
        (sql("update alembic_version set version_num = 'ffffffffffff'"), "newer MLflow"),
    ):
        shutil.copy(empty_store, path)
        change(path)
        with pytest.raises(TrackingError, match=said) as told:
            prepare(path, own=True, runs_dir=tmp_path)
        assert "\n" not in str(told.value)
        assert "move the file mlflow.db away" in str(told.value)
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]


def test_one_that_is_locked_stays(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_store, path)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(TrackingError, match="database is locked"):
            prepare(path, own=True, runs_dir=tmp_path)
    assert prepare(path, own=True, runs_dir=tmp_path) is None


def test_a_folder_and_a_pipe_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrackingError, match="no regular file"):
        prepare(tmp_path / "folder", own=True, runs_dir=tmp_path)


def test_one_of_the_user_is_never_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "common.db"
    path.write_text("no database")
    with pytest.raises(TrackingError, match=r"move the file common\.db away"):
        prepare(path, own=False, runs_dir=tmp_path / "runs")
    assert path.read_text() == "no database"


def test_what_a_killed_process_left_is_removed(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / ".mlflow.db.new-x").mkdir()
    prepare(tmp_path / "mlflow.db", own=True, runs_dir=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]


def places(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as opened:
        runs = opened.execute("select artifact_uri from runs where name != 'other'").fetchall()
        kept = opened.execute("select artifact_location from experiments").fetchall()
    return sorted(place for (place,) in [*runs, *kept] if not place.endswith("/0"))


@pytest.mark.parametrize("way", ["copied", "moved"])
def test_a_folder_elsewhere_is_written_in_its_own_place_alone(
    way: str, grid: GridSpec, tmp_path: Path, empty_store: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "a%20b #[x]?"
    first.mkdir()
    shutil.copy(empty_store, first / "mlflow.db")
    one, other = expand(grid)[1:3]
    finished(one, first)
    GridRuns(grid, default_uri(first), first).sync(states(grid, first))
    if way == "moved":
        first.rename(second)
    else:
        shutil.copytree(first, second)
    before = sorted(tmp_path.glob("first/**/*"))
    finished(other, second)
    runs = GridRuns(grid, default_uri(second), second)
    assert runs.sync(states(grid, second)) == 1
    assert sorted(tmp_path.glob("first/**/*")) == before
    assert {each.name for each in tmp_path.iterdir()} <= {"first", second.name}
    assert all(place.startswith(second.as_uri()) for place in places(second))
    names = {each.label for each in TrackedResults(grid, default_uri(second), second).runs.values()}
    assert names == {one.label, other.label}
    for (run,) in runs.cell_runs().values():  # as MLflow's own pages read them
        listed = runs.client.list_artifacts(run.info.run_id)
        assert "result.json" in {file.path for file in listed}


def test_runs_folders_of_one_common_database_keep_their_own_files(
    grid: GridSpec, tmp_path: Path, empty_store: Path
) -> None:
    common = tmp_path / "common.db"
    shutil.copy(empty_store, common)
    cells = expand(grid)[1:3]
    for name, cell in zip(("one", "two"), cells, strict=True):
        finished(cell, tmp_path / name)
        GridRuns(grid, sqlite_uri(common), tmp_path / name).sync(states(grid, tmp_path / name))
        assert len(list((tmp_path / name / "artifacts").glob("*/artifacts/result.json"))) == 1
    (tmp_path / "one").rename(tmp_path / "three")
    GridRuns(grid, sqlite_uri(common), tmp_path / "three")
    assert not (tmp_path / "one").exists()
    found = TrackedResults(grid, sqlite_uri(common), tmp_path / "three")
    assert found.runs.keys() == {cell.id for cell in cells}
    assert found.lost == []


NAMES = ["a b%2F#[x]", "50% what?&b=c;d", "größe 数'\"", "x" * 200, "[/x]"]


@pytest.mark.parametrize("name", NAMES)
def test_every_folder_name_is_an_address(
    name: str, grid: GridSpec, tmp_path: Path, empty_store: Path
) -> None:
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True)
    assert sqlite_path(default_uri(folder)) == folder / "mlflow.db"
    shutil.copy(empty_store, folder / "mlflow.db")
    cell = expand(grid)[1]
    finished(cell, folder)
    runs = GridRuns(grid, default_uri(folder), folder)
    assert runs.sync(states(grid, folder)) == 1
    runs.close()
    ((run,),) = runs.cell_runs().values()
    assert len(runs.client.list_artifacts(run.info.run_id)) == 3
    assert len(list(folder.glob("artifacts/*/artifacts/result.json"))) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]
    assert [each.name for each in (tmp_path / "runs").iterdir()] == [name.split("/")[0]]


def test_what_sync_would_log_is_known_without_mlflow(
    grid: GridSpec, tmp_path: Path, empty_store: Path
) -> None:
    path = tmp_path / "mlflow.db"
    assert is_behind(path, {"a hash"})
    assert not is_behind(path, set())
    assert list(tmp_path.iterdir()) == []
    shutil.copy(empty_store, path)
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("update runs set status = 'FINISHED'")
    assert not is_behind(path, set())
    assert is_behind(path, {"a hash"})
    runs = GridRuns(grid, default_uri(tmp_path), tmp_path, live=True)
    assert is_behind(path, set())
    runs.close()
    assert not is_behind(path, set())


def test_reading_makes_and_changes_nothing(
    grid: GridSpec, tmp_path: Path, empty_store: Path
) -> None:
    path = tmp_path / "mlflow.db"
    with pytest.raises(TrackingError, match="no such file"):
        TrackedResults(grid, default_uri(tmp_path), tmp_path)
    assert list(tmp_path.iterdir()) == []
    shutil.copy(empty_store, path)
    sql("delete from alembic_version")(path)
    before = path.read_bytes()
    with pytest.raises(TrackingError, match="zbench sync"):
        TrackedResults(grid, default_uri(tmp_path), tmp_path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]
