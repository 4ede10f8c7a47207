"""MLflow on a real PostgreSQL: several processes log a grid while its database goes and comes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.postgres import Postgres, missing, mlflow_server, postgres
from tests.integration.test_end_to_end import command, environment, zbench

pytestmark = [
    pytest.mark.slow,
    pytest.mark.postgres,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

GRID = """
name: several
world: demo
models:
  tiny-llama:
    path: model
    shape: {num_hidden_layers: 5, hidden_size: 128, intermediate_size: 344,
            num_attention_heads: 4, vocab_size: 1688, tie_word_embeddings: true}
data: {source: null, path: alpaca/train.parquet, num_rows: 600}
tasks: [{name: demo_arc_easy, limit: 12}]
train: {epochs: 12, batch_size: 16}
methods:
  lora: {train: {learning_rate: 3e-3}}
  full: {train: {learning_rate: 5e-4}}
  zero-init-linear: {num_layers: 5, train: {learning_rate: 1e-1}}
blocks:
  - {methods: [base, lora, full, zero-init-linear], fractions: [1.0], seeds: [0]}
"""
RUNS = """
select r.name, r.status, count(*) from runs r where r.lifecycle_stage = 'active'
group by r.name, r.status
"""
POINTS = """
select r.name, m.key, count(*), count(distinct m.step) from metrics m join runs r
on m.run_uuid = r.run_uuid where r.lifecycle_stage = 'active' group by r.name, m.key
"""
Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
def local(tmp_path: Path) -> Ask:
    """The same grid in one process and one SQLite file."""
    import sqlite3

    (tmp_path / "several.yaml").write_text(GRID)
    done = zbench(tmp_path, "run-grid", "several.yaml", "--runs-dir", "local", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return lambda query: sorted(
        sqlite3.connect(tmp_path / "local" / "mlflow.db").execute(query).fetchall()
    )


def test_a_database_that_goes_and_comes_stops_nothing_and_lacks_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, database: Postgres, local: Ask
) -> None:
    import psycopg2

    def stored(query: str) -> list[tuple[Any, ...]]:
        with psycopg2.connect(database.uri.replace("+psycopg2", "")) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            return sorted(cursor.fetchall())

    def until(query: str, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not stored(query):
            assert time.monotonic() < deadline, [p.poll() for p in processes]
            time.sleep(0.5)

    with mlflow_server(database.uri, tmp_path) as uri:
        # Two machines: each with a runs folder of its own, whose locks the other does not see.
        started = {
            "one": ("run-grid", "several.yaml", "--only", "lora"),
            "one-too": ("run-cell", "several.yaml", "tiny-llama/full/100%/seed0"),
            "other": ("run-grid", "several.yaml", "--only", "zero"),
            "other-too": ("run-grid", "several.yaml", "--only", "base"),
        }
        processes: list[subprocess.Popen] = []
        request.addfinalizer(lambda: [process.kill() for process in processes])
        for name, arguments in started.items():
            place = ("--runs-dir", name.removesuffix("-too"), "--tracking-uri", uri)
            with (tmp_path / f"{name}.log").open("w") as log:
                processes.append(
                    subprocess.Popen(
                        command(*arguments, *place), cwd=tmp_path, env=servers(tmp_path),
                        stdout=log, stderr=log,
                    )
                )  # fmt: skip
        until("select 1 from metrics where key = 'train/loss' limit 1")
        database.stop()
        assert [process.poll() for process in processes].count(None) >= 2
        time.sleep(15)
        assert all(process.poll() in (None, 0) for process in processes)
        database.start()
        codes = [process.wait(600) for process in processes]
        logs = {name: (tmp_path / f"{name}.log").read_text() for name in started}
        assert codes == [0, 0, 0, 0], logs
        for name in ("one", "other"):
            sync = command("sync", "several.yaml", "--runs-dir", name, "--tracking-uri", uri)
            done = subprocess.run(
                sync, cwd=tmp_path, env=servers(tmp_path), capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        assert stored(RUNS) == local(RUNS)
        assert {status for _, status, _ in stored(RUNS)} == {"FINISHED"}
        assert stored(POINTS) == local(POINTS)
        assert all(count == steps for _, _, count, steps in stored(POINTS))


def servers(folder: Path) -> dict[str, str]:
    """An environment that reaches this machine alone."""
    return {**environment(folder), "PYTHONPATH": environment(folder)["PYTHONPATH"].split(":")[-1]}
