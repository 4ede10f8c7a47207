"""The pretended card itself, in a process where it comes before torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu_rehearsal import shim
from tests.gpu_rehearsal.conftest import ROOT

LAWS = Path(__file__).with_name("rehearsed_card.py")


def test_laws_of_the_card() -> None:
    if (reason := shim.missing()) is not None:
        pytest.skip(reason)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.gpu_rehearsal.before_torch"),
            *("-p", "no:cacheprovider", "-p", "no:xdist", str(LAWS)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shim_must_come_before_torch() -> None:
    code = "import torch; import tests.gpu_rehearsal.before_torch"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "must be imported before torch" in done.stderr


def test_without_a_compiler_the_reason_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shim.missing() == "no C++ compiler: the GPU rehearsal needs g++ (apt install g++)"


@pytest.mark.rehearsal
def test_processes_that_build_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    if (reason := shim.missing()) is not None:
        pytest.skip(reason)
    code = "import tests.gpu_rehearsal.before_torch, torch; print('loaded')"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in started:
        told, fault = process.communicate()
        assert told == "loaded\n", fault
    (built,) = (tmp_path / "zbench-gpu-rehearsal").iterdir()
    assert built.suffix == ".so"
