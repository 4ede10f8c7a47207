"""Shell completion: what a shell offers, asked as a shell asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.commands.answering import known_sets
from harness.commands.arguments import known_methods, shipped_or_own_grids

AS_ZBENCH = "import sys; sys.argv = ['zbench']; from harness.cli import main; main()"


def offered(words: str, cwd: Path) -> list[str]:
    environment = {
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
        "_ZBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", AS_ZBENCH],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_shell_is_offered_grids_commands_and_executors(tmp_path: Path) -> None:
    assert offered("zbench plan paper-7", tmp_path) == ["paper-7b", "paper-7b-seeds"]
    assert offered("zbench sche", tmp_path) == ["schema"]
    assert offered("zbench run-grid demo --executor loc", tmp_path) == ["local"]


def test_grids_of_ones_own_are_offered_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    for name in ("mine.yaml", "notes.txt", "study/deep.yml"):
        (tmp_path / name).write_text("a")
    assert shipped_or_own_grids("m") == ["mine.yaml"]
    assert shipped_or_own_grids("study/") == ["study/deep.yml"]
    assert shipped_or_own_grids("st") == ["study/"]
    assert shipped_or_own_grids("nowhere/") == []


def test_a_list_of_methods_is_continued() -> None:
    assert known_methods("base,zero-init-l") == ["base,zero-init-linear"]


def test_sets_of_instructions_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets").mkdir()
    for name in ("mine.jsonl", "notes.txt"):
        (tmp_path / name).write_text("a")
    assert known_sets("") == ["vicuna", "seeds", "mine.jsonl", "sets/"]
    assert offered("zbench generate demo --instructions vic", tmp_path) == ["vicuna"]
