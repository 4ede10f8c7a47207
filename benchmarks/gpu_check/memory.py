"""Check 6: a step for which memory is too small goes on in smaller passes, with the same loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu_check.bench import Bench
from benchmarks.gpu_check.rows import Row, close, judged
from benchmarks.subjects import SHAPES
from harness.cell.memory import SmallerBudget, effective_budget, smaller_budget
from harness.cell.settings import CellContext, RunSettings
from harness.grid.loader import load_grid
from harness.grid.schema import expand
from harness.models.devices import free_memory, is_out_of_memory
from harness.training.micro_batches import longest_sequence
from harness.training.step import TrainStep

METHOD = "zero-init-linear"
TOLERANCE = 1e-3
SHARE = 0.5
"""Of what a step needs beyond the weights, so much is left to it."""
MOST_HALVINGS = 6
GRID = """
name: memory
models:
  llama:
    path: nowhere
    shape: {{num_hidden_layers: {layers}, hidden_size: {width}, intermediate_size: {mlp},
            num_attention_heads: {heads}, vocab_size: 32000}}
data: {{source: tatsu-lab/alpaca, num_rows: 52002}}
tasks: [arc_easy]
train: {{epochs: 1}}
methods: {{zero-init-linear: {{num_layers: {adapted}}}}}
blocks: [{{methods: [zero-init-linear], fractions: [1.0]}}]
"""


def halves_and_goes_on(bench: Bench) -> Iterator[Row]:
    """The same optimizer batch with all memory, and with half of what its activations took."""
    size = bench.step_size(METHOD)
    with bench.released():
        precision = "fp32" if bench.tiny else bench.half
        step, spec = bench.train_step(METHOD, size, precision)
        (examples,) = bench.batches(1, spec)
        step.choose_kernels(examples, 1)
        used = _used(bench)
        whole, peak = _loss(bench, step, examples)
        limit = used + SHARE * (peak - used)
        context = _context(bench, size)
        budgets: list[int] = []
        losses = []
        with memory_limit(bench, step.model, limit):
            while len(budgets) < MOST_HALVINGS and not losses:
                budgets.append(effective_budget(context, examples))
                step.spec = spec.model_copy(update={"token_budget": budgets[-1]})
                try:
                    losses.append(_loss(bench, step, examples)[0])
                except Exception as fault:
                    if not is_out_of_memory(fault):
                        raise
                    budgets[-1] = _refused(context, step, examples, budgets[-1])
                step.optimizer.zero_grad(set_to_none=True)
                free_memory(bench.device)
        good, difference = close(losses, [whole], TOLERANCE)
        unit = "GB" if bench.on_card else "tokens in a pass"
        yield judged(
            6,
            f"{METHOD}, {size}: memory runs out, goes on",
            good and len(budgets) > 1,
            found=f"{' → '.join(map(str, budgets))}, loss {difference}",
            expected=f"halves, loss to {TOLERANCE:g}",
            source="chosen",
            note="" if len(budgets) > 1 else f"memory did not run out at {limit:.3g} {unit}",
            figures={"budgets": budgets, "limit": limit, "unit": unit, "loss": whole,
                     "loss_in_smaller_passes": losses},
        )  # fmt: skip


def _loss(bench: Bench, step: TrainStep, examples: Any) -> tuple[float, float]:
    """The mean loss of a batch, and the peak of its gradient: GB, or tokens of a pass on a CPU."""
    if bench.on_card:
        torch.cuda.reset_peak_memory_stats()
    totals = step.backward(examples, 1)
    step.optimizer.zero_grad(set_to_none=True)
    peak = sum(len(one.token_ids) for one in examples) / 1.0
    if bench.on_card:
        peak = torch.cuda.max_memory_allocated() / 1e9
    return totals.loss_sum / totals.num_labels, peak


def _used(bench: Bench) -> float:
    return torch.cuda.memory_allocated() / 1e9 if bench.on_card else 0.0


def _refused(context: CellContext, step: TrainStep, examples: Any, budget: int) -> int:
    """Stores the smaller budget as a cell does; returns the one that was too large."""
    answer = smaller_budget(context, used=budget, longest=longest_sequence(examples))
    if not isinstance(answer, SmallerBudget):
        raise answer
    return budget


def _context(bench: Bench, size: str) -> CellContext:
    width, mlp, layers, heads = SHAPES[size]
    place = bench.folder / "memory.yaml"
    adapted = min(30, layers - 1)
    place.write_text(
        GRID.format(layers=layers, width=width, mlp=mlp, heads=heads, adapted=adapted),
        encoding="utf-8",
    )
    (cell,) = expand(load_grid(place))
    settings = RunSettings(bench.folder / "memory", None, device=bench.device)
    return CellContext(cell, settings, bench.folder / "memory" / "cell", lambda event: None)


@contextlib.contextmanager
def memory_limit(bench: Bench, model: Any, limit: float) -> Iterator[None]:
    """Leaves this process so many GB of the card; on a CPU a pass so many tokens."""
    if not bench.on_card:

        def refuse(_module: Any, arguments: tuple[Any, ...]) -> None:
            if arguments[0].numel() > limit:
                raise torch.OutOfMemoryError("out of memory (a limit of gpu-check's own)")

        hook = model.get_input_embeddings().register_forward_pre_hook(refuse)
        try:
            yield
        finally:
            hook.remove()
        return
    free_memory(bench.device)
    total = torch.cuda.get_device_properties(bench.device).total_memory / 1e9
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
