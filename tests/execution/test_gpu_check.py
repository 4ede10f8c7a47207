"""Which GPUs are seen, and GPUs that cells could not be run on: one line each, before work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cell.settings import RunSettings
from harness.errors import UsageError
from harness.execution import gpu_check
from harness.execution.devices import environment_of, resolve_devices
from harness.execution.gpu_check import build_fault, check_gpus, has_kernels, probe_fault
from harness.execution.local import LocalExecutor
from harness.execution.plan import Place, RunPlan
from harness.execution.visible import visible_gpus
from harness.grid.workspace import open_grid
from harness.records.torch_build import TorchBuild, torch_build
from tests.execution.test_scheduling import needing
from tests.fixtures.nvidia_smi import A100, put_nvidia_smi

GPU_BUILD = TorchBuild("2.13.0+cu128", "12.8", None)
PACKAGE = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_ALLOC_CONF")
    for name in (*names, "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's build is taken for one with CUDA."""
    monkeypatch.setattr(gpu_check, "torch_build", lambda: GPU_BUILD)


def told(function: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_installed_torch_is_known_without_importing_it() -> None:
    import torch

    assert torch_build() == TorchBuild(torch.__version__, torch.version.cuda, torch.version.hip)
    code = "import sys; from harness.execution import gpu_check as g; g.torch_build(); " \
        "sys.exit('torch' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, check=False).returncode == 0


def test_slices_are_devices_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path / "bin", monkeypatch, gpus=(A100, A100), slices=("1g.10gb", "2g.20gb"))
    found = visible_gpus()
    assert [gpu.name for gpu in found] == ["MIG-bbbb0", "MIG-bbbb1", "1"]
    assert found[1].title == f"{A100} MIG 2g.20gb"
    assert resolve_devices("cuda", workers=None, num_cells=9) == ("cuda:0", "cuda:1", "cuda:2")
    assert environment_of("cuda:1")["CUDA_VISIBLE_DEVICES"] == "MIG-bbbb1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-bbbb1,1")
    assert [gpu.name for gpu in visible_gpus()] == ["MIG-bbbb1", "1"]


@pytest.mark.usefixtures("cuda_build")
def test_cells_of_several_gpus_are_not_put_on_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_nvidia_smi(tmp_path / "bin", monkeypatch, slices=("1g.10gb", "2g.20gb"))
    assert told(check_gpus, ("cuda:0", "cuda:1"), needing(1, 2)) == (
        "a/zero-init-linear/10%/seed0: gpus_per_cell is 2, and NCCL joins no MIG slices "
        f"({A100} MIG 1g.10gb); lower it, or take whole GPUs"
    )


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("0,3", "3 names no GPU of this machine"),
        ("GPU-zz", "GPU-zz names no GPU of this machine"),
        ("GPU-aaaa", "GPU-aaaa is the beginning of several UUIDs of this machine"),
        ("all", "'all' is neither an index nor a UUID"),
        ("0,1,0", "names 0 twice, and CUDA would show no GPU"),
        ("0,GPU-aaaa0", "names 0 twice, and CUDA would show no GPU"),
    ],
)
def test_wrong_visible_devices_are_refused(
    setting: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_nvidia_smi(tmp_path / "bin", monkeypatch, gpus=(A100, A100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    for device in ("auto", "cuda", "cuda:0"):
        assert told(resolve_devices, device, workers=1, num_cells=1) == (
            f"CUDA_VISIBLE_DEVICES={setting}: {why}; it has GPUs 0, 1; unset it, or name what "
            "`nvidia-smi -L` lists"
        )
    assert resolve_devices("cpu", workers=1, num_cells=1) == ("cpu",)


def test_visible_devices_that_are_empty_hide_all_and_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_nvidia_smi(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert told(resolve_devices, "cuda", workers=1, num_cells=1) == (
        "--device cuda: this machine shows no CUDA device (CUDA_VISIBLE_DEVICES= hides every GPU; "
        "unset it, or give --device cpu)"
    )
    plan = RunPlan(RunSettings(tmp_path, None), place=Place(workers=1))
    plan = LocalExecutor().prepare(needing(1), plan)
    assert plan.devices == ("cpu",)
    assert plan.notes == (
        f"CUDA_VISIBLE_DEVICES hides this machine's GPUs ({A100}): cells run on the CPU",
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,-1,7")  # what CUDA itself reads no further
    assert [gpu.name for gpu in visible_gpus()] == ["0"]


@pytest.mark.parametrize("device", ["mps", "xpu:0"])
def test_other_accelerators_are_refused_by_name(device: str) -> None:
    said = told(resolve_devices, device, workers=1, num_cells=1)
    assert said.startswith(f"--device {device}: zbench does not compute on ")


def test_a_torch_without_cuda_is_refused_on_a_machine_with_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = torch_build()
    if build is None or build.cuda is not None:
        pytest.skip("this torch is built with CUDA")
    put_nvidia_smi(tmp_path / "bin", monkeypatch)
    plan = RunPlan(RunSettings(tmp_path, None))
    assert told(LocalExecutor().prepare, needing(1), plan) == (
        f"torch {build.version} is built without CUDA, and this machine has {A100}; install the "
        "CUDA build of that version (pytorch.org says how), or give --device cpu"
    )


@pytest.mark.usefixtures("cuda_build")
def test_a_driver_older_than_the_build_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_nvidia_smi(tmp_path / "bin", monkeypatch, cuda="11.8")
    assert told(check_gpus, ("cuda:0",)) == (
        f"the driver of {A100} takes CUDA up to 11.8, and torch 2.13.0+cu128 is built for 12.8; "
        "update the driver, or install that torch for CUDA 11"
    )
    put_nvidia_smi(tmp_path / "bin", monkeypatch, cuda="12.2")  # runs what is built for any 12
    assert build_fault(visible_gpus()) is None
    too_old = {"torch": "2.13.0+cu128", "cuda": "12.8", "fault": "The NVIDIA driver on your system "
               "is too old (found version 11040). Please update your GPU driver ..."}  # fmt: skip
    assert probe_fault(too_old, "cuda:0") == (
        "cuda:0: the driver is too old for torch 2.13.0+cu128, which is built for CUDA 12.8 (it "
        "takes CUDA up to 12.2); update the driver, or install a torch for its CUDA"
    )


@pytest.mark.parametrize(
    ("kernels", "capability", "runs"),
    [
        (["sm_75", "sm_80", "sm_90"], (8, 6), True),
        (["sm_75", "sm_80", "sm_90"], (7, 0), False),
        (["sm_75", "sm_80", "sm_90a"], (9, 0), True),
        (["sm_75", "sm_90"], (8, 9), False),
        (["sm_75", "compute_75"], (12, 0), True),
        (["sm_90a"], (9, 3), False),
        (["sm_86"], (8, 0), False),
        ([], (3, 5), True),
    ],
)
def test_kernels_run_within_their_major_version(
    kernels: list[str], capability: tuple[int, int], runs: bool
) -> None:
    assert has_kernels(kernels, capability) == runs


REHEARSED = """
import json, sys
from pathlib import Path
from tests.gpu_rehearsal.card import rehearsal
import torch
from harness.cell import free_memory
from harness.cell.settings import CellContext, RunSettings
from harness.execution.gpu_probe import look
from harness.grid.workspace import open_grid

folder = Path(sys.argv[1])
[cell, *_] = [s.cell for s in open_grid("paper-7b", folder, None, "zero-init-linear").states]
context = CellContext(cell, RunSettings(folder, None, device="cuda"), folder, lambda event: None)
free_memory.PATIENCE_SECONDS = 0.0
with rehearsal("v100-32") as card:
    told = [look()]
    free_memory.check_free_memory(context, trained=False)  # the card is empty
    torch.cuda.get_arch_list = lambda: ["sm_75", "sm_80", "sm_90", "compute_90"]
    told.append(look())
    torch.cuda.mem_get_info = lambda device=None: (int(9.4e9), int(32e9))
    try:
        free_memory.check_free_memory(context, trained=False)
    except free_memory.TrainingError as fault:
        told.append(str(fault).replace(cell.label, "CELL"))
print(json.dumps(told))
"""
"""What torch answers on a pretended V100: as it is, for another build, and filled by others."""


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    if shutil.which("g++") is None:
        pytest.skip("the rehearsal needs a C++ compiler")
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-c", REHEARSED, str(folder)],
        cwd=PACKAGE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_gpu_that_is_too_old_for_the_build_is_refused(rehearsed: list[Any]) -> None:
    fits, too_old, _ = rehearsed
    assert probe_fault(fits, "cuda:0") is None
    assert probe_fault(too_old | {"torch": "2.13.0+cu128"}, "cuda:0") == (
        "cuda:0 (Tesla V100-SXM2-32GB) has compute capability 7.0, and torch 2.13.0+cu128 has "
        "kernels for sm_75, sm_80, sm_90, compute_90 alone; take a torch that is built for it "
        "(pytorch.org), or leave it out with --device"
    )


def test_a_worker_looks_again_before_each_cell(rehearsed: list[Any]) -> None:
    assert rehearsed[2] == (
        "CELL: 9.4 of 32.0 GB are free on Tesla V100-SXM2-32GB, and it needs at least 13.5; other "
        "processes use the rest: wait, or end it, then run the same command again"
    )


@pytest.mark.usefixtures("cuda_build")
def test_a_gpu_that_another_process_fills_is_refused_before_a_cell_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps = ["GPU-aaaa0, 4242, /usr/bin/python, 74000", "GPU-aaaa1, 99, other, 5"]
    put_nvidia_smi(tmp_path / "bin", monkeypatch, apps=apps)
    found = {"torch": "2.13.0", "cuda": "12.8", "name": A100, "kernels": ["sm_80"],
             "capability": [8, 0], "free": int(7.3e9), "total": int(85.1e9)}  # fmt: skip
    monkeypatch.setattr(gpu_check, "probe", lambda gpus: dict.fromkeys(gpus, found))
    state = open_grid("paper-7b", tmp_path, None, "zero-init-linear").states[0]
    said = told(check_gpus, ("cuda:0",), [state])
    assert said == (
        f"cuda:0 ({A100}): 7.3 of 85.1 GB are free, and {state.cell.label} needs at least 13.5; "
        "python (process 4242, 77.6 GB) uses the rest: wait, end it, or leave the GPU out with "
        "--device"
    )
    monkeypatch.setitem(found, "free", int(20e9))  # a weak neighbour harms nobody
    check_gpus(("cuda:0",), [state])


SEEN = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def test_a_workers_child_sees_one_gpu_in_nvidia_smis_order_and_growing_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_nvidia_smi(tmp_path / "bin", monkeypatch, gpus=(A100, A100))

    def seen(device: str) -> dict[str, str]:
        """The environment of a worker process on a device."""
        code = (
            "import json, os, sys; from harness.execution.worker import prepare_worker; "
            f"prepare_worker({device!r}, 2, os.getppid()); assert 'torch' not in sys.modules; "
            f"json.dump(dict(os.environ), open({str(tmp_path / 'seen')!r}, 'w'))"
        )
        subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, check=True)
        found: dict[str, str] = json.loads((tmp_path / "seen").read_text())
        return found

    found = seen("cuda:1")
    assert found["CUDA_VISIBLE_DEVICES"] == "1"
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert found["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_CUDA_ALLOC_CONF" not in found
    found = seen("cpu")
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert not {"CUDA_DEVICE_ORDER", *ALLOCATOR} & found.keys()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    found = seen("cuda:0")
    assert found["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
    assert [found.get(name) for name in ALLOCATOR] == [None, "max_split_size_mb:64"]
