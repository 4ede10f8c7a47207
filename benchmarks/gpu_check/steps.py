"""Checks 3 and 4: an optimizer step of true size: memory, waits, launches, kernels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu_check.bench import ROOM_GB, Bench, all_finite
from benchmarks.gpu_check.profile import StepProfile, profile
from benchmarks.gpu_check.rows import Row, judged, within
from benchmarks.gpu_check.waits import Waits, counted_waits
from harness.data.instructions import Example
from harness.training.step import TrainStep

LAUNCHES = 0.15
"""Share by which the rehearsal's count, an estimate, may be off."""
METHODS = ("zero-init-linear", "random-init", "lora")
RATE = 1e-4


@dataclass(frozen=True)
class Taken:
    """Steps of one method."""

    size: str
    losses: list[float]
    peak_gb: float | None
    """None on a CPU."""
    seconds: float
    tokens: int
    waits: Waits


def take(step: TrainStep, examples: list[Example]) -> tuple[float, int]:
    """One optimizer step; the mean loss, and its real tokens."""
    totals = step.backward(examples, 1)
    step.update(RATE, skip=totals.skipped)
    return totals.loss_sum / totals.num_labels, totals.num_tokens


def take_steps(bench: Bench, method: str) -> tuple[Taken, TrainStep, list[Example]]:
    """A step to warm up, one that is measured, and one whose waits are counted."""
    size = bench.step_size(method)
    precision = "fp32" if bench.tiny else bench.half
    step, spec = bench.train_step(method, size, precision)
    # The rehearsal's figures are of the first batch at full depth, of the second at two layers.
    batches = bench.batches(1 if size == "7B" else 2, spec)
    first, batch = batches[0], batches[-1]
    step.choose_kernels(first, 1)  # as a training does before its first step
    losses = [take(step, first)[0]]
    if bench.on_card:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    loss, tokens = take(step, batch)
    if bench.on_card:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() / 1e9 if bench.on_card else None
    with counted_waits() as waits:
        losses += [loss, take(step, batch)[0]]
    return Taken(size, losses, peak, seconds, tokens, waits), step, batch


def step_fits(bench: Bench, method: str) -> Iterator[Row]:
    """Check 3: peak memory and waits of a method's step."""
    with bench.released():
        taken, _, _ = take_steps(bench, method)
        yield row_of_step(bench, method, taken)


def row_of_step(bench: Bench, method: str, taken: Taken) -> Row:
    """What steps have shown, beside what was rehearsed."""
    rehearsed = bench.expected.step(method, taken.size)
    most_waits = rehearsed.waits if rehearsed else 1
    finite = all_finite(taken.losses)
    ok = finite and taken.waits.count <= most_waits
    if rehearsed and taken.peak_gb is not None:
        ok = ok and taken.peak_gb <= rehearsed.peak_gb + ROOM_GB
    peak = "no card" if taken.peak_gb is None else f"{taken.peak_gb:.1f} GB"
    wanted = f"≤ {rehearsed.peak_gb + ROOM_GB:.1f} GB, " if rehearsed else ""
    note = "" if finite else f"losses {taken.losses}"
    if taken.waits.count > most_waits:
        note = f"waits at {taken.waits.places}"
    return judged(
        3,
        f"{method}, {taken.size}: a step",
        ok,
        found=f"{peak}, {taken.waits.count} waits",
        expected=f"{wanted}≤ {most_waits} waits",
        source=rehearsed.source if rehearsed else "nothing was rehearsed at this size",
        note=note,
        figures={
            "size": taken.size,
            "losses": taken.losses,
            "peak_gb": taken.peak_gb,
            "seconds": taken.seconds,
            "tokens": taken.tokens,
            "tokens_per_second": taken.tokens / taken.seconds,
            "waits": taken.waits.places,
            "blocking_copies_to_the_card": taken.waits.blocking_writes,
        },
    )


def step_is_profiled(bench: Bench, method: str) -> Iterator[Row]:
    """Check 4: launches, attention kernels and idle share of one step."""
    with bench.released():
        taken, step, batch = take_steps(bench, method)
        found = profile(lambda: take(step, batch), bench.device)
        yield row_of_profile(bench, method, taken.size, found)


def row_of_profile(bench: Bench, method: str, size: str, found: StepProfile) -> Row:
    """A profile beside what was rehearsed."""
    rehearsed = bench.expected.step(method, size)
    fast = bool(found.attention) and not found.slow_attention
    ok = fast if bench.on_card and _expects_flash(rehearsed) else found.launches > 0
    if rehearsed:
        ok = ok and within(found.launches, rehearsed.launches, LAUNCHES)
    names = "flash" if fast else "/".join(found.slow_attention or ["no attention kernel"])
    return judged(
        4,
        f"{method}, {size}: launches of a step",
        ok,
        found=f"{found.launches:,}, {names[:40]}, idle {found.idle_share:.0%}",
        expected=f"{rehearsed.launches:,} ± 15 %, flash" if rehearsed else "flash",
        source=rehearsed.source if rehearsed else "nothing was rehearsed at this size",
        note="" if ok else f"attention: {found.attention or found.slow_attention or 'none'}",
        figures={
            "launches": found.launches,
            "attention": found.attention,
            "slow_attention": found.slow_attention,
            "idle_share": found.idle_share,
            "busy_seconds": found.busy_seconds,
            "seconds": found.seconds,
            "longest_kernels": found.longest,
        },
    )


def _expects_flash(rehearsed: Any) -> bool:
    return rehearsed is None or any(
        name.startswith(("flash", "varlen")) for name in rehearsed.attention
    )
