"""What the rehearsal on a pretended card (tests/gpu_rehearsal) expects of a real one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FULL_DEPTH = "expected_full.json"
"""Steps of 7B: `python -m tests.gpu_rehearsal.full_depth --write` renews them."""
REHEARSAL = Path(__file__).parents[2] / "tests" / "gpu_rehearsal"


@dataclass(frozen=True)
class StepFigures:
    """One optimizer step, as rehearsed."""

    launches: int
    waits: int
    peak_gb: float
    attention: tuple[str, ...]
    """Kernels and their dtypes, such as `flash bfloat16`."""
    source: str


class Expected:
    """Rehearsed figures by method and depth; None where nothing was rehearsed.

    Args:
        steps: the files' entries, by `METHOD/LAYERS`.
    """

    def __init__(self, steps: Mapping[str, StepFigures]) -> None:
        self._steps = steps

    def step(self, method: str, size: str) -> StepFigures | None:
        """A method's step at a size of the bench."""
        return self._steps.get(f"{method}/{size}")


def pair_of(capability: tuple[int, int]) -> str:
    """The rehearsed card that is nearest to one of a compute capability, with its precision."""
    if capability >= (9, 0):
        return "h200 bf16"
    return "a100-80 bf16" if capability >= (8, 0) else "v100-32 fp16"


def read_expected(folder: Path = REHEARSAL, *, pair: str = "h200 bf16") -> Expected:
    """Reads the rehearsal's files, as far as they are there; `pair` is a card and a precision."""
    steps = {}
    for file, size in (("expected.json", "7B/2"), (FULL_DEPTH, "7B")):
        path = folder / file
        content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        for key, entry in content.items():
            method, _, rehearsed = key.partition(" | ")
            figures = entry.get("train")
            if rehearsed == pair and isinstance(figures, dict):  # else its training failed there
                steps[f"{method}/{size}"] = StepFigures(
                    launches=figures["launches"],
                    waits=figures["syncs"],
                    peak_gb=figures["peak_gb"],
                    attention=tuple(figures["attention"]),
                    source=f"tests/gpu_rehearsal/{file}",
                )
    return Expected(steps)
