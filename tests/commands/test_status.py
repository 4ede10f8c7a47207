"""`status`, once and again and again: what runs, where, since when and how far."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.cell.run import record_failure
from harness.commands import watch
from harness.commands.live import SILENT_SECONDS, Live, live_cells
from harness.commands.status import counts_line, status_command
from harness.commands.watch import watch_command
from harness.errors import TrainingError
from harness.execution.slurm.queue import QueuedCell
from harness.grid.folders import cell_folder
from harness.grid.locks import locked
from harness.grid.schema import Cell
from harness.grid.workspace import OpenGrid, open_grid
from harness.records.cell_progress import CellProgress
from harness.records.event_file import EventFiles
from harness.records.events import CellStarted, StepDone


@pytest.fixture
def grid(tmp_path: Path) -> OpenGrid:
    """The lora cells of the demo, none of them begun."""
    return open_grid("demo", tmp_path, None, "lora")


@contextlib.contextmanager
def running(cell: Cell, runs_dir: Path, *, ago: float = 60.0) -> Iterator[None]:
    """A cell that this process runs since a minute: at step 30 of 90."""
    folder, start = cell_folder(runs_dir, cell), int((time.time() - ago) * 1000)
    with locked(folder), EventFiles({cell.id: folder}) as files:
        files.write(CellStarted(cell.id, cell.label, 90, start))
        for step in range(1, 31):
            files.write(StepDone(cell.id, step, 0, 1.25, 1e-3, 1234.0, start + 2000 * step))
        yield


HERE = f"process {os.getpid()} on {platform.node()}"


def test_status_tells_where_a_cell_runs_and_how_far_it_is(
    grid: OpenGrid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = grid.cells[:2]
    record_failure(other, cell_folder(tmp_path, other), TrainingError("the loss is no number"))
    with running(one, tmp_path):
        assert status_command(grid, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 cells: 0 done, 1 running, 1 failed, 3 to do"
    far = "step 30 of 90, loss 1.250, 1,234 tokens/s, 2 min left of it"
    assert lines[1].startswith(f"running: {one.label}: {far}; {HERE}, since ")
    assert lines[1].endswith(("(60 s)", "(61 s)", "(62 s)", "(63 s)", "(64 s)"))
    assert lines[2] == f"failed:  {other.label}: the loss is no number"


def test_json_tells_the_same(
    grid: OpenGrid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(grid.cells[0], tmp_path):
        assert status_command(grid, as_json=True) == 0
    first, second, *_ = json.loads(capsys.readouterr().out)["cells"]
    told = first["running"]
    assert (told["process"], told["host"]) == (os.getpid(), platform.node())
    assert (told["part"], told["step"], told["total_steps"]) == ("training", 30, 90)
    assert (told["loss"], told["tokens_per_second"], told["seconds_left"]) == (1.25, 1234.0, 120.0)
    assert told["since"] < told["last_event"]
    assert "running" not in second


def test_only_the_files_of_running_cells_are_read(grid: OpenGrid, tmp_path: Path) -> None:
    one, other = grid.cells[:2]
    with running(other, tmp_path):
        pass  # it has ended
    with running(one, tmp_path):
        assert list(live_cells(grid.states)) == [one.id]


def test_a_silent_cell_is_said_to_be_silent() -> None:
    now = int(time.time() * 1000)
    spoke = Live(CellProgress(now - 10_000, now - 10_000))
    silent = Live(CellProgress(now, now - int(1000 * SILENT_SECONDS * 2)))
    assert spoke.silence == ""
    assert silent.silence == "no word for 20 min"
    assert Live(CellProgress()).silence == Live(CellProgress()).since == ""


def watched(
    grid: OpenGrid, monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds: float
) -> tuple[int, str]:
    """Watches a grid to the end; returns the exit code and all that was shown."""
    screen = Console(width=200, height=50, force_terminal=terminal, record=True, quiet=False)
    monkeypatch.setattr(watch, "console", lambda: screen)
    code = watch_command(grid, seconds=seconds)
    return code, screen.export_text()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_watch_ends_when_nothing_runs_any_more(
    grid: OpenGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    one, other = grid.cells[:2]
    over = threading.Event()

    def run() -> None:
        with running(one, tmp_path):
            began.set()
            over.wait(30)
            record_failure(one, cell_folder(tmp_path, one), TrainingError("it broke"))

    began = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    began.wait(30)
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.5)
    timer = threading.Timer(1.0, over.set)
    timer.start()
    code, told = watched(grid, monkeypatch, terminal=terminal, seconds=0.2)
    thread.join()
    assert code == 0
    assert over.is_set()
    first = told.index("1 running, 0 failed, 4 to do")
    assert first < told.index(f"failed:  {one.label}: it broke")
    assert told.count("step 30 of 90") >= (1 if terminal else 2)
    assert f"to do:   {other.label}: training" in told.splitlines()


def test_a_failure_is_in_the_log_at_once_and_once(
    grid: OpenGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = grid.cells[:2]
    looks: list[float] = []

    def next_look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            record_failure(other, cell_folder(tmp_path, other), TrainingError("it broke"))
        if len(looks) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", next_look)
    with running(one, tmp_path):
        code, told = watched(grid, monkeypatch, terminal=False, seconds=3600.0)
    assert code == 0  # ctrl-C is how one leaves
    assert told.count("cells: ") == 1
    assert told.count("it broke") == 1
    assert all(seconds >= watch.LOOK_SECONDS for seconds in looks)


def test_a_finished_grid_is_shown_once(grid: OpenGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    done = open_grid("demo", grid.runs_dir, None, "lora/100%")
    record_failure(
        done.cells[0], cell_folder(grid.runs_dir, done.cells[0]), TrainingError("it broke")
    )
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: pytest.fail("nothing to wait for"))
    code, told = watched(done, monkeypatch, terminal=False, seconds=1.0)
    assert code == 0
    assert "1 cells: 0 done, 0 running, 1 failed, 0 to do" in told


JOB = QueuedCell(
    cell_id="", job="123_4", running=False, state="PENDING", node="", since="2026-11-30T21:24:12",
    time_left="8:00:00", reason="Resources", output=Path("123_4.out"),
)  # fmt: skip


def test_queued_cells_are_told_with_their_job_and_reason(grid: OpenGrid, tmp_path: Path) -> None:
    first, second, third, *_ = grid.cells
    record_failure(second, cell_folder(tmp_path, second), TrainingError("it broke"))
    on_node = replace(JOB, running=True, state="RUNNING", node="node7", reason="None")
    jobs = {first.id: on_node, second.id: JOB, third.id: replace(on_node, job="123_5")}
    with running(first, tmp_path):
        live = live_cells(grid.states, jobs)
        counts = counts_line(grid.states, live)
    assert counts == "5 cells: 0 done, 1 running, 2 queued, 0 failed, 2 to do"
    assert str(live[first.id]).split("; ")[1].startswith("job 123_4 on node7, since ")
    assert str(live[second.id]) == "job 123_4, pending since 30 Nov 21:24 (Resources)"
    assert str(live[third.id]) == "job 123_5 on node7, running since 30 Nov 21:24"
    assert live[first.id].record()["step"] == 30
    assert live[first.id].record()["job"] == "123_4"
    told = live[second.id].record()
    assert (told["job"], told["queue_reason"]) == ("123_4", "Resources")
    assert "step" not in told


def test_a_waiting_job_is_not_the_place_of_a_cell_that_another_process_runs(
    grid: OpenGrid, tmp_path: Path
) -> None:
    with running(grid.cells[0], tmp_path):
        live = live_cells(grid.states, {grid.cells[0].id: JOB})
    assert live[grid.cells[0].id].place == HERE


def test_a_watch_goes_on_while_cells_are_queued(
    grid: OpenGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def queue(folders: object, before: object = None) -> dict[str, QueuedCell]:
        nonlocal looks
        looks += 1
        return {grid.cells[0].id: JOB} if looks < 4 else {}

    monkeypatch.setattr(watch, "queued_jobs", queue)
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: None)
    code, told = watched(grid, monkeypatch, terminal=False, seconds=0.001)
    assert code == 0
    assert looks == 5  # and once more for the end
    assert f"queued:  {grid.cells[0].label}: job 123_4, pending since 30 Nov 21:24" in told
