"""What a process sets up before it computes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.records.environment import DETERMINISTIC, git_commit, prepare_torch
from tests.fixtures.tiny import TRAINED, adapted
from tests.training.test_loop import spec, train


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_the_commit_of_the_checkout_is_known() -> None:
    head = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    assert git_commit() in (commit, f"{commit}+changes")


@pytest.mark.parametrize(("value", "asked"), [("1", True), ("0", False), ("", False)])
def test_deterministic_kernels_are_asked_for_by_the_environment(
    value: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DETERMINISTIC, value)
    prepare_torch(1)
    assert torch.are_deterministic_algorithms_enabled() == asked
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == asked


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_trains_with_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DETERMINISTIC, "1")
    prepare_torch(1)
    assert train(adapted(name), spec(epochs=1)).steps == 3
