"""What is submitted to Slurm, without a Slurm: words, arrays, the script, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from harness.cell.settings import RunSettings
from harness.errors import UsageError
from harness.execution.plan import Place, RunPlan, place_of_options
from harness.execution.site import Site, read_site
from harness.execution.slurm import executor as executor_module
from harness.execution.slurm.cluster import gpus_of, said
from harness.execution.slurm.executor import SlurmExecutor
from harness.execution.slurm.queue import read_queue
from harness.execution.slurm.script import Array, arrays_of, sbatch_call, script_text
from harness.execution.slurm.submission import Submission
from harness.execution.slurm.words import Words, minutes_of, read_words
from harness.grid.resolver import resolve_grid
from harness.grid.schema import expand
from harness.grid.status import CellState, read_states
from tests.grid.test_loader import GRID


@pytest.fixture
def states(tmp_path: Path) -> list[CellState]:
    """Returns nine cells, of which the first is the untrained base; every other takes two GPUs."""
    cells = expand(resolve_grid(yaml.safe_load(GRID), place="g.yaml"))
    cells = [
        cell.model_copy(update={"gpus_per_cell": 2}) if number % 2 else cell
        for number, cell in enumerate(cells)
    ]
    return read_states(cells, runs_dir=tmp_path, data_root=None)


def plan_in(folder: Path, **place: object) -> RunPlan:
    settings = RunSettings(runs_dir=folder, data_root=folder)
    given = {"executor": "slurm", "device": "cuda", **place}
    return RunPlan(settings, place=Place(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30", 1.5), ("2:00:00", 120), ("1-0", 1440), ("1-2:03", 1563),
     ("0-00:00:30", 0.5), ("UNLIMITED", None), ("a:b", None)],
)  # fmt: skip
def test_time_limits_are_read_as_sbatch_reads_them(text: str, minutes: float | None) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("gpu:2", {"": 2}), ("gpu:a100:4(S:0-1)", {"a100": 4}), ("(null)", {}),
     ("gpu:a100:2,gpu:v100:1,nvme:900", {"a100": 2, "v100": 1}), ("tmpgpu:3", {})],
)  # fmt: skip
def test_a_nodes_gpus_are_counted_by_type(gres: str, gpus: dict[str, int]) -> None:
    assert gpus_of(gres) == gpus


def test_words_give_partition_time_and_type_of_gpu() -> None:
    given = "-p gpu --account=me -t 1-0 --gres gpu:a100:8 -c 4 --exclusive -J mine --mem 10G"
    found = read_words(given.split(), "--sbatch")
    assert found.partition == "gpu"
    assert found.minutes == 1440
    assert found.gpu_type == "a100"
    assert found.cpus
    assert found.job_name
    assert " ".join(found.kept) == ("-p gpu --account=me -t 1-0 -c 4 --exclusive -J mine --mem 10G")
    held = read_words(["-H", "--begin", "now+1hour", "-d", "afterok:3", "-p", "x", "--hold"], "x")
    assert held.at_once == ("-p", "x")
    assert len(held.kept) == 8
    assert read_words(["--gpus-per-node=2"], "x") == Words()


@pytest.mark.parametrize(
    ("word", "said_instead"),
    [("--array=0-3", "--only"), ("-a0-3", "--only"), ("-o x", "output file"), ("-G 2", "TYPE"),
     ("--wrap=true", "setup"), ("--signal=USR1@3", "warn_seconds"), ("-W", "--follow"),
     ("--no-requeue", "checkpoint"), ("-N 2", "one node"), ("--ntasks=4", "one task"),
     ("job.sh", "script")],
)  # fmt: skip
def test_what_is_zbenchs_own_is_refused_with_what_to_do(word: str, said_instead: str) -> None:
    with pytest.raises(UsageError, match=said_instead) as caught:
        read_words(word.split(), "s.yaml")
    assert "\n" not in str(caught.value)


def test_arrays_are_of_one_size_of_cell_and_no_longer_than_the_cluster_takes() -> None:
    found = arrays_of([1] * 5 + [2] * 2, max_array=3)
    assert found == [Array(0, 3, 1), Array(3, 2, 1), Array(5, 2, 2)]
    assert found[0].split(1) == (Array(0, 1, 1), Array(1, 2, 1))


def test_base_models_come_first_and_a_limit_holds_for_all_arrays(
    states: list[CellState], tmp_path: Path
) -> None:
    plan = plan_in(tmp_path, site=Site(max_parallel=3))
    submission = Submission(states, plan, read_words(["-p", "gpu"], "x"), max_array=4)
    assert submission.states[0].cell.method == "base"
    assert [state.cell.gpus_per_cell for state in submission.states] == [1] * 5 + [2] * 4
    calls = submission.shown().splitlines()[-3:]
    assert [f"--array={which}%3" in call for which, call in zip(
        ("0-3", "0-0", "0-3"), calls, strict=True)] == [True] * 3  # fmt: skip
    assert ["--dependency" in call for call in calls] == [False, True, True]
    assert [call.split("--gpus-per-node=")[1][0] for call in calls] == ["1", "1", "2"]


def test_cpu_cells_ask_for_cpus_unless_the_user_does(tmp_path: Path) -> None:
    call = sbatch_call(Array(0, 2, 3), tmp_path / "a%b", Words(), device="cpu")
    assert "--cpus-per-task=3" in call
    assert not any("gpu" in word for word in call)
    assert any(word.endswith("/a%%b/%A_%a.out") for word in call)
    own = sbatch_call(Array(0, 2, 3), tmp_path, Words(kept=("-c4",), cpus=True), device="cpu")
    assert not any(word.startswith("--cpus") for word in own)


SCRIPT_CASES = {
    "done": ([], "sys.exit(0)", 0, False),
    "failed": ([], "sys.exit(1)", 1, False),
    "time limit": ([signal.SIGUSR1], "time.sleep(30)", 130, True),
    "preempted or cancelled": ([signal.SIGTERM], "time.sleep(30)", 130, False),
    "cancelled in its last checkpoint": (
        [signal.SIGUSR1, signal.SIGTERM], "time.sleep(30)", 130, False),
    "time limit as Python starts": (
        [signal.SIGUSR1], "signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(30)", 143,
        True),
    "ended as the warning came": ([signal.SIGUSR1], "STOP = 0; time.sleep(30)", 0, False),
}  # fmt: skip


@pytest.mark.parametrize("case", SCRIPT_CASES)
def test_the_script_requeues_at_the_time_limit_alone(case: str, tmp_path: Path) -> None:
    """The script itself runs, with a `zbench` that obeys SIGTERM and an `scontrol` that notes."""
    signals, body, code, requeued = SCRIPT_CASES[case]
    program = tmp_path / "a cell.py"
    program.write_text(
        "import signal, sys, time\nSTOP = 130\n"
        "def stop(*_): time.sleep(0.3); sys.exit(STOP)\n"
        f"signal.signal(signal.SIGTERM, stop)\nopen({str(tmp_path / 'up')!r}, 'w')\n{body}\n"
    )
    (tmp_path / "bin").mkdir()
    note = tmp_path / "bin" / "scontrol"
    note.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    note.chmod(0o755)
    runner = tmp_path / "bin" / "runner"  # in the place of `python -m harness.execution.on_node`
    runner.write_text(f'#!/bin/sh\nexec {sys.executable} "{program}"\n')
    runner.chmod(0o755)
    script = tmp_path / "script.sh"
    site = Site(setup=(f"export ZBENCH_PYTHON={runner}",))
    script.write_text(script_text(tmp_path, site, sys.executable))
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
                                "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}  # fmt: skip
    job = subprocess.Popen(["bash", script, "3"], env=environment)
    end = time.monotonic() + 20
    while not (tmp_path / "up").exists() and time.monotonic() < end:
        time.sleep(0.02)
    for number in signals:
        time.sleep(0.1)
        job.send_signal(number)
    assert job.wait(20) == code
    assert (tmp_path / "requeued").exists() == requeued


@pytest.mark.parametrize(
    ("place", "told"),
    [({"workers": 2}, "--workers"), ({"device": "cuda:0"}, "cuda:0"),
     ({"site": Site(sbatch=("--time=2",))}, "warn_seconds")],
)  # fmt: skip
def test_options_that_fit_no_cluster_are_refused(
    place: dict[str, object], told: str, states: list[CellState], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        SlurmExecutor().prepare(states, plan_in(tmp_path, **place))
    assert "\n" not in str(caught.value)


def test_without_sbatch_nothing_is_submitted_and_a_dry_run_says_so(
    states: list[CellState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="not on PATH"):
        SlurmExecutor().prepare(states, plan_in(tmp_path))
    executor = executor_module.SlurmExecutor()
    plan = executor.prepare(states, plan_in(tmp_path, device="auto", dry_run=True))
    assert "sbatch: is not on PATH" in plan.notes[0]
    shown = executor.preview(states, plan)
    assert shown.count("\nsbatch ") == 2
    assert "harness.execution.on_node" in shown
    assert not (tmp_path / "slurm").exists()
    assert read_queue(tmp_path) == {}


def test_a_dry_run_needs_no_slurm_that_answers(
    states: list[CellState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "scontrol", "sinfo", "squeue"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UsageError, match="does not answer"):
        SlurmExecutor().prepare(states, plan_in(tmp_path))
    executor = SlurmExecutor()
    plan = executor.prepare(states, plan_in(tmp_path, device="auto", dry_run=True))
    assert "Slurm does not answer: scontrol: Unable to contact" in plan.notes[0]
    assert "harness.execution.on_node" in executor.preview(states, plan)


@pytest.mark.parametrize(
    "text", ["warn_seconds: 70000", "max_parallel: 0", "max_parallel: 99999999",
             "max_requeues: 1000000", "sbatch: '--a \"b'", "partition: gpu"],
)  # fmt: skip
def test_a_sites_faults_are_told_with_their_key(text: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"executor: slurm\n{text}\n")
    with pytest.raises(UsageError) as caught:
        read_site(path)
    assert text.split(":")[0] in str(caught.value)


def test_the_command_lines_words_come_after_those_of_the_site(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("executor: slurm\nsbatch: --partition a --time 60\n")
    place = place_of_options(executor=None, cluster=path, sbatch="--partition b")
    assert place.executor == "slurm"
    assert read_words(place.site.sbatch, "x").partition == "b"


def test_what_slurm_says_is_one_line() -> None:
    text = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission " \
        "failed: Invalid partition name specified\n"  # fmt: skip
    assert said(text) == (
        "invalid partition specified: x; Batch job submission failed: Invalid partition name "
        "specified"
    )
    assert said("") == "no message"
