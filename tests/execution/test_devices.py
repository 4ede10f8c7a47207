"""Which devices a run uses."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.execution.devices import (
    available_cores,
    environment_of,
    resolve_devices,
    worker_threads,
)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_every_core_gets_a_worker() -> None:
    assert resolve_devices("auto", workers=None, num_cells=99) == ("cpu",) * available_cores()
    assert resolve_devices("auto", workers=3, num_cells=99) == ("cpu",) * 3
    assert resolve_devices("cpu", workers=8, num_cells=2) == ("cpu",) * 2


@pytest.mark.usefixtures("two_gpus")
def test_every_visible_gpu_gets_a_worker() -> None:
    assert resolve_devices("auto", workers=None, num_cells=9) == ("cuda:0", "cuda:1")
    assert resolve_devices("cuda:1", workers=None, num_cells=9) == ("cuda:1",)
    assert resolve_devices("cuda", workers=None, num_cells=1) == ("cuda:0",)


@pytest.mark.usefixtures("two_gpus")
def test_a_worker_sees_its_own_gpu_alone() -> None:
    seen = [environment_of(name)["CUDA_VISIBLE_DEVICES"] for name in ("cuda:0", "cuda:1")]
    assert seen == ["4", "7"]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("setting", ["gpu", "cuda:2", "cuda:0,cuda:5", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match="--device"):
        resolve_devices(setting, workers=None, num_cells=9)


@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="no CUDA device"):
        resolve_devices("cuda", workers=None, num_cells=9)


def test_threads_do_not_depend_on_how_many_cells_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert worker_threads(("cpu",), None) == worker_threads(("cpu",) * 8, None) == 1
    assert worker_threads(("cpu",), 1) == available_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert worker_threads(("cpu",), 1) == 1
