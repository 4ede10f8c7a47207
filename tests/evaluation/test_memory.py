from __future__ import annotations

import logging

import pytest
import torch

from harness.errors import EvaluationError
from harness.evaluation.memory import halve_until_it_fits

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def halve(work: object, size: int, smallest: int = 1) -> int:
    return halve_until_it_fits(
        work,  # type: ignore[arg-type]
        size,
        device="cpu",
        unit="rows",
        one="score one row",
        smallest=smallest,
    )


@pytest.mark.parametrize("full", [FULL, CUBLAS, MemoryError()])
def test_the_size_is_halved_until_it_fits_and_each_time_told(
    full: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = []

    def work(size: int) -> None:
        sizes.append(size)
        if size > 3:
            raise full

    with caplog.at_level(logging.WARNING, logger="harness"):
        assert halve(work, 13) == 3
    assert sizes == [13, 6, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "memory ran out with 13 rows at once; going on with 6",
        "memory ran out with 6 rows at once; going on with 3",
    ]


@pytest.mark.parametrize("smallest", [1, 4])
def test_a_memory_too_small_for_the_smallest_size_is_one_clear_line(smallest: int) -> None:
    def work(size: int) -> None:
        assert size >= smallest
        raise FULL

    with pytest.raises(EvaluationError, match="too small to score one row at a time"):
        halve(work, 16, smallest)


def test_other_faults_are_not_taken_for_full_memory() -> None:
    def work(_size: int) -> None:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        halve(work, 16)
