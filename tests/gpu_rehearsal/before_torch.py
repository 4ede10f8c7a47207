"""Imported first by all that rehearses: torch then finds a CUDA that does nothing; see `shim`."""

from tests.gpu_rehearsal import shim

shim.load()
