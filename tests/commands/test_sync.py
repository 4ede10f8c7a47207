"""`zbench sync` says what it could not log."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from harness.commands import sync
from harness.grid.folders import cell_folder
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.workspace import OpenGrid
from tests.grid.test_loader import GRID
from tests.tracking.test_runs import finished


class FakeRuns:
    """Runs of a store that takes everything."""

    def __init__(self, *_: object) -> None:
        self.store = SimpleNamespace(told=None)

    def sync(self, states: list[object]) -> int:
        return len(states)

    def close(self) -> None:
        pass


def test_a_result_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sync, "GridRuns", FakeRuns)
    spec = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    cell = expand(spec)[1]
    grid = OpenGrid("g.yaml", spec, [cell], tmp_path, None)
    finished(cell, tmp_path)
    assert sync.sync_command(grid, tracking_uri=None) == 0
    assert "warning" not in capsys.readouterr().out
    file = cell_folder(tmp_path, cell) / "result.json"
    file.write_bytes(file.read_bytes()[:-9])
    damaged = OpenGrid("g.yaml", spec, [cell], tmp_path, None)
    assert sync.sync_command(damaged, tracking_uri=None) == 0
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith("warning")]
    assert "result.json" in line
