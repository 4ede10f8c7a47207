"""Runs the rehearsal's modules in processes of their own, since they come before torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.real_data import DATA_ROOT, HAS_REAL_DATA
from tests.gpu_rehearsal import shim

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run() -> Run:
    """Runs Python with arguments; the test is skipped where nothing can be rehearsed."""
    if (reason := shim.missing()) is not None:
        pytest.skip(reason)
    if not HAS_REAL_DATA:
        pytest.skip("ZBENCH_DATA_ROOT: names no folder of real data sets, which it trains on")

    def start(*arguments: str, package: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """`package`: the folder that `harness` is imported from."""
        path = os.pathsep.join([str(package), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=ROOT,
            env=os.environ | {"ZBENCH_DATA_ROOT": str(DATA_ROOT), "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    return start
