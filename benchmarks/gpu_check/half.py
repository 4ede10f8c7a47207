"""Check 8: fp16 with its loss scale: three steps and a few responses of each method."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu_check.bench import Bench, all_finite
from benchmarks.gpu_check.rows import Row, judged
from benchmarks.gpu_check.scoring import respond
from benchmarks.gpu_check.steps import take

STEPS = 3


def fp16_works(bench: Bench, method: str) -> Iterator[Row]:
    """Three steps in fp16 at 7B's width, two layers, and responses of the trained model."""
    size = "tiny" if bench.tiny else "7B/2"
    precision = "fp16" if bench.on_card else "fp32"
    with bench.released():
        step, spec = bench.train_step(method, size, precision)
        batches = bench.batches(STEPS, spec)
        step.choose_kernels(batches[0], 1)
        losses = [take(step, batch)[0] for batch in batches]
        step.kernels.remove()  # as at the end of a training
        skipped = step.metrics().get("fp16/skipped_steps", 0.0)
        count = 2 if bench.tiny else 8
        speaker, _ = respond(bench, step.model.eval(), precision, count, 4)
        yield judged(
            8,
            f"{method}, {size}: {precision}, 3 steps, responses",
            all_finite(losses) and len(speaker.responses) == count,
            found=f"loss {losses[-1]:.3g}, {skipped:.0f} skipped",
            expected="no error, finite",
            source="chosen",
            figures={"losses": losses, "skipped": skipped, "fallback": speaker.batching.fallback,
                     **step.metrics()},
        )  # fmt: skip
