"""Executors by name: zbench's own, and those of installed packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UsageError
from harness.execution.executors import EXECUTORS, executor_names, find_executor
from harness.execution.local import LocalExecutor

CODE = """
from harness.execution.local import LocalExecutor

class Mine(LocalExecutor):
    pass

class Half:
    def prepare(self, states, plan): ...
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with executors, one of them under a name of zbench's own."""
    (tmp_path / "own_executors.py").write_text(CODE)
    metadata = tmp_path / "own_executors-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-executors\nVersion: 1.0\n")
    entries = {"mine": "Mine", "half": "Half", "gone": "Gone", "local": "Half"}
    lines = [f"{name} = own_executors:{value}" for name, value in entries.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[zbench.executors]", *lines]) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_executors", raising=False)
    return tmp_path


def test_an_executor_of_another_package_is_found_by_its_entry_point(package: Path) -> None:
    assert executor_names() == [*EXECUTORS, "gone", "half", "mine"]
    found = find_executor("mine")
    assert type(found).__name__ == "Mine"
    assert isinstance(found, LocalExecutor)
    assert type(find_executor("local")) is LocalExecutor


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("half", "own_executors:Half of own-executors is no executor"),
        ("gone", "own_executors:Gone of own-executors is no executor"),
        ("minee", "no such executor; did you mean 'mine'?"),
    ],
)
def test_what_is_no_executor_is_one_line(package: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match="--executor") as fault:
        find_executor(name)
    assert said in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_name_of_a_site_file_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.yaml").write_text("executor: slrum\n")
    for command in ("run-grid", "doctor"):
        run = [command, "paper", "--cluster", "site.yaml"]
        with pytest.raises(UsageError, match="--cluster: executor slrum: .* did you mean 'slurm'"):
            CliRunner().invoke(app, run, catch_exceptions=False)
