"""One grid from two machines that see one folder through mounts of their own: each cell once."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from harness.grid.lease import LEASE_VARIABLE, holder_of
from harness.records.events import StepDone
from harness.testing.engines import Engine, Trial, events_of, finish, measured, processes_in
from tests.fixtures.machines import as_machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LONG = "tiny-llama-zero-init-linear-50pct-seed0"


def machine(folder: Path, name: str, mount: Path) -> Trial:
    """A machine of this name, which runs the grids through a mount."""
    environment = {**as_machine(folder, name), LEASE_VARIABLE: "8"}
    engine = Engine(arguments=("--device", "cpu", "--workers", "1"), environment=environment)
    return Trial(mount / "trial", engine)


def signal_all(command: subprocess.Popen[str], number: signal.Signals) -> None:
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    for process in (command.pid, *map(int, children)):
        os.kill(process, number)


@pytest.mark.parametrize("what", ["killed", "suspended"])
def test_a_cell_of_a_lost_machine_is_trained_on_by_another_and_by_it_alone(
    mounts: tuple[Path, Path], tmp_path: Path, what: str
) -> None:
    whole = Trial(tmp_path / "whole", Engine(arguments=("--device", "cpu")))
    done = whole.run_grid("long.yaml", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    one, other = (
        machine(tmp_path, name, mount)
        for name, mount in zip(("node1", "node2"), mounts, strict=True)
    )
    first = one.start_grid("long.yaml", "--tracking-uri", "none")
    cell = one.wait_for_cell(first, 300)
    assert holder_of(cell.folder).identity.startswith("node1:")
    signal_all(first, signal.SIGKILL if what == "killed" else signal.SIGSTOP)
    second = other.start_grid("long.yaml", "--tracking-uri", "none")
    if what == "suspended":
        other.wait_until(
            second, lambda cell: holder_of(cell.folder).identity.startswith("node2:"), 300
        )
        signal_all(first, signal.SIGCONT)
        back = finish(first, 600)
        assert "Traceback" not in back.stdout + back.stderr
        assert back.returncode in (0, 1)  # 0 where the other was faster
        assert "FAILED" not in back.stdout
    taken = finish(second, 600)
    assert taken.returncode == 0, taken.stdout + taken.stderr
    folder = other.cells()[LONG]
    assert measured(folder) == measured(whole.cells()[LONG])
    steps = [event for event in events_of(folder) if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, len(steps) + 1))
    assert any(event.restored for event in steps)
    assert not list(folder.glob(".lease-*"))
    assert not processes_in(one.folder) | processes_in(other.folder)
