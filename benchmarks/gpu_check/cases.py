"""All cases in the order of docs/gpu.md: the first ones say most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from benchmarks.gpu_check import (
    agreement,
    half,
    kernels,
    memory,
    plan,
    repeats,
    scoring,
    speed,
    steps,
)
from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.rows import Row


@dataclass(frozen=True)
class Case:
    """One piece of a check; it runs by itself, and its failure stops no other."""

    check: int
    name: str
    run: Callable[[Bench], Iterator[Row]]
    seconds: float
    """Set aside for it: it is skipped where less is left. Nobody has measured it yet."""
    needs_gb: float = 0.0
    """Free memory that it needs at its smallest size."""
    needs: Callable[[Bench], str | None] = lambda bench: None
    """Why it cannot run here, if anything."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the process that it runs in."""

    def reason_to_skip(self, bench: Bench, seconds_left: float) -> str | None:
        """Why it is left out; None where it is run."""
        if bench.on_card and (bench.free_gb or 0.0) < self.needs_gb:
            return f"needs {self.needs_gb:g} GB, {bench.free_gb} GB are free"
        if not bench.tiny and self.seconds > seconds_left:
            return f"needs about {self.seconds:.0f} s, {seconds_left:.0f} s are left"
        return self.needs(bench)


TWO_LAYERS_GB = 8.0
"""What two layers of 7B's width need to be trained, with their embeddings."""
TRAINED = ("zero-init-linear", "lora", "adaption-prompt")

CASES: tuple[Case, ...] = (
    Case(1, "cells in fp32 against the CPU", agreement.cells_agree, 45, 2),
    Case(2, "method laws on the device", agreement.laws_hold, 60, 2),
    Case(2, "all methods in half precision", agreement.half_precision_agrees, 15, 2),
    *(
        Case(3, f"{name}: a step", partial(steps.step_fits, method=name), 20, TWO_LAYERS_GB)
        for name in steps.METHODS
    ),
    Case(
        4,
        "zero-init-linear: launches of a step",
        partial(steps.step_is_profiled, method="zero-init-linear"),
        20,
        TWO_LAYERS_GB,
    ),
    Case(5, "ARC items scored", scoring.scores_items, 25, TWO_LAYERS_GB),
    Case(5, "responses generated", scoring.generates_responses, 15, TWO_LAYERS_GB),
    Case(6, "memory runs out, goes on", memory.halves_and_goes_on, 20, TWO_LAYERS_GB),
    Case(7, "cell twice, stopped and resumed", repeats.same_bits, 45, 2,
         environment=repeats.WORKSPACE),
    Case(7, "two steps at true width, twice", repeats.same_gradients, 15, TWO_LAYERS_GB,
         environment=repeats.WORKSPACE),
    *(
        Case(8, f"{name}: fp16", partial(half.fp16_works, method=name), 12, TWO_LAYERS_GB)
        for name in TRAINED
    ),
    Case(9, "tokens per second beside the plan", plan.beside_the_plan, 20, TWO_LAYERS_GB),
    *(
        Case(10, f"{name}: half precision's kernels", partial(kernels.kernels_agree, method=name),
             15, TWO_LAYERS_GB)
        for name in ("zero-init-linear", "random-init")
    ),
    *(
        Case(11, f"{name}: training speed", partial(speed.trains, name=name), 30, TWO_LAYERS_GB,
             needs=partial(speed.why_not, name=name))
        for name in speed.PAIRS
    ),
    Case(12, "scoring against lm-eval's HFLM", speed.scores, 30, TWO_LAYERS_GB),
    Case(13, "two cells on one card", speed.two_cells, 45, 4),
)  # fmt: skip
