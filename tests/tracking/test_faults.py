"""What answers in place of a store is one line that says what to do, in bounded time."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
import yaml
from mlflow.exceptions import MlflowException
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGDialect

from harness.errors import GridError, TrackingError, UsageError
from harness.grid.resolver import resolve_grid
from harness.grid.tracking_uri import uri_fault
from harness.tracking import store
from harness.tracking.address import is_own, resolve_uri, sqlite_path, sqlite_uri
from harness.tracking.faults import explained
from harness.tracking.runs import GridRuns
from tests.grid.test_loader import GRID

Answer = Callable[[socket.socket], None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """Gives what makes a server of an answer, and returns its address with secrets in it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    opened = []

    def start(answer: Answer) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        opened.append(listening)

        def loop() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    answer(connection)

        threading.Thread(target=loop, daemon=True).start()
        return f"http://anna:geheim77@127.0.0.1:{listening.getsockname()[1]}/?token=tok88"

    yield start
    for listening in opened:
        listening.close()


def http(status: str, body: str = "") -> Answer:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lambda connection: connection.sendall((head + body).encode())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http("200 OK", "<html>Hello</html>"), "no MLflow server"),
        (http("200 OK", "[1, 2]"), "no MLflow server"),
        (http("200 OK", '{"experiment": {"name": "another"}}'), "no MLflow server"),
        (http("200 OK", '{"experiment": 5}'), "no MLflow server"),
        (http("404 Not Found", "<html>404</html>"), "no MLflow server"),
        (http("401 Unauthorized", "no"), "set MLFLOW_TRACKING_USERNAME"),
        (http("403 Forbidden", "no"), "set MLFLOW_TRACKING_USERNAME"),
        (http("500 Internal Server Error", "no"), "look into its log"),
        (http("503 Service Unavailable", "no"), "look into its log"),
        (lambda connection: connection.sendall(b"SSH-2.0\r\n"), "no MLflow server"),
        (lambda connection: None, "no MLflow server"),
    ],
)
def test_what_is_no_mlflow_server_is_one_line(
    answer: Answer, said: str, serve: Callable[[Answer], str], tmp_path: Path
) -> None:
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml", text=GRID)
    with pytest.raises(TrackingError, match=said) as caught:
        GridRuns(grid, serve(answer), tmp_path)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 300
    assert not [secret for secret in ("anna", "geheim77", "tok88", "Error") if secret in line]


def test_a_server_that_answers_drop_by_drop_is_not_waited_for(
    serve: Callable[[Answer], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drops(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n")
        for _ in range(20):
            connection.sendall(b" ")
            time.sleep(0.1)

    monkeypatch.setattr(store, "FIRST_ANSWER_SECONDS", 0.5)
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml", text=GRID)
    with pytest.raises(TrackingError, match="timed out"):
        GridRuns(grid, serve(drops), tmp_path)


class Down(PGDialect):
    """A driver of PostgreSQL whose server is down."""

    supports_statement_cache = True
    tries = 0

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        return sqlite3

    def connect(self, *arguments: object, **named: object) -> NoReturn:
        Down.tries += 1
        raise sqlite3.OperationalError("connection failed: Connection refused")


def test_a_database_server_that_is_down_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Down, "tries", 0)
    registry.register("postgresql.down", __name__, "Down")
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml", text=GRID)
    with pytest.raises(TrackingError, match=r"\*\*\*@host/db: no answer \(Connection refused\)"):
        GridRuns(grid, "postgresql+down://anna:geheim77@host/db", tmp_path)
    assert Down.tries == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(sqlite3.OperationalError) database is locked [SQL: x]", "is locked by another program"),
        ("(sqlite3.OperationalError) attempt to write a readonly database", "may only be read"),
        ("(sqlite3.OperationalError) database or disk is full", "the disk is full"),
        ('(psycopg2.OperationalError) FATAL: password authentication failed for user "anna"',
         "refuses the user and password"),
        ("(psycopg2.errors.Odd) something [SQL: SELECT 1] (Background on this error at: x)",
         "(psycopg2.errors.Odd) something"),
        ("a.b.OddError: what geheim77 said\nat length", "what *** said at length"),
        ("", "fails without a reason"),
    ],
)  # fmt: skip
def test_what_libraries_say_becomes_a_line(text: str, said: str) -> None:
    line = explained(MlflowException(text), "postgresql://anna:geheim77@host/db")
    assert said in line
    assert "anna" not in line


@pytest.mark.parametrize(
    ("driver", "package"),
    [("psycopg2", "psycopg2-binary"), ("psycopg", "'psycopg[binary]'"), ("pymysql", "pymysql")],
)
def test_a_driver_that_is_missing_is_named(driver: str, package: str) -> None:
    fault = ModuleNotFoundError(f"No module named '{driver}'", name=driver)
    assert f"`pip install {package}`" in explained(fault, "postgresql://h/d")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "is empty"),
        ("htp://host", "no kind of MLflow store"),
        ("host:5000", "write http://host:5000"),
        ("http:/host", "lacks ://"),
        ("http://", "names no host"),
        ("http://:5000", "names no host"),
        ("http://host:port", "host and port"),
        ("http://my host:5000", "no host that can be read"),
        ("./mlruns", "a file store"),
        ("/srv/mlruns", "a file store"),
        ("file:///srv/mlruns", "a file store"),
        ("sqlite://mlflow.db", "three"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///runs/", "names a folder"),
        ("postgresql://u:p/w@host/db", "%2F"),
        ("http://host\x1b[31m", "control characters"),
    ],
)
def test_what_is_no_address_is_refused_before_anything(
    uri: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "sqlite:///PATH" if said == "three" else said
    with pytest.raises(UsageError, match="^--tracking-uri: ") as caught:
        resolve_uri(None, tmp_path, uri)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UsageError, match="^MLFLOW_TRACKING_URI: "):
            resolve_uri(None, tmp_path, None)
    raw = yaml.safe_load(GRID) | {"tracking": {"uri": uri}}
    with pytest.raises(GridError, match=r"tracking\.uri"):
        resolve_grid(raw, place="g.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    ["http://host", "https://u:p%40w@host:8443/mlflow", "http://[::1]:5000", "postgresql:///db",
     "postgresql+psycopg2://u:p@host:5432/db?sslmode=require", "mysql+pymysql://h/d", "databricks",
     "databricks://profile", "sqlite:////srv/a b.db", "sqlite:///a.db?timeout=5"],
)  # fmt: skip
def test_what_is_an_address_is_taken(uri: str) -> None:
    assert uri_fault(uri) is None


def test_a_database_file_is_one_file_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = tmp_path.resolve() / "runs" / "mlflow.db"
    for uri in ("sqlite:///runs/mlflow.db", f"sqlite:///{own}", f"sqlite+pysqlite:///{own}"):
        assert sqlite_path(resolve_uri(None, Path("runs"), uri)) == own
        assert is_own(resolve_uri(None, Path("runs"), uri), Path("runs"))
    assert sqlite_path("sqlite:///~/a%20b.db") == tmp_path / "home" / "a b.db"
    (tmp_path / "a%20b").mkdir()
    assert sqlite_path(f"sqlite:///{tmp_path}/a%20b/x.db") == tmp_path / "a%20b" / "x.db"
    odd = tmp_path / "100%?" / "x.db"
    assert sqlite_path(sqlite_uri(odd)) == odd
    assert sqlite_path("http://host") is None
