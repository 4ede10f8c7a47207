"""What is missing on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.estimate.compute import disk_needs
from harness.estimate.needs import find_needs
from tests.estimate.conftest import cells_of, to_do


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))


def test_base_data_and_benchmarks_are_listed_once(tmp_path: Path) -> None:
    states = [to_do(cell, tmp_path) for cell in cells_of("paper-7b").values()]
    needs = {need.name: need for need in find_needs(states, None)}
    base = needs["huggyllama/llama-7b@main"]
    assert not base.here
    assert base.bytes == 2 * 6_738_415_616
    assert not needs["tatsu-lab/alpaca@main"].here
    assert not needs["allenai/ai2_arc"].here
    assert len(needs) == len(find_needs(states, None)) == 6
    disk = disk_needs(states, list(needs.values()), tmp_path)
    assert disk.downloads == base.bytes
    assert disk.results > 4 * 6_738_415_616
    assert disk.free > 0


def test_a_gated_repository_says_what_to_do(tmp_path: Path) -> None:
    cell = cells_of("paper-7b")["llama-7b/base"]
    model = cell.model.model_copy(update={"source": "meta-llama/Llama-2-7b-hf"})
    gated = cell.model_copy(update={"model": model})
    (need, *_) = find_needs([to_do(gated, tmp_path)], None)
    assert need.access is not None
    assert "accept its terms" in need.access


def test_the_worlds_files_are_here(world: Path, tmp_path: Path) -> None:
    states = [to_do(cell, tmp_path) for cell in cells_of("demo").values()]
    assert all(need.here for need in find_needs(states, world))
