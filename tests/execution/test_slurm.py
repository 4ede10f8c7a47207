"""The Slurm executor on a real Slurm of this machine: what is refused, queued, split and lost."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cell.settings import RunSettings
from harness.errors import UsageError
from harness.execution.plan import Place, RunPlan
from harness.execution.site import Site
from harness.execution.slurm import follower
from harness.execution.slurm.executor import SlurmExecutor
from harness.execution.slurm.probe import keep
from harness.execution.slurm.queue import read_queue
from harness.grid.schema import Cell
from harness.grid.status import CellState, read_states
from harness.records.events import CellEnded, CellQueued, Event
from harness.testing import CellAtWork
from harness.testing.engines import Trial, events_of, finish, measured
from harness.testing.executor_laws import reference_run
from harness.testing.loss_laws import LONG
from tests.fixtures.slurm import Slurm, needs_slurm, slurm_cluster, slurm_engine

pytestmark = [pytest.mark.slurm, needs_slurm]

HELD = ("--sbatch", "--hold")
"""Jobs that wait until their user lets them go."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    """Returns a cluster of two nodes with two made-up GPUs each, and arrays of two cells."""
    with slurm_cluster("--gpus", "2", "--max-array", "2") as started:
        yield started


@pytest.fixture
def here(cluster: Slurm, tmp_path: Path) -> Iterator[Trial]:
    """Returns a folder with the laws' grids; its jobs end with the test."""
    yield Trial(tmp_path / "own", slurm_engine(cluster))
    cluster.call("scancel", "--me")


def submit(trial: Trial, *arguments: str) -> subprocess.CompletedProcess[str]:
    engine = trial.engine
    assert engine.submit is not None
    return trial.zbench("run-grid", "short.yaml", *engine.submit, *arguments, timeout=120)


def jobs_of(trial: Trial, cluster: Slurm, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    return {key: one.job for key, one in read_queue(trial.runs_dir).items()}


def test_what_is_queued_is_not_submitted_again(
    here: Trial, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit(here, *HELD)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "submitted: 4 cells" in first.stdout
    assert "Slurm, partition normal of here (CPUs)" in first.stdout
    jobs = jobs_of(here, cluster, monkeypatch)
    assert len(jobs) == 4
    assert sorted(one.partition("_")[2] for one in jobs.values()) == ["0", "0", "0", "1"]
    (folder,) = (here.runs_dir / "slurm").glob("2*")
    assert {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077} == {
        "ids.txt", "starts"
    }  # fmt: skip
    listed = (folder / "ids.txt").read_text().splitlines()
    assert {line.split()[0] for line in listed} == jobs.keys()
    assert "base" in listed[0]
    assert [line for line in listed if "lora" in line] == [listed[-1]]
    second = submit(here, *HELD)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "in the queue since an earlier command: 4 cells" in second.stdout
    assert "submitted: " not in second.stdout
    assert jobs_of(here, cluster, monkeypatch) == jobs
    line = next(line for line in second.stdout.splitlines() if "scancel" in line)
    subprocess.run(line.split("`")[1].split(), env=os.environ | cluster.environment, check=True)
    assert jobs_of(here, cluster, monkeypatch) == {}


def test_two_commands_at_once_submit_each_cell_once(
    here: Trial, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(here.runs_dir, "partition normal of here", "machines")
    engine = here.engine
    assert engine.submit is not None
    both = [here.start("run-grid", "short.yaml", *engine.submit, *HELD) for _ in range(2)]
    done = [finish(one, 120) for one in both]
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    said = sorted("submitted: 4 cells" in one.stdout for one in done)
    assert said == [False, True]
    assert len(cluster.queue()) == len(jobs_of(here, cluster, monkeypatch)) == 4


def test_a_cell_whose_job_is_being_cancelled_is_submitted_again(
    here: Trial, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job lives on for some seconds, as one that writes its checkpoint does."""
    (here.folder / "site.yaml").write_text("setup: \"trap '' TERM\\ntouch up\\nsleep 60\"\n")
    keep(here.runs_dir, "partition normal of here", "machines")
    first = submit(here, "--only", "base", "--cluster", "site.yaml")
    assert first.returncode == 0, first.stderr
    (job,) = jobs_of(here, cluster, monkeypatch).values()
    cluster.wait_for(job, "RUNNING")
    end = time.monotonic() + 30
    while not (here.folder / "up").exists() and time.monotonic() < end:
        time.sleep(0.1)
    cluster.call("scancel", job)
    assert "COMPLETING" in " ".join(cluster.queue())
    second = submit(here, "--only", "base", *HELD)
    assert "submitted: 1 cell" in second.stdout, second.stdout + second.stderr
    (again,) = jobs_of(here, cluster, monkeypatch).values()
    assert again != job


def test_status_knows_what_waits_and_why(
    here: Trial, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert submit(here, *HELD, "--only", "base").returncode == 0
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    (one,) = read_queue(here.runs_dir).values()
    assert (one.state, one.running, one.node, one.reason) == ("PENDING", False, "", "JobHeldUser")
    assert abs(time.time() - time.mktime(time.strptime(one.since, "%Y-%m-%dT%H:%M:%S"))) < 120
    assert read_queue(here.folder) == {}
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("PATH", str(here.folder))
        with pytest.raises(UsageError):
            read_queue(here.runs_dir)


def test_a_dry_run_submits_nothing(here: Trial, cluster: Slurm) -> None:
    done = submit(here, "--dry-run")
    assert done.returncode == 0, done.stderr
    calls = [line for line in done.stdout.splitlines() if line.startswith("sbatch ")]
    assert [call.split("--array=")[1].split()[0] for call in calls] == ["0-1", "0-0", "0-0"]
    assert cluster.queue() == []
    assert not (here.runs_dir / "slurm").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [("--partition nope", "no such partition (known: normal, short, urgent)"),
     ("--time=soon", "Invalid --time specification"),
     ("--constraint h100", "Invalid feature"),
     ("--array=1-3", "--only"), ("-p 'a", "see to its quotes")],
)  # fmt: skip
def test_what_slurm_would_refuse_is_refused_in_one_line(
    words: str, told: str, here: Trial, cluster: Slurm
) -> None:
    done = submit(here, "--sbatch", words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert cluster.queue() == []


def test_a_type_of_gpu_that_no_node_has_is_refused(here: Trial) -> None:
    done = submit(here, "--device", "cuda", "--sbatch", "--gpus-per-node h100")
    assert done.returncode == 2
    assert "no GPUs of type h100" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_controller_that_does_not_answer_is_named(here: Trial, cluster: Slurm) -> None:
    text = Path(cluster.environment["SLURM_CONF"]).read_text()
    wrong = here.folder / "slurm.conf"
    wrong.write_text(
        "\n".join(
            "SlurmctldPort=1" if line.startswith("SlurmctldPort=") else line
            for line in text.splitlines()
        )
    )
    engine = replace(here.engine, environment={"SLURM_CONF": str(wrong)})
    done = submit(replace(here, engine=engine))
    assert done.returncode == 2
    assert "Slurm does not answer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a folder")
def test_a_runs_folder_that_nodes_do_not_see_is_refused(here: Trial, cluster: Slurm) -> None:
    here.runs_dir.mkdir()
    inner = " ".join(
        [f"mount -t tmpfs none runs && exec {shlex.quote(sys.executable)} -m harness.cli",
         "run-grid short.yaml", *here.engine.arguments]
    )  # fmt: skip
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", inner],
        cwd=here.folder, env=here._environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "do not see it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert cluster.queue() == []


def test_a_python_that_nodes_do_not_have_is_told(here: Trial, cluster: Slurm) -> None:
    (here.folder / "site.yaml").write_text("setup: export ZBENCH_PYTHON=/nowhere/python\n")
    done = submit(here, "--cluster", "site.yaml")
    assert done.returncode == 2
    assert "/nowhere/python: No such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert cluster.queue() == []


def test_a_site_that_takes_few_jobs_gets_the_rest_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four jobs are accepted; the same command submits the fourth once there is room."""
    with slurm_cluster("--most", "3") as small:
        trial = Trial(tmp_path / "own", slurm_engine(small))
        first = submit(trial, *HELD)
        said = " ".join((first.stdout + first.stderr).split())
        assert first.returncode == 1, said
        assert "submitted: 3 cells" in said
        assert "takes no more jobs now" in said
        assert "1 cells wait" in said
        before = jobs_of(trial, small, monkeypatch)
        assert len(before) == 3
        (small.folder / "room").write_text("10\n")
        second = submit(trial, *HELD)
        assert second.returncode == 0, second.stdout + second.stderr
        assert "submitted: 1 cell" in second.stdout
        after = jobs_of(trial, small, monkeypatch)
        assert before.items() < after.items()
        assert len(after) == 4


def test_who_leaves_the_jobs_is_told_how_to_end_them(
    here: Trial, cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = here.start_grid("short.yaml", *HELD)
    end = time.monotonic() + 120
    while len(cluster.queue()) < 4:
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(1)
    command.send_signal(signal.SIGINT)
    done = finish(command, 60)
    assert done.returncode == 130
    assert "`scancel " in done.stdout
    assert len(jobs_of(here, cluster, monkeypatch)) == 4


@pytest.fixture
def states(here: Trial) -> list[CellState]:
    from harness.grid.loader import load_grid
    from harness.grid.schema import expand

    cells = expand(load_grid(here.folder / "short.yaml"))
    return read_states(cells, runs_dir=here.runs_dir, data_root=None)


def followed(
    states: list[CellState], trial: Trial, cluster: Slurm, patch: pytest.MonkeyPatch, **site: object
) -> list[Event]:
    """What a follower of these cells is told, in a cluster whose nodes see the folder."""
    patch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    patch.setattr(follower, "LATE_SECONDS", 1.0)
    patch.setattr(follower, "QUEUE_SECONDS", 0.5)
    keep(trial.runs_dir, "partition normal of here", "machines")
    place = Place("slurm", site=Site.model_validate(site), follow=True)
    settings = RunSettings(runs_dir=trial.runs_dir, data_root=None)
    executor = SlurmExecutor()
    plan = executor.prepare(states, RunPlan(settings, place=place))
    return list(executor.run(states, plan))


def test_each_cell_has_gpus_of_its_own_and_a_lost_job_is_told_with_its_output(
    here: Trial, cluster: Slurm, states: list[CellState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that end without a word: `setup` ends them before their cell begins."""
    setup = 'echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"\nsleep 2\necho broken here\nexit 3'
    told = followed(states, here, cluster, monkeypatch, setup=setup)
    queued = {event.cell_id: event.job for event in told if isinstance(event, CellQueued)}
    ended = {event.cell_id: event.error for event in told if isinstance(event, CellEnded)}
    assert queued.keys() == ended.keys() == {state.cell.id for state in states}
    outputs = {path.stem: path for path in here.runs_dir.glob("slurm/*/*.out")}
    devices: dict[str, list[str]] = {}
    for state in states:
        error, job = ended[state.cell.id], queued[state.cell.id]
        assert error is not None
        assert f"its job {job} has left the queue without a result (FAILED)" in error
        assert f"{outputs[job]}: broken here" in error
        node, numbers = outputs[job].read_text().splitlines()[0].split()
        assert len(numbers.split(",")) == state.cell.gpus_per_cell
        devices.setdefault(node, []).extend(numbers.split(","))
    started = {job: cluster.facts(job)["StartTime"] for job in queued.values()}
    assert len(devices) == 2  # five GPUs on two nodes of two: some came after others
    assert len(set(started.values())) > 1


def test_a_cancelled_job_is_told_as_that(
    here: Trial, cluster: Slurm, states: list[CellState], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = [state for state in states if state.cell.method == "base"]
    setup = f'scancel "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"\nsleep 60\n: {here.folder}'
    told = followed(base, here, cluster, monkeypatch, setup=setup)
    (ended,) = (event for event in told if isinstance(event, CellEnded))
    assert ended.error is not None
    assert "was cancelled" in ended.error
    assert read_states([base[0].cell], runs_dir=here.runs_dir, data_root=None)[0].status == "to do"


def test_prepare_alone_refuses_a_cell_that_no_node_can_hold(
    here: Trial, cluster: Slurm, states: list[CellState], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    wide: Cell = states[-1].cell.model_copy(update={"gpus_per_cell": 3})
    settings = RunSettings(runs_dir=here.runs_dir, data_root=None)
    for device in ("cuda", "cpu"):
        plan = RunPlan(settings, place=Place("slurm", device=device))
        with pytest.raises(UsageError, match="the largest node of partition normal gives 2"):
            SlurmExecutor().prepare([replace(states[-1], cell=wide)], plan)


# What happens to a training: see also the laws.


@pytest.fixture(scope="module")
def long_reference(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """The long cell as this machine trains it."""
    return reference_run(tmp_path_factory, "long")


def whole(trial: Trial, reference: Trial) -> bool:
    """Whether the long cell ended with the bits of an undisturbed run."""
    return measured(trial.cells()[LONG]) == measured(reference.cells()[LONG])


def environment_of(trial: Trial) -> dict[str, str]:
    result = json.loads((trial.cells()[LONG] / "result.json").read_text())
    found: dict[str, str] = result["environment"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_cancelled_training_leaves_a_checkpoint_and_is_not_brought_back(
    here: Trial, cluster: Slurm, long_reference: Trial
) -> None:
    command = here.start_grid("seldom.yaml")
    cell = here.wait_for_cell(command, 600)
    job = here_job(cluster, cell)
    assert here.engine.cancel is not None
    here.engine.cancel(cell)
    done = finish(command, 300)
    assert done.returncode == 1
    assert f"its job {job} was cancelled" in done.stdout
    cluster.wait_for(job, "CANCELLED")
    assert cell.checkpoint >= 30
    time.sleep(5)
    assert cluster.queue() == []
    again = here.run_grid("seldom.yaml", timeout=900)
    assert again.returncode == 0, again.stdout + again.stderr
    assert whole(here, long_reference)


def here_job(cluster: Slurm, cell: CellAtWork) -> str:
    return cluster.job_of(cell).job


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_its_time_limit_a_job_queues_again_with_a_checkpoint(
    here: Trial, cluster: Slurm, long_reference: Trial
) -> None:
    """Two minutes, of which the last 30 to 90 seconds are the warning's: Slurm is not exact."""
    site = here.folder / "site.yaml"
    site.write_text(f"sbatch: -p short --time 2\nwarn_seconds: 30\n# {here.folder}\n")
    grid = (here.folder / "seldom.yaml").read_text().replace("epochs: 12", "epochs: 1000")
    (here.folder / "seldom.yaml").write_text(grid)  # longer than the limit on any machine
    command = here.start_grid("seldom.yaml", "--cluster", "site.yaml")
    cell = here.wait_for_cell(command, 600)
    job = here_job(cluster, cell)
    cluster.wait_for(job, "PENDING", seconds=240)
    assert cell.checkpoint >= 30
    checkpoint = cell.checkpoint
    cluster.at_once(job)
    cluster.wait_for(job, "RUNNING")
    assert cluster.facts(job)["Restarts"] == "1"
    here.wait_until(command, lambda one: one.step > checkpoint, 240)
    assert sum(getattr(event, "restored", False) for event in events_of(cell.folder)) == checkpoint
    command.send_signal(signal.SIGINT)
    assert finish(command, 60).returncode == 130


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_preempted_job_that_is_warned_first_queues_once(
    tmp_path: Path, long_reference: Trial
) -> None:
    """USR1 comes as the grace begins: the script requeues, and Slurm does not do so again."""
    with slurm_cluster("--user-signal", "1", "--grace", "30") as cluster:
        trial = Trial(tmp_path / "own", slurm_engine(cluster, halts=False))
        command = trial.start_grid("seldom.yaml")
        cell = trial.wait_for_cell(command, 600)
        job = here_job(cluster, cell)
        assert trial.engine.preempt is not None
        trial.engine.preempt(cell)
        done = finish(command, 900)
        assert done.returncode == 0, done.stdout + done.stderr
        assert cluster.facts(job)["Restarts"] == "1"
        assert environment_of(trial)["restarts"] == "1"
        assert environment_of(trial)["job"] == f"Slurm {job}"
        assert whole(trial, long_reference)
