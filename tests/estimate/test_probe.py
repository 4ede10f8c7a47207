"""A real probe on the embedded world: real steps, real scoring, nothing kept of the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ZbenchError
from harness.estimate.probe import representatives, run_probe
from harness.estimate.probe_worker import ProbeSettings
from tests.estimate.conftest import cells_of


def test_each_model_and_method_is_probed_once() -> None:
    cells = list(cells_of("demo").values())
    chosen = representatives(cells)
    assert len(chosen) == 6
    assert {cell.fraction for cell in chosen} == {None, 1.0}


def test_a_probe_times_steps_and_scoring(world: Path) -> None:
    cell = cells_of("demo")["tiny-llama/zero-init-linear/100%/seed0"]
    cell = cell.model_copy(update={"tasks": cell.tasks[:1]})
    before = sorted(path.stat().st_mtime_ns for path in world.rglob("*"))
    told: list[str] = []
    found = run_probe([cell], ProbeSettings(world, 1), ["cpu"], told.append)
    assert told == ["tiny-llama/zero-init-linear"]
    times = found["tiny-llama/zero-init-linear"]
    assert times.step_seconds + times.token_seconds > 0
    assert times.tokens_per_row == pytest.approx(56175 / 5 / 600, rel=0.1)
    assert times.load_seconds > 0
    assert times.start_seconds > 0
    assert set(times.scoring) == {"demo_arc_easy"}
    assert times.scoring["demo_arc_easy"].item_seconds > 0
    assert sorted(path.stat().st_mtime_ns for path in world.rglob("*")) == before


def test_missing_data_is_one_line(tmp_path: Path) -> None:
    cell = cells_of("demo")["tiny-llama/lora/1%/seed0"]
    with pytest.raises(ZbenchError) as fault:
        run_probe([cell], ProbeSettings(tmp_path, 1), ["cpu"], lambda key: None)
    assert "\n" not in str(fault.value)
