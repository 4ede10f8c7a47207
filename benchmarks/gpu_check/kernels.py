"""Check 10: the kernels of half precision give what the usual operations give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu_check.bench import Bench, all_finite
from benchmarks.gpu_check.rows import Row, judged
from harness.training.step import TrainStep

LOSS, GRADIENT = 1e-2, 5e-2
"""Relative distances allowed of a whole batch, in half precision."""
TINY = 1e-30


def kernels_agree(bench: Bench, method: str) -> Iterator[Row]:
    """A batch's loss and gradient with the chosen kernels, and with the usual operations."""
    size = bench.step_size(method)
    with bench.released():
        step, spec = bench.train_step(method, size, "fp32" if bench.tiny else bench.half)
        (examples,) = bench.batches(1, spec)
        faults = step.choose_kernels(examples, 1)
        chosen = set(step.kernels.chosen)
        fast = gradient(step, examples)
        step.kernels.use(set())
        usual = gradient(step, examples)
        step.kernels.remove()
        loss = abs(fast[0] - usual[0]) / max(abs(usual[0]), TINY)
        distance = ((fast[1] - usual[1]).norm() / usual[1].norm().clamp_min(TINY)).item()
        finite = all_finite([loss, distance])
        missing = bench.on_card and step.kernels.available != chosen
        yield judged(
            10,
            f"{method}, {size}: half precision's kernels",
            finite and not faults and not missing and loss <= LOSS and distance <= GRADIENT,
            found=f"{' and '.join(sorted(chosen)) or 'none'}: {loss:.1e}, {distance:.1e}",
            expected=f"loss {LOSS:g}, gradient {GRADIENT:g}",
            source="half precision's rounding; chosen",
            note="; ".join(faults),
            figures={"kernels": sorted(chosen), "faults": faults, "loss_distance": loss,
                     "gradient_distance": distance, "size": size},
        )  # fmt: skip


def gradient(step: TrainStep, examples: Any) -> tuple[float, torch.Tensor]:
    """The mean loss of a batch, and the gradients of all trained tensors in one vector."""
    totals = step.backward(examples, 1)
    found = [one.grad.flatten().double() for one in step.parameters if one.grad is not None]
    step.optimizer.zero_grad(set_to_none=True)
    return totals.loss_sum / totals.num_labels, torch.cat(found)
