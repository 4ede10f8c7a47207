from __future__ import annotations

import re
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from harness.grid.shared_folder import REACH_FILE, keep_reach
from harness.grid.workspace import open_grid
from harness.prepare.doctor import hardware, network, scheduler, software, storage
from harness.prepare.doctor.checks import CHECKS, check_grid, is_hanging, run_checks
from harness.prepare.doctor.finding import Check, Context, Finding
from harness.records.prefetched import write_manifest
from tests.fixtures.hub_server import TOKEN, Hub
from tests.fixtures.hub_study import GRID

SMI = """\
#!/bin/sh
case "$*" in
  *query-gpu*) echo "0, NVIDIA A100-SXM4-80GB, 81920, {used}, 550.54, GPU-abc" ;;
  -L) echo "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-abc)" ;;
  *) echo "| NVIDIA-SMI 550.54   Driver Version: 550.54   CUDA Version: 12.4 |" ;;
esac
"""


def found(check: Check, context: Context) -> list[Finding]:
    return list(check(context))


def only(check: Check, context: Context) -> Finding:
    (finding,) = check(context)
    return finding


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """This machine for a runs folder that is new; neither Slurm nor a GPU is seen."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    for name in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS", "SLURM_JOB_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return Context(runs_dir=tmp_path / "runs")


def with_gpu(tmp_path: Path, used: int = 0) -> None:
    """Puts an nvidia-smi on the path that knows one GPU: no real one is on a test machine."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(SMI.format(used=used))
    program.chmod(0o755)


def with_grid(tmp_path: Path, **settings: object) -> Context:
    (tmp_path / "away.yaml").write_text(GRID)
    grid = open_grid(str(tmp_path / "away.yaml"), tmp_path / "runs", None, None)
    return Context(runs_dir=tmp_path / "runs", grid=grid, **settings)  # type: ignore[arg-type]


def test_every_check_of_the_modules_is_run() -> None:
    modules = (hardware, network, scheduler, software, storage)
    own = {
        value
        for module in modules
        for name, value in vars(module).items()
        if name.startswith("check_") and value.__module__ == module.__name__
    }
    assert own == {*CHECKS[1:]}


def test_a_check_that_hangs_or_fails_hides_no_other(here: Context) -> None:
    released = threading.Event()

    def check_stuck_disk(context: Context) -> Iterator[Finding]:
        released.wait(60)
        yield Finding("never", "ok", "told too late")

    def check_broken(context: Context) -> Iterator[Finding]:
        yield Finding("first", "ok", "told before")
        raise RuntimeError("token=hf_abcdefghijklmnopqrstuvwx12")

    start = time.monotonic()
    told = run_checks(here, [check_stuck_disk, check_broken, software.check_python], 1.0)
    assert time.monotonic() - start < 20
    assert is_hanging()
    released.set()
    assert [(one.name, one.status) for one in told[:3]] == [
        ("stuck disk", "error"),
        ("first", "ok"),
        ("broken", "unknown"),
    ]
    assert "no answer within 1 s" in told[0].said
    assert "hf_abc" not in told[2].said
    assert told[3].name == "python"


def test_only_a_grid_that_cannot_be_read_leaves_checks_out(here: Context, tmp_path: Path) -> None:
    unread, read = (
        Context(here.runs_dir, grid_faults=("no",)),
        with_grid(tmp_path, grid_faults=("no",)),
    )
    assert "left out" in next(check_grid(unread)).advice
    assert next(check_grid(read)).advice == "correct it"


def test_versions_outside_the_stated_ranges_are_named(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(software.check_packages, here).status == "ok"
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.0" if name == "torch" else real(name))
    finding = only(software.check_packages, here)
    assert finding.status == "error"
    assert finding.said.startswith("torch 1.0 is not ")
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    assert only(software.check_python, here).status == "error"


def test_without_a_gpu_cells_run_on_the_cpu(here: Context) -> None:
    finding = only(hardware.check_gpus, here)
    assert (finding.status, "CPU cores" in finding.said) == ("warning", True)


def test_a_gpu_is_told_by_name_and_memory_and_who_uses_it(here: Context, tmp_path: Path) -> None:
    with_gpu(tmp_path)
    finding = only(hardware.check_gpus, here)
    assert finding.status == "ok"
    assert finding.said == "NVIDIA A100-SXM4-80GB, 85.9 GB, 85.9 GB free, driver 550.54"
    with_gpu(tmp_path, used=40_000)
    finding = only(hardware.check_gpus, Context(runs_dir=here.runs_dir))
    assert finding.status == "warning"
    assert "others use 41.9 GB" in finding.said


def test_a_gpu_that_torch_does_not_compute_on_is_an_error(here: Context, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch computes on this machine's GPU")
    with_gpu(tmp_path)
    finding = only(hardware.check_cuda, here)
    assert finding.status == "error"
    assert "without CUDA" in finding.said or "the driver takes CUDA up to 12.4" in finding.said


def test_visible_devices_that_are_not_there_are_an_error(
    here: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    finding = only(hardware.check_visible, here)
    assert (finding.status, "3 names no GPU" in finding.said) == ("error", True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    assert only(hardware.check_visible, here).status == "ok"


def test_what_the_grid_needs_is_compared_with_the_gpu(here: Context, tmp_path: Path) -> None:
    with_gpu(tmp_path)
    context = with_grid(tmp_path)
    assert only(hardware.check_gpu_memory, context).status == "ok"
    paper = open_grid("paper-7b", tmp_path / "runs", None, "full")
    context = Context(runs_dir=tmp_path / "runs", grid=paper)
    findings = {one.name: one for one in found(hardware.check_gpu_memory, context)}
    assert findings["GPU number"].said == "a cell asks for 4 GPUs, and 1 are here"
    assert "needs about" in findings["GPU memory"].said


def test_the_least_limit_of_the_cgroups_counts(tmp_path: Path) -> None:
    inner = tmp_path / "user.slice" / "job"
    inner.mkdir(parents=True)
    for folder, limit in ((inner, "max"), (inner.parent, "8000000000"), (tmp_path, "64000000000")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("1000000000\n")
    (tmp_path / "own").write_text("0::/user.slice/job\n")
    assert hardware.cgroup_memory(tmp_path, tmp_path / "own") == (8e9, 1e9)
    (tmp_path / "own").write_text("0::/elsewhere\n")
    assert hardware.cgroup_memory(tmp_path, tmp_path / "own") == (64e9, 1e9)


def test_too_little_host_memory_is_an_error(
    here: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = with_grid(tmp_path)
    assert only(hardware.check_host_memory, context).status in ("ok", "warning")
    monkeypatch.setattr(hardware, "host_memory", lambda: (1e9, 0.5e9, " (a cgroup's limit)"))
    finding = only(hardware.check_host_memory, context)
    assert finding.status == "error"
    assert "500.0 MB free of 1.0 GB (a cgroup's limit)" in finding.said


def test_a_runs_folder_is_written_to_and_left_as_it_was(here: Context, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    finding = only(storage.check_runs_folder, here)
    assert finding.status in ("ok", "warning")
    assert "flushes a small file in" in finding.said
    assert sorted(tmp_path.iterdir()) == before
    refused = only(storage.check_runs_folder, Context(runs_dir=Path("/proc/no/runs")))
    assert (refused.status, "cannot be written" in refused.said) == ("error", True)


def test_a_runs_folder_that_is_a_file_is_an_error(here: Context, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/runs"):
        finding = only(storage.check_runs_folder, Context(runs_dir=tmp_path / place))
        assert (finding.status, finding.said) == ("error", f"{tmp_path / 'file'}: is no folder")


def test_how_far_locks_reach_is_told_as_it_is_known(here: Context) -> None:
    assert only(storage.check_lock_reach, here).status in ("ok", "unknown")
    (here.runs_dir / "cells").mkdir(parents=True)
    keep_reach(here.runs_dir, "node")
    assert (here.runs_dir / REACH_FILE).is_file()
    finding = only(storage.check_lock_reach, here)
    assert (finding.status, "one machine alone" in finding.said) == ("warning", True)


def test_a_prefetched_data_root_says_what_it_holds(here: Context, tmp_path: Path) -> None:
    entries = {"a": {"complete": True}, "b": {"complete": False}}
    manifest = {"repositories": entries, "lm_eval": metadata.version("lm_eval")}
    write_manifest(tmp_path, manifest)
    context = Context(runs_dir=here.runs_dir, data_root=tmp_path)
    finding = only(storage.check_data_root, context)
    assert finding.status == "ok"
    assert finding.said.endswith("prefetched: 1 of 2 repositories are whole")
    write_manifest(tmp_path, manifest | {"lm_eval": "0.1"})
    assert only(storage.check_data_root, context).status == "warning"


def test_a_disk_without_room_for_the_grid_is_an_error(
    here: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = with_grid(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    usage = namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    findings = {one.name: one.status for one in found(storage.check_disks, context)}
    assert findings["disk"] == "error"
    assert findings["disk of the hub's cache"] == "error"


def test_a_tracking_server_that_is_down_is_told_in_time(
    here: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(network.check_tracking, here).said.endswith("is made with the first run")
    uri = "http://user:secret-word@127.0.0.1:9"
    start = time.monotonic()
    finding = only(network.check_tracking, Context(runs_dir=here.runs_dir, tracking_uri=uri))
    assert time.monotonic() - start < 60
    assert (finding.status, "no answer" in finding.said) == ("error", True)
    assert "secret-word" not in f"{finding}"


def test_the_hub_tells_whose_token_it_is(
    hub: Hub, here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(network.check_hub, here).said.endswith("answers; no token (HF_TOKEN)")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert only(network.check_hub, here).said.endswith("the token is that of tester")
    monkeypatch.setenv("HF_TOKEN", "hf_anotherTokenThatIsWrong1")
    finding = only(network.check_hub, here)
    assert (finding.status, "does not know the token" in finding.said) == ("error", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not asked" in only(network.check_hub, here).said
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert only(network.check_hub, here).status == "warning"


def test_a_gate_that_is_closed_is_an_error_of_its_own(
    hub: Hub, here: Context, tmp_path: Path
) -> None:
    hub.gated.add("lab/tiny")
    findings = found(network.check_access, with_grid(tmp_path))
    assert [one.status for one in findings] == ["error", "ok"]
    assert "accept its terms" in findings[0].said
    assert findings[1].said == "may read lab/rows, allenai/ai2_arc"


def test_clocks_that_differ_are_told(hub: Hub, here: Context) -> None:
    assert found(network.check_clocks, here) == []
    hub.ahead = 3600
    finding = only(network.check_clocks, here)
    assert finding.status == "warning"
    assert re.search(r"differs from this machine's by 3,(599|600|601) s", finding.said)
    assert only(storage.check_file_clock, here).status == "ok"


def test_what_nodes_without_network_lack_is_an_error(
    here: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert only(network.check_caches, with_grid(tmp_path)).status == "warning"
    finding = only(network.check_caches, with_grid(tmp_path, executor="slurm"))
    assert finding.status == "error"
    assert "zbench prefetch" in finding.advice


def test_schedulers_that_are_not_there_are_errors_where_they_are_wanted(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(scheduler.check_slurm, here) == []
    assert found(scheduler.check_ray, here) == []
    slurm = Context(runs_dir=here.runs_dir, executor="slurm")
    assert only(scheduler.check_slurm, slurm).said == "no sbatch here"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert only(scheduler.check_ray, here).status == "error"
