"""Makes do with the memory there is: what does not fit is tried again at half the size."""

from __future__ import annotations

import logging
from collections.abc import Callable

from harness.errors import EvaluationError
from harness.models.devices import free_memory, is_out_of_memory

logger = logging.getLogger(__name__)


def halve_until_it_fits(
    work: Callable[[int], None], size: int, *, device: str, unit: str, one: str, smallest: int = 1
) -> int:
    """Calls `work(size)`, at half the size whenever memory runs out; returns the size that fitted.

    Args:
        work: does what is left to do; what it has done when memory runs out stays done.
        unit: of the size, for the log.
        one: what does not even fit by itself, for the error.
        smallest: a smaller size helps no more.

    Raises:
        EvaluationError: the smallest size does not fit.
    """
    while True:
        try:
            work(size)
            return size
        except (RuntimeError, MemoryError, OSError) as fault:
            if not is_out_of_memory(fault):
                raise
        free_memory(device)  # outside of the handler, whose traceback holds on to the tensors
        if size // 2 < smallest:
            raise EvaluationError(f"the memory is too small to {one} at a time; take a larger GPU")
        logger.warning("memory ran out with %d %s at once; going on with %d", size, unit, size // 2)
        size //= 2
