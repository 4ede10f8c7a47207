"""The SQLite file of a local MLflow store: made whole or not at all, looked at before it is opened.

A half-made one, from a kill or a full disk, is put aside under another name and made anew; one in
good order that cannot be used (locked, of another version of MLflow) is told and stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.errors import TrackingError, one_line
from harness.records.files import flush
from harness.tracking.address import ARTIFACTS_FOLDER, sqlite_uri

BUSY_SECONDS = 20.0
"""A file that another program has locked is waited for."""
COMPANIONS = ("", "-journal", "-wal", "-shm")
"""What SQLite keeps beside a file."""
REVISION = re.compile(r"[0-9a-f]{12}")


class HalfMade(Exception):
    """A database that holds nothing that can be used; its text says why."""


def prepare(path: Path, *, own: bool, runs_dir: Path) -> str | None:
    """Sees to it that there is a database in good order; to be called in turn (`lock.turn`).

    Args:
        path: the file.
        own: whether it is the runs folder's own, which `sync` can make anew.
        runs_dir: where the files of its runs are, whatever places an older copy names.

    Returns:
        What was done to a broken one, in one line.

    Raises:
        TrackingError: there is none, and none can be made; it says what to do.
    """
    told = None
    _remove_remains(path)
    try:
        if path.exists() or path.is_symlink():
            check(path)
    except HalfMade as why:
        if not own:
            raise TrackingError(
                f"{path}: is half made or damaged ({why}); move the file {path.name} away, and it "
                "is made anew"
            ) from why
        aside = _put_aside(path)
        told = f"{path}: was half made or damaged ({why}); put aside as {aside.name}, made anew"
    if not path.exists():
        _make(path, runs_dir / ARTIFACTS_FOLDER)
    _correct_places(path, runs_dir, own=own)
    return told


def check(path: Path) -> None:
    """Looks at a database before MLflow opens it.

    Raises:
        HalfMade: it is no database, or lacks what MLflow needs.
        TrackingError: it cannot be read now, or is another version's.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise TrackingError(f"{path}: is no regular file; move the file {path.name} away")
        with path.open("rb") as file:
            head = file.read(100)
        size = path.stat().st_size
    except FileNotFoundError as fault:
        raise TrackingError(f"{path}: no such file") from fault
    except OSError as fault:
        raise TrackingError(
            f"{path}: cannot be read ({one_line(fault.strerror or fault)}); give yourself the right"
        ) from fault
    if head[:16] != b"SQLite format 3\0":
        raise HalfMade("empty" if not head else "no database")
    if _stated_bytes(head) > size and not any(
        path.with_name(path.name + end).exists() for end in COMPANIONS[1:]
    ):
        raise HalfMade("cut off")
    try:
        with connected(path, write=os.access(path, os.W_OK)) as database:
            _check_content(path, database)
    except sqlite3.OperationalError as fault:
        if "disk I/O" in str(fault) or "malformed" in str(fault):
            raise HalfMade(one_line(fault)) from fault
        raise TrackingError(
            f"{path}: cannot be read ({one_line(fault)}); try again later"
        ) from fault
    except sqlite3.DatabaseError as fault:
        raise HalfMade(one_line(fault)) from fault


def _stated_bytes(head: bytes) -> int:
    """The size that a database's first page states; 0 where it does not."""
    numbers = [int.from_bytes(head[start : start + 4], "big") for start in (24, 28, 92)]
    page_bytes = int.from_bytes(head[16:18], "big")
    return numbers[1] * (65536 if page_bytes == 1 else page_bytes) * (numbers[0] == numbers[2])


def _check_content(path: Path, database: sqlite3.Connection) -> None:
    (verdict,) = database.execute("pragma quick_check(1)").fetchone()
    if verdict != "ok":
        raise HalfMade(one_line(verdict))
    tables = {name for (name,) in database.execute("select name from sqlite_master")}
    if "alembic_version" not in tables:
        raise HalfMade("no version of its tables")
    versions = [version for (version,) in database.execute("select * from alembic_version")]
    if len(versions) != 1 or not REVISION.fullmatch(str(versions[0])):
        raise HalfMade("no version of its tables")
    head, known, needed = _of_mlflow()
    if versions == [head]:
        if lacking := sorted(needed - tables):
            raise HalfMade(f"without its table {lacking[0]}")
        return
    if not _holds_runs(database, tables):
        raise HalfMade("its tables are not finished, and hold no run")
    advice = (
        f"or move the file {path.name} away: `zbench sync` makes it anew from the cells' folders"
    )
    if versions[0] in known:
        raise TrackingError(
            f"{path}: is of an older MLflow; copy it, then `mlflow db upgrade {sqlite_uri(path)}`, "
            f"{advice}"
        )
    raise TrackingError(
        f"{path}: is of a newer MLflow than the installed one (tables {versions[0]}); install "
        f"that, {advice}"
    )


def _holds_runs(database: sqlite3.Connection, tables: set[str]) -> bool:
    return (
        "runs" in tables and database.execute("select 1 from runs limit 1").fetchone() is not None
    )


@cache
def _of_mlflow() -> tuple[str, set[str], set[str]]:
    """The installed MLflow's version of the tables, all that it knows, and the tables' names."""
    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store.tracking.dbmodels.models import Base

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    (head,) = scripts.get_heads()
    return head, {each.revision for each in scripts.walk_revisions()}, set(Base.metadata.tables)


@contextlib.contextmanager
def connected(path: Path, *, write: bool) -> Iterator[sqlite3.Connection]:
    """The database, opened without MLflow; it is there already."""
    uri = f"file:{quote(str(path.resolve()))}?mode={'rw' if write else 'ro'}"
    opened = contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS))
    with opened as database, database:
        yield database


def _put_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    try:
        for end in reversed(COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    except OSError as fault:
        raise TrackingError(
            f"{path}: is half made or damaged, and cannot be moved ({one_line(fault.strerror)}); "
            f"give yourself the right, then move the file {path.name} away"
        ) from fault
    _forget(path)
    return aside


def _make(path: Path, artifacts: Path) -> None:
    """Makes a database under another name, and gives it its own once it is whole."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=_remains(path), ignore_cleanup_errors=True
    ) as folder:
        made = Path(folder) / path.name
        SqlAlchemyStore(sqlite_uri(made), artifacts.resolve().as_uri())
        _forget(made)
        flush(made)
        try:
            os.link(made, path)
        except FileExistsError:  # another process was faster: that one is whole
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                made.rename(path)
    _forget(path)


def _forget(path: Path) -> None:
    """Closes MLflow's connections to a file of this path, which is another one from now on."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engines: dict[str, Any] = SqlAlchemyStore._engine_map
    if (engine := engines.pop(sqlite_uri(path), None)) is not None:
        engine.dispose()


def _remains(path: Path) -> str:
    return f".{path.name}.new-"


def _remove_remains(path: Path) -> None:
    """Removes what a killed process has left of making a database."""
    for folder in path.parent.glob(f"{_remains(path)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _correct_places(path: Path, runs_dir: Path, *, own: bool) -> None:
    """Has the runs' files looked for where the runs folder is now.

    MLflow stores whole paths: in a folder that was moved or copied they name the first one. Those
    of other runs folders in a common database stay.
    """
    place = runs_dir.resolve() / ARTIFACTS_FOLDER
    uri = place.as_uri()
    with connected(path, write=os.access(path, os.W_OK)) as database:
        runs = database.execute(
            "select run_uuid, artifact_uri from runs where substr(artifact_uri, 1, ?) != ?",
            (len(uri) + 1, f"{uri}/"),
        ).fetchall()
        moved = [
            (f"{uri}/{run}/artifacts", run)
            for run, was in runs
            if str(was).startswith("file:") and str(was).endswith(f"/{run}/artifacts")
            if own or (place / run).is_dir()
        ]
        query = (
            "select experiment_id from experiments where artifact_location like "
            f"'file:%/{ARTIFACTS_FOLDER}' and artifact_location != ?"
        )
        others = database.execute(query, (uri,)).fetchall() if own else []
        if moved:
            database.executemany("update runs set artifact_uri = ? where run_uuid = ?", moved)
        if others:
            query = "update experiments set artifact_location = ? where experiment_id = ?"
            database.executemany(query, [(uri, number) for (number,) in others])


def is_behind(path: Path, contents: set[str]) -> bool:
    """Whether `sync` has something to do: found out without MLflow, whose import takes seconds.

    Args:
        path: the database of a runs folder.
        contents: hashes of the results that it should hold.
    """
    try:
        with connected(path, write=False) as database:
            query = "select value from tags where key = 'zbench.content'"
            logged = {value for (value,) in database.execute(query)}
            query = (
                "select 1 from runs join tags using (run_uuid) where key = 'zbench.kind' "
                "and status = 'RUNNING' and lifecycle_stage = 'active' limit 1"
            )
            return not contents <= logged or database.execute(query).fetchone() is not None
    except sqlite3.Error:  # there is none, or it is broken
        return bool(contents)
