"""From a probe's times to a grid's; and a real probe on the embedded world."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import ZbenchError
from harness.estimate.gpus import device_name
from harness.estimate.probe import (
    COMMAND_SECONDS,
    CellForecast,
    GridForecast,
    Probe,
    expected_seconds,
    forecast_cell,
    read_probe,
    representatives,
    run_probe,
    write_probe,
)
from harness.estimate.probe_worker import PairTime, ProbeSettings, ScoringTime, line_through
from tests.estimate.conftest import cells_of, to_do

CELL = cells_of("demo")["tiny-llama/lora/50%/seed0"]
CELL = CELL.model_copy(
    update={"tasks": tuple(task for task in CELL.tasks if task.decoding is None)}
)
GROUPS = (
    *("demo_arc_easy", "demo_arc_challenge", "demo_mmlu", "demo_hellaswag"),
    *("demo_truthfulqa_mc1+demo_truthfulqa_mc2", "demo_forgetting"),
)
TIMES = PairTime(
    load_seconds=1.0,
    fixed_seconds=0.5,
    row_seconds=0.001,
    step_seconds=0.01,
    token_seconds=0.0001,
    tokens_per_row=20.0,
    save_seconds=0.25,
    scoring={name: ScoringTime(0.5, 0.002, 0.01) for name in GROUPS},
    start_seconds=4.0,
)
PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from harness.estimate.probe_worker import begin_worker

if __name__ == "__main__":
    context = get_context("spawn")
    places = context.Queue()
    places.put("cpu")
    arguments = (places, 1, os.getpid())
    pool = ProcessPoolExecutor(1, context, begin_worker, arguments)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 60)
    time.sleep(60)
"""
PROBE = Probe("this one", workers=2, threads=1, pairs={"tiny-llama/lora": TIMES})


def test_a_cell_is_its_steps_tokens_and_items(tmp_path: Path) -> None:
    found = forecast_cell(to_do(CELL, tmp_path), PROBE, {None: 600})
    assert found is not None
    steps, tokens = 5 * 19, 5 * 300 * 20
    assert found.training_seconds == pytest.approx(0.01 * steps + 0.0001 * tokens)
    assert found.scoring_seconds == pytest.approx(6 * 0.5 + 0.002 * (400 + 3 * 240 + 2 * 200))
    assert found.other_seconds == pytest.approx(1 + 0.5 + 300 * 0.001 + 0.25)
    assert forecast_cell(to_do(CELL, tmp_path), replace(PROBE, pairs={}), {None: 600}) is None


def test_the_last_worker_ends_the_run() -> None:
    seconds = enumerate((9, 2, 3, 1))
    cells = tuple(CellForecast(str(i), "", s, 0.0, 0.0, {"x": 1.0}) for i, s in seconds)
    # start 4; one worker takes 9, the other 2, 3 and 1; each prepares x once
    both = GridForecast(PROBE, cells, 4)
    assert both.wall_seconds == COMMAND_SECONDS + 4 + 1 + 9
    assert both.worker_seconds == 2 * (4 + 1) + 9 + 2 + 3 + 1
    one = replace(PROBE, workers=1)
    assert GridForecast(one, cells, 4).wall_seconds == COMMAND_SECONDS + 4 + 1 + 15
    assert GridForecast(PROBE, (), 0).wall_seconds == 0


def test_two_points_give_a_line_that_is_never_negative() -> None:
    assert line_through((10, 3.0), (5, 2.0)) == pytest.approx((1.0, 0.2))
    assert line_through((10, 3.0), (5, 1.0)) == pytest.approx((0.0, 0.3))
    assert line_through((10, 3.0), (5, 4.0)) == pytest.approx((3.0, 0.0))
    assert line_through((10, 3.0), (10, 3.0)) == pytest.approx((0.0, 0.3))


def test_a_kept_probe_is_read_back_and_added_to(tmp_path: Path) -> None:
    assert read_probe(tmp_path) is None
    write_probe(tmp_path, PROBE)
    assert read_probe(tmp_path) == PROBE
    write_probe(tmp_path, replace(PROBE, pairs={"tiny-llama/full": TIMES}))
    both = read_probe(tmp_path)
    assert both is not None
    assert set(both.pairs) == {"tiny-llama/lora", "tiny-llama/full"}
    write_probe(tmp_path, replace(PROBE, device="another"))
    other = read_probe(tmp_path)
    assert other is not None
    assert set(other.pairs) == {"tiny-llama/lora"}
    (tmp_path / "estimates" / "probe.json").write_text("{")
    assert read_probe(tmp_path) is None


def test_a_run_expects_what_this_machine_was_probed_for(tmp_path: Path) -> None:
    states = [to_do(CELL, tmp_path)]
    assert expected_seconds(states, ["cpu"], tmp_path, {None: 600}) == {}
    here = device_name("cpu")
    assert here
    write_probe(tmp_path, replace(PROBE, device=here))
    (found,) = expected_seconds(states, ["cpu"], tmp_path, {None: 600}).values()
    assert found["source"] == "probe"
    assert found["training_seconds"] > 0
    write_probe(tmp_path, replace(PROBE, device="another machine"))
    assert expected_seconds(states, ["cpu"], tmp_path, {None: 600}) == {}


def test_each_model_and_method_is_probed_once() -> None:
    cells = list(cells_of("demo").values())
    chosen = representatives(cells)
    assert len(chosen) == 6
    assert {cell.fraction for cell in chosen} == {None, 1.0}


@pytest.mark.long
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


def test_nothing_to_do_is_nothing_to_probe() -> None:
    assert run_probe([], ProbeSettings(None, 1), ["cpu"], lambda key: None) == {}


def test_missing_data_is_one_line(tmp_path: Path) -> None:
    cell = cells_of("demo")["tiny-llama/lora/1%/seed0"]
    with pytest.raises(ZbenchError) as fault:
        run_probe([cell], ProbeSettings(tmp_path, 1), ["cpu"], lambda key: None)
    assert "\n" not in str(fault.value)


def is_alive(process: str) -> bool:
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())  # a zombie has none
    except FileNotFoundError:
        return False


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = parent.stdout.readline().strip()
    assert is_alive(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(worker)
