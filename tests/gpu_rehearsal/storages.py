"""The card's memory: a storage counts from the first tensor that shows it until it is freed."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch

BLOCK = 512
"""torch's allocator rounds up to so many bytes (c10/cuda/CUDACachingAllocator.cpp)."""
NOTED_STEP = 1.02
"""What is alive is noted at each peak that is so much above the last noted one."""


class Storages:
    """Bytes alive and their peak; no fragments, workspaces or context, which a card has too."""

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        """Above so many bytes an allocation raises OutOfMemoryError; None for never."""
        self.live = 0
        self.peak = 0
        self.at_peak: Counter[str] = Counter()
        """Bytes by the line that made them, near the peak (within 2 %)."""
        self.keep_sites = True
        self._noted = 0.0
        self._storages: dict[int, tuple[Any, int, str]] = {}

    def reset_peak(self) -> None:
        """Begins the peak anew at what is alive."""
        self.peak = self.live
        self._noted, self.at_peak = self.live, self.alive_by_site()

    def watch(self, tensor: Any, site: str) -> None:
        """Counts a tensor's storage, unless it is known.

        Raises:
            torch.OutOfMemoryError: it is above the limit.
        """
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = _rounded(storage.nbytes())
        if size == 0:
            return
        if self.limit is not None and self.live + size > self.limit:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**30:.2f} GiB (rehearsed)"
            )

        def freed(_reference: Any, key: int = key) -> None:
            known = self._storages.pop(key, None)
            if known is not None:
                self.live -= known[1]

        self._storages[key] = (weakref.ref(storage, freed), size, site)
        self.live += size
        self._note_peak()

    def resized(self, storage: Any) -> None:
        """Counts a known storage's new size: FSDP frees and fills gathered weights by it."""
        key = storage._cdata
        if key not in self._storages:
            return
        reference, old, site = self._storages[key]
        size = _rounded(storage.nbytes())
        self._storages[key] = (reference, size, site)
        self.live += size - old
        self._note_peak()

    def alive_by_site(self) -> Counter[str]:
        """The bytes that are alive, by the line that made them."""
        found: Counter[str] = Counter()
        for _, size, site in list(self._storages.values()):
            found[site] += size
        return found

    def _note_peak(self) -> None:
        if self.live <= self.peak:
            return
        self.peak = self.live
        if self.keep_sites and self.live > NOTED_STEP * self._noted:
            self._noted, self.at_peak = self.live, self.alive_by_site()


def _rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
