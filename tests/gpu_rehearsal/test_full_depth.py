"""Whole models, whole cells, on cards that are not there; see docs/gpu-rehearsal.md."""

from __future__ import annotations

import pytest

from tests.gpu_rehearsal import expectations
from tests.gpu_rehearsal.conftest import Run

pytestmark = pytest.mark.rehearsal
ENTRIES = sorted(expectations.read(expectations.FULL_DEPTH))
FIRST = {
    "lora | h200 bf16",
    "zero-init-linear | h200 bf16",
    "full | 13b, rank 0 of 4 | a100-80 bf16",
}
"""What CI rehearses; the others take longer than the rest together."""
NAMED = [
    pytest.param(name, marks=() if name in FIRST else pytest.mark.slow, id=name) for name in ENTRIES
]


@pytest.mark.parametrize("name", NAMED)
def test_a_whole_model(run: Run, name: str) -> None:
    done = run("-m", "tests.gpu_rehearsal.full_depth", name)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def test_every_case_has_expected_values(run: Run) -> None:
    code = "from tests.gpu_rehearsal.full_depth import CASES; print(*sorted(CASES), sep='\\n')"
    assert run("-c", code).stdout.splitlines() == ENTRIES
    assert set(ENTRIES) > FIRST


def test_whole_cells_in_deterministic_mode(run: Run) -> None:
    more = ("--methods", "base,lora", "--pairs", "h200", "--deterministic")
    done = run("-m", "tests.gpu_rehearsal.cells", *more)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--deterministic",)], ids=["as it is", "deterministic"])
def test_whole_cells(run: Run, more: tuple[str, ...]) -> None:
    done = run("-m", "tests.gpu_rehearsal.cells", "--pairs", "h200,v100-32", *more)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def test_a_cell_whose_memory_runs_out_goes_on_with_smaller_passes(run: Run) -> None:
    done = run(
        "-m", "tests.gpu_rehearsal.cells", "--methods", "zero-init-linear", "--limit-mb", "9"
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "out of memory with" in done.stdout
    assert "token_budgets.json: {'stories260k | zero-init-linear | NVIDIA H200':" in done.stdout
