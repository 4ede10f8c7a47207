"""Imported first by all that rehearses: torch then finds a CUDA that does nothing; see `shim`."""

import sys

from tests.gpu_rehearsal import shim

shim.load()
# Where bitsandbytes is installed, PEFT would ask it for CUDA's streams, which the CPU build lacks.
sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
