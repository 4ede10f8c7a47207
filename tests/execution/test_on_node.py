"""One cell on the machine of a scheduler's job: its file, its waiting, its exit codes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.cell.settings import RunSettings
from harness.errors import UsageError
from harness.execution import on_node
from harness.execution.node_job import job_of, read_job, write_job
from harness.execution.on_node import main, on_own_devices, run_on_node
from harness.execution.plan import Place, RunPlan
from harness.execution.site import Site
from harness.grid.folders import cell_folder
from harness.grid.loader import load_grid, shipped_grids
from harness.grid.resolver import resolve_grid
from harness.grid.schema import Cell, expand
from harness.grid.status import read_states
from harness.records.environment import placed_by
from harness.records.events import CellEnded
from tests.grid.test_loader import GRID


@pytest.fixture
def cells() -> list[Cell]:
    """Returns cells whose model is not there: each fails as soon as it is looked for."""
    return expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))[:3]


def plan_in(folder: Path, **place: object) -> RunPlan:
    settings = RunSettings(runs_dir=folder, data_root=folder)
    return RunPlan(settings, place=replace(Place(device="cpu"), **place))  # type: ignore[arg-type]


def job_file(cells: list[Cell], folder: Path, **site: object) -> Path:
    """The file of a submission of these cells."""
    plan = plan_in(folder, site=Site.model_validate(site))
    path = folder / "slurm" / "now" / "cells.json"
    write_job(path, job_of(cells, plan, None, logs=False))
    return path


@pytest.mark.parametrize("name", sorted(shipped_grids()))
def test_a_job_file_holds_the_cells_of_every_shipped_grid(name: str, tmp_path: Path) -> None:
    cells = expand(load_grid(name))
    read = read_job(job_file(cells, tmp_path))
    assert read.cells == tuple(cells)
    assert [cell.id for cell in read.cells] == [cell.id for cell in cells]


def test_paths_beside_the_grid_file_are_found_from_a_job(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    cell = expand(grid)[1]
    beside = {"model": cell.model.beside(tmp_path / "x"), "data": cell.data.beside(tmp_path / "y")}
    [read] = read_job(job_file([cell.model_copy(update=beside)], tmp_path)).cells
    assert read.model.grid_folder == tmp_path / "x"
    assert read.data.grid_folder == tmp_path / "y"


def test_a_job_logs_to_a_server_alone(cells: list[Cell], tmp_path: Path) -> None:
    grid = resolve_grid(yaml.safe_load(GRID), place="g.yaml")
    logging = {}
    for uri in ("http://host:5000", "sqlite:////x/mlflow.db", None):
        path = tmp_path / "job.json"
        write_job(path, job_of(cells, plan_in(tmp_path, tracking_uri=uri), grid, logs=True))
        found = read_job(path)
        logging[uri] = found.grid and (found.grid.name, found.plan.place.tracking_uri)
    assert logging == {
        "http://host:5000": ("tiny", "http://host:5000"),
        "sqlite:////x/mlflow.db": None,
        None: None,
    }
    followed = job_of(cells, plan_in(tmp_path, tracking_uri="http://h:1"), grid, logs=False)
    assert followed.grid is None


def test_a_file_that_is_no_job_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text('{"format": 99}')
    (tmp_path / "b.json").write_text("[1]")
    assert [main([str(tmp_path / name), "0"]) for name in ("a.json", "b.json", "c.json")] == [2] * 3
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert "another version" in told[0]


def test_a_cell_that_its_predecessor_still_holds_is_waited_for(
    cells: list[Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It fails then, with its reason and exit code 1: its model is not there."""
    monkeypatch.setattr(on_node, "RETRY_SECONDS", 0.1)
    code = "\n".join((
        "import sys; from pathlib import Path; from harness.grid.locks import locked",
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()",
    ))  # fmt: skip
    folder = cell_folder(tmp_path, cells[0])
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    found = run_on_node(cells[0], plan_in(tmp_path), wait_seconds=0.3)
    assert [event.elsewhere for event in found if isinstance(event, CellEnded)] == [True]
    threading.Timer(1.0, other.stdin.close).start()
    began = time.monotonic()
    assert main([str(job_file(cells, tmp_path)), "0"]) == 1
    assert time.monotonic() - began > 1
    assert other.wait(10) == 0
    assert f"{cells[0].label}: FAILED: " in capsys.readouterr().out
    states = read_states(cells, runs_dir=tmp_path, data_root=tmp_path)
    assert [state.status for state in states] == ["failed", "to do", "to do"]


def test_a_cell_that_comes_no_further_is_given_up(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three starts without progress are two too many where one requeue is allowed."""
    begun = []

    def stopped(cell: Cell, plan: RunPlan) -> object:
        begun.append(cell.id)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(on_node, "run_on_node", stopped)
    path = job_file(cells, tmp_path, max_requeues=1)
    assert [main([str(path), "0"]) for _ in range(2)] == [130, 130]
    checkpoint = cell_folder(tmp_path, cells[0]) / "checkpoints" / "step-00000007"
    checkpoint.mkdir(parents=True)
    assert [main([str(path), "0"]) for _ in range(3)] == [130, 130, 1]  # once further, then not
    assert len(begun) == 4
    [state] = read_states(cells[:1], runs_dir=tmp_path, data_root=tmp_path)
    assert state.status == "failed"
    assert state.fault is not None
    assert "max_requeues: 1" in state.fault


def test_a_slurm_job_without_gpus_of_its_own_takes_none(
    cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [state] = read_states(cells[:1], runs_dir=tmp_path, data_root=tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for device in ("auto", "cuda"):
        with pytest.raises(UsageError, match="no GPUs of its own"):
            on_own_devices(state, plan_in(tmp_path, device=device))
    assert on_own_devices(state, plan_in(tmp_path)).devices == ("cpu",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    found = on_own_devices(state, plan_in(tmp_path, device="cuda"))
    assert found.devices == ("cuda:0",)


def test_a_cpu_device_has_one_thread_on_any_machine(cells: list[Cell], tmp_path: Path) -> None:
    wide = cells[1].model_copy(update={"gpus_per_cell": 3})
    [state] = read_states([wide], runs_dir=tmp_path, data_root=tmp_path)
    found = on_own_devices(state, plan_in(tmp_path))
    assert found.devices == ("cpu",) * 3
    assert found.settings.threads == 1


def test_a_result_names_the_job_that_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT")
    for name in names:
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    assert placed_by() == {}
    for name, value in zip(names, ("12", "10", "3", "2"), strict=True):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert placed_by() == {"job": "Slurm 10_3", "restarts": "2"}
