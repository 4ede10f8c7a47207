"""The Ray executor: what it refuses, how it places cells, and what becomes of lost ones.

On a real cluster of this machine, with made-up GPUs; see `tests.fixtures.ray_nodes`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.execution.ray_cluster.connection import connect
from harness.testing import Engine
from harness.testing.engines import Trial, processes_in
from tests.fixtures.ray_nodes import STORE_BYTES, RayNodes, descendants

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'zbench[ray]'")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]
TIMEOUT = 600.0
PACKAGE = Path(__file__).parents[2]


@pytest.fixture
def trial(ray_cluster: RayNodes, tmp_path: Path) -> Iterator[Trial]:
    """A folder with the grids of the laws, to be run on the cluster."""
    arguments = ("--executor", "ray", "--device", "cpu")
    trial = Trial(tmp_path / "trial", Engine(arguments, {"RAY_ADDRESS": ray_cluster.address}))
    yield trial
    for process in processes_in(trial.folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    ray_cluster.repair()


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


def refusal(done: subprocess.CompletedProcess[str], trial: Trial) -> str:
    """The one line with which a command was refused; it has begun nothing."""
    assert done.returncode == 2, done.stdout + done.stderr
    [line] = done.stderr.strip().splitlines()
    assert trial.cells() == {}
    assert not list(trial.runs_dir.rglob(".probe-*"))
    return line


def wait_for(reached: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.1)


# What is refused before anything runs.


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:PORT", "Connection refused"),
        ("nowhere.invalid:6379", "no Ray cluster at RAY_ADDRESS=nowhere.invalid:6379"),
        ("http://127.0.0.1:8265", "is no address of a cluster"),
        ("ray://127.0.0.1:10001", "is no address of a cluster"),
        ("local", "is no address of a cluster"),
    ],
)
def test_an_address_without_a_cluster_is_refused(
    address: str, said: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address.replace("PORT", str(free_port)))
    with pytest.raises(UsageError) as refused:
        connect()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not ray.is_initialized()


def test_a_server_that_is_no_cluster_is_given_up_in_time(trial: Trial) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        elsewhere = Trial(trial.folder, replace(trial.engine, environment={"RAY_ADDRESS": address}))
        done = elsewhere.run_grid("short.yaml", timeout=TIMEOUT)
    assert "no answer in 30 s" in refusal(done, trial)


def test_a_missing_ray_names_its_extra(trial: Trial) -> None:
    hidden = trial.folder / "hidden"
    hidden.mkdir()
    (hidden / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\")\n")
    path = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        done = trial.run_grid("short.yaml", timeout=TIMEOUT)
    assert "pip install 'zbench[ray]'" in refusal(done, trial)


def test_a_cluster_of_another_version_is_refused(ray_cluster: RayNodes, trial: Trial) -> None:
    """The cluster's own record, as another Ray or Python would have written it."""
    from ray._raylet import GcsClient

    client, key, place = GcsClient(address=ray_cluster.address), b"CLUSTER_METADATA", b"cluster"
    before = client.internal_kv_get(key, place)
    record = json.loads(before)
    assert record["ray_version"] == ray.__version__
    try:
        for name, other in (("ray_version", "2.9.3"), ("python_version", "3.10.1")):
            changed = json.dumps(record | {name: other}).encode()
            client.internal_kv_put(key, changed, True, place)
            line = refusal(trial.run_grid("short.yaml", timeout=TIMEOUT), trial)
            assert "the cluster has Ray " in line
            assert f"{other}" in line
            assert f"this is Ray {ray.__version__} on Python" in line
    finally:
        client.internal_kv_put(key, before, True, place)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "cuda:0,cuda:1"), "--device cuda:0,cuda:1: Ray chooses the GPUs"),
        (("--workers", "2"), "--workers: is for --executor local"),
        (("--sbatch", "--partition gpu"), "--sbatch: is for a scheduler"),
    ],
)
def test_options_of_other_executors_are_refused(
    arguments: tuple[str, ...], said: str, trial: Trial
) -> None:
    done = trial.run_grid("short.yaml", *arguments, timeout=TIMEOUT)
    assert said in refusal(done, trial)


def test_a_cell_that_no_node_could_take_is_refused(trial: Trial) -> None:
    """Ray would let it wait for ever, without a word."""
    for grid in ("short.yaml", "long.yaml"):
        path = trial.folder / grid
        path.write_text(path.read_text().replace("gpus_per_cell: 2", "gpus_per_cell: 3"))
    line = refusal(trial.run_grid("short.yaml", timeout=TIMEOUT), trial)
    assert "tiny-llama/lora/10%/seed0: needs 3 CPUs on one node" in line
    assert "nodes have at most 2 CPUs" in line
    done = trial.zbench("run-grid", "short.yaml", "--executor", "ray", timeout=TIMEOUT)
    assert "needs 3 GPUs and as many CPUs on one node" in refusal(done, trial)


def test_a_node_that_does_not_see_the_runs_folder_is_named(
    ray_cluster: RayNodes, trial: Trial
) -> None:
    """A raylet whose mounts hide it, as on a machine without the shared disk."""
    from ray._raylet import GcsClient

    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to make a mount namespace")
    trial.runs_dir.mkdir()
    start = (
        f"mount -t tmpfs none {trial.runs_dir} && exec {Path(sys.executable).parent}/ray start "
        f"--address {ray_cluster.address} --num-cpus 1 --object-store-memory {STORE_BYTES} --block"
    )
    with (trial.folder / "blind.log").open("w") as log:
        blind = subprocess.Popen(["unshare", "-m", "sh", "-c", start], stdout=log, stderr=log)
    try:
        client = GcsClient(address=ray_cluster.address)
        before = len(ray_cluster.raylets()) + 1

        def joined() -> bool:
            states = [info.state for info in client.get_all_node_info(timeout=10).values()]
            return states.count(0) > before  # 0: alive

        wait_for(joined)
        line = refusal(trial.run_grid("short.yaml", timeout=TIMEOUT), trial)
        assert "--executor ray: node " in line
        assert "not seen from" in line
        assert "choose a shared folder with --runs-dir" in line
    finally:
        for process in (blind.pid, *descendants(blind.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        blind.wait()


def test_a_dry_run_lists_the_tasks_and_runs_none(trial: Trial) -> None:
    (trial.folder / "site.yaml").write_text("setup: module load cuda\n")
    site = ("--cluster", "site.yaml")
    done = trial.run_grid("short.yaml", "--dry-run", *site, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "warning: setup of the site file is for Slurm" in done.stdout
    tasks = [line for line in lines if line[:5] in ("1 CPU", "2 CPU")]
    assert tasks[:2] == ["1 CPU: tiny-llama/base", "2 CPUs: tiny-llama/lora/10%/seed0"]
    assert len(tasks) == 4
    assert trial.cells() == {}


# Placement: Ray's own, with another body for the tasks.

BODIES = """
import json, os, sys, time
from harness.execution.on_node import on_own_devices
from harness.execution.devices import environment_of
from harness.execution.ray_cluster import executor
from harness.grid.status import read_states
from harness.records.events import CellEnded

def note(cell, plan, caller, restarts):
    import ray
    [state] = read_states([cell], runs_dir=plan.settings.runs_dir, data_root=None)
    begin, devices = time.time(), on_own_devices(state, plan).devices
    time.sleep(3)
    told = dict(label=cell.label, node=ray.get_runtime_context().get_node_id(), begin=begin,
                end=time.time(), devices=devices)
    if devices[0] != "cpu":
        told["gpus"] = [environment_of(device)["CUDA_VISIBLE_DEVICES"] for device in devices]
    with open(os.path.join(caller.folder, "notes"), "a") as file:
        file.write(json.dumps(told) + "\\n")
    yield [CellEnded(cell.id, str(state.folder), 3.0, "that was all")]

def mute(cell, plan, caller, restarts):
    return
    yield

def faulty(cell, plan, caller, restarts):
    raise RuntimeError("no such thing")
    yield

def dying(cell, plan, caller, restarts):
    os._exit(1)
    yield

executor.run_cell_task = globals()[sys.argv.pop(1)]
from harness.cli import main
sys.exit(main())
"""


def run_body(trial: Trial, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the short grid with another body for its tasks."""
    (trial.folder / "bodies.py").write_text(BODIES)
    command = ["bodies.py", body, "run-grid", "short.yaml", "--executor", "ray", *arguments]
    return subprocess.run(
        [sys.executable, *command], cwd=trial.folder, capture_output=True, text=True, check=False,
        timeout=TIMEOUT, env={**os.environ, **trial.engine.environment, "PYTHONPATH": str(PACKAGE)},
    )  # fmt: skip


def notes(trial: Trial) -> list[dict]:
    """What the tasks noted, by their begin."""
    lines = (trial.folder / "notes").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda note: note["begin"])


def test_a_cell_of_two_gpus_has_both_on_one_node_and_shares_none(trial: Trial) -> None:
    done = run_body(trial, "note")
    assert done.returncode == 1, done.stdout + done.stderr
    noted = notes(trial)
    assert len(noted) == 4
    [pair] = [one for one in noted if "lora" in one["label"]]
    assert pair["devices"] == ["cuda:0", "cuda:1"]
    assert sorted(pair["gpus"]) == ["0", "1"]
    for one in noted:
        for other in noted:
            together = one["begin"] < other["end"] and other["begin"] < one["end"]
            if one is not other and one["node"] == other["node"] and together:
                assert not {*one["gpus"]} & {*other["gpus"]}


def test_max_parallel_bounds_the_cells_and_base_models_come_first(trial: Trial) -> None:
    (trial.folder / "site.yaml").write_text("executor: ray\nmax_parallel: 1\n")
    done = run_body(trial, "note", "--device", "cpu", "--cluster", "site.yaml")
    assert done.returncode == 1, done.stdout + done.stderr
    noted = notes(trial)
    assert len(noted) == 4
    assert noted[0]["label"] == "tiny-llama/base"
    for one, following in zip(noted, noted[1:], strict=False):
        assert one["end"] <= following["begin"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("mute", "its task ended without a word"),
        ("faulty", "its task failed: RuntimeError: no such thing"),
    ],
)
def test_a_task_that_yields_no_end_is_a_failed_cell(trial: Trial, body: str, said: str) -> None:
    done = run_body(trial, body, "--device", "cpu", "--only", "base")
    assert done.returncode == 1, done.stderr
    assert f"tiny-llama/base: FAILED: {said}" in " ".join(done.stdout.split())
    [folder] = trial.cells().values()
    assert said in json.loads((folder / "result.json").read_text())["error"]["message"]
    assert "Traceback" not in done.stdout + done.stderr


def test_losses_without_progress_are_bounded(trial: Trial) -> None:
    (trial.folder / "site.yaml").write_text("max_requeues: 2\n")
    done = run_body(trial, "dying", "--device", "cpu", "--only", "base", "--cluster", "site.yaml")
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert said.count("its node or worker was lost (WorkerCrashedError); is scored on another") == 2
    assert "was lost 3 times in a row without progress" in said
    assert "max_requeues is 2" in said
