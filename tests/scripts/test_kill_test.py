"""A grid that is killed, or finds its disk full, ends as one that is left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_random_kills_change_nothing(tmp_path: Path) -> None:
    said = run("scripts.kill_test", "--kills", "5", "--seed", "1", "--folder", str(tmp_path / "k"))
    assert said.splitlines()[-1].endswith("0 rounds went wrong")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    said = run("scripts.full_disk", "--folder", str(tmp_path / "f"), "--every", "40")
    assert ": 0 went wrong" in said.splitlines()[-1]
