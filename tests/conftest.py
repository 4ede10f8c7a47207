"""Fixtures that several folders of tests use."""

from __future__ import annotations

import os

import pytest

pytest_plugins = [
    "tests.fixtures.machines",
    "tests.fixtures.ray_nodes",
    "tests.fixtures.results",
    "tests.fixtures.studies",
]


@pytest.fixture(autouse=True)
def _no_settings_of_whoever_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ZBENCH_")]:
        monkeypatch.delenv(name)
