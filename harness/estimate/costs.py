"""A cell's estimate on a GPU: tokens, operations, seconds, memory; and a grid's in all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.estimate.flops import computed_tokens, scoring_flops, training_flops
from harness.estimate.gpus import Gpu
from harness.estimate.memory import (
    activation_bytes,
    scoring_bytes,
    tokens_of_pass,
    training_bytes,
    weight_bytes,
)
from harness.estimate.tokens import ScoringTokens, TrainingTokens, scoring_tokens
from harness.evaluation.tasks import scored_together
from harness.grid.schema import Cell
from harness.grid.status import CellState

TokensOf = Callable[[Cell], TrainingTokens | None]

LOAD_BYTES_PER_SECOND = 1.0e9
"""From disk to a GPU: an assumption."""
START_SECONDS = 15.0
"""Imports, data, and the first kernels of a cell: an assumption."""
SCORING_SHARE = 0.8
"""Of what training sustains, scoring keeps up: its rows are small and hold prefixes apart."""
GENERATION_BATCH = 32
"""Sequences that are continued at once."""
BANDWIDTH_SHARE = 0.6
"""Of the memory's bandwidth, generation keeps up: an assumption."""


@dataclass(frozen=True)
class CellEstimate:
    """What is left to do of one cell, on one kind of GPU; None where nothing tells."""

    cell_id: str
    label: str
    training_tokens: int | None
    """Real tokens over all epochs; 0 where it is trained or trains nothing."""
    computed_tokens: int | None
    """Of these, what passes the model when openings are computed once."""
    scoring_tokens: int | None
    tokens_source: str
    """counted, known or estimated: the weakest of its counts."""
    training_flops: float | None
    scoring_flops: float | None
    training_seconds: float | None
    scoring_seconds: float | None
    other_seconds: float
    """Start and loading."""
    gpus: int
    peak_bytes: float | None
    """On each GPU."""
    fits: bool | None
    precision: str
    note: str | None = None
    """Why something is None, or what does not fit."""

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds of the cell."""
        if self.training_seconds is None or self.scoring_seconds is None:
            return None
        return self.training_seconds + self.scoring_seconds + self.other_seconds

    @property
    def gpu_hours(self) -> float | None:
        """Hours times GPUs."""
        if self.seconds is None or self.training_seconds is None:
            return None
        # All of its GPUs train and load; one of them scores.
        alone = self.seconds - self.training_seconds - self.other_seconds
        return (self.gpus * (self.training_seconds + self.other_seconds) + alone) / 3600

    @property
    def flops(self) -> float | None:
        """Of training and scoring."""
        if self.training_flops is None or self.scoring_flops is None:
            return None
        return self.training_flops + self.scoring_flops


def estimate_cell(state: CellState, gpu: Gpu, tokens_of: TokensOf) -> CellEstimate:
    """Returns what is left to do of a cell on a GPU.

    Args:
        state: the cell, and what of it is done.
        gpu: what it runs on.
        tokens_of: tells the tokens of one epoch of a cell that trains; None where nothing tells.
    """
    cell = state.cell
    precision = gpu.precision(cell.train.precision if cell.train else "auto")
    peak = gpu.peak_flops(precision)
    notes = []
    to_train = cell.train is not None and not state.trained
    tokens = tokens_of(cell) if to_train else None
    scored = _scoring(state)
    train_flops = _training_flops(cell, tokens) if to_train else 0.0
    score_flops = (
        None if scored is None else sum(scoring_flops(cell.model.shape, s) for s in scored)
    )
    if to_train and tokens is None:
        notes.append("the size of its training data is unknown")
    if scored is None:
        notes.append("a benchmark's size is unknown")
    if peak is None:
        notes.append(f"{gpu.title} does not compute in {precision}")
    speed = None if peak is None else peak * gpu.sustained_share
    gpus = cell.gpus_per_cell if to_train else 1
    idle = not to_train and not state.missing
    memory = 0.0 if idle else _peak_bytes(cell, precision, tokens, to_train)
    fits = None if memory is None else memory <= gpu.memory_bytes
    if memory is not None and not fits:
        fits, note = _smaller_passes(cell, precision, gpu, memory, to_train)
        notes.append(note)
    epochs = cell.train.epochs if cell.train else 0
    return CellEstimate(
        cell_id=cell.id,
        label=cell.label,
        training_tokens=(tokens.tokens * epochs if tokens else None) if to_train else 0,
        computed_tokens=(
            (computed_tokens(cell.method, cell.options, tokens) * epochs if tokens else None)
            if to_train
            else 0
        ),
        scoring_tokens=None if scored is None else sum(s.tokens + s.new_tokens for s in scored),
        tokens_source=_weakest([tokens] if tokens else [], scored or []),
        training_flops=train_flops,
        scoring_flops=score_flops,
        training_seconds=_quotient(train_flops, speed, gpus),
        scoring_seconds=None if scored is None else _scoring_seconds(cell, scored, gpu, precision),
        other_seconds=0.0 if idle else START_SECONDS + _load_seconds(cell, precision),
        gpus=gpus,
        peak_bytes=memory,
        fits=fits,
        precision=precision,
        note="; ".join(notes) or None,
    )


def _scoring(state: CellState) -> list[ScoringTokens] | None:
    """Returns what is to be scored, group by group; None where a benchmark's size is unknown."""
    # A cell that is trained again is scored again.
    tasks = state.missing if state.trained else state.cell.tasks
    shape = state.cell.model.shape
    found = [scoring_tokens(group, shape) for group in scored_together(tasks)]
    return None if None in found else [one for one in found if one is not None]


def _training_flops(cell: Cell, tokens: TrainingTokens | None) -> float | None:
    assert cell.train is not None
    if tokens is None:
        return None
    return cell.train.epochs * training_flops(cell.method, cell.options, cell.model.shape, tokens)


def _scoring_seconds(
    cell: Cell, scored: Sequence[ScoringTokens], gpu: Gpu, precision: str
) -> float | None:
    """Returns the seconds of scoring: products bound by the peak, generation by the bandwidth."""
    peak = gpu.peak_flops(precision)
    if peak is None:
        return None
    flops = sum(scoring_flops(cell.model.shape, one) for one in scored)
    weights = weight_bytes(precision) * cell.model.shape.num_parameters
    steps = sum(one.new_tokens for one in scored) / GENERATION_BATCH
    generating = steps * weights / (gpu.bandwidth * BANDWIDTH_SHARE)
    return flops / (peak * gpu.sustained_share * SCORING_SHARE) + generating


def _peak_bytes(
    cell: Cell, precision: str, tokens: TrainingTokens | None, to_train: bool
) -> float | None:
    scoring = scoring_bytes(cell, precision)
    if not to_train:
        return scoring
    if tokens is None:
        return None
    passed = tokens_of_pass(cell, tokens.tokens / tokens.rows)
    return max(scoring, training_bytes(cell, precision, passed))


def _smaller_passes(
    cell: Cell, precision: str, gpu: Gpu, memory: float, to_train: bool
) -> tuple[bool, str]:
    """Returns whether a cell that needs more than a GPU has fits with fewer tokens at once."""
    needs = f"needs {memory / 1e9:,.0f} GB, {gpu.title} has {gpu.memory_gb:g}"
    if to_train and cell.train is not None and scoring_bytes(cell, precision) <= gpu.memory_bytes:
        room = gpu.memory_bytes - training_bytes(cell, precision, 0)
        tokens = int(room / activation_bytes(cell, precision))
        if tokens >= cell.train.max_length:
            return True, f"{needs}: fits with at most {tokens:,} tokens in a forward pass"
    return False, f"{needs}: does not fit"


def _load_seconds(cell: Cell, precision: str) -> float:
    size = weight_bytes(precision) * cell.model.shape.num_parameters
    return size / LOAD_BYTES_PER_SECOND


def _quotient(flops: float | None, speed: float | None, gpus: int) -> float | None:
    return None if flops is None or speed is None else flops / speed / gpus


def _weakest(training: Sequence[TrainingTokens], scoring: Sequence[ScoringTokens]) -> str:
    sources = [one.source for one in training] + [one.source for one in scoring]
    return next((s for s in ("estimated", "known") if s in sources), "counted")
