"""What is left to do of a cell and of a grid on a GPU: tokens, operations, hours, money, memory.

No model is loaded and no network is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from harness.cell.memory_model import Training
from harness.estimate import compute, memory, pictures
from harness.estimate.gpus import Gpu, find_gpu
from harness.estimate.lengths import TrainingTokens
from harness.estimate.needs import Need, find_needs
from harness.estimate.step_time import (
    GENERATION_BATCH,
    OP_SECONDS,
    SCORING_SHARE,
    TRAFFIC_SHARE,
    WEIGHTS_SHARE,
    scoring_seconds,
    training_work,
)
from harness.estimate.tokens import ScoringTokens, TokensOf, scoring_tokens, token_counter
from harness.evaluation.tasks import scored_together
from harness.grid.schema import Cell, RowCounts
from harness.grid.status import CellState

LOAD_BYTES_PER_SECOND = 1.0e9
"""From disk to a GPU: an assumption."""
START_SECONDS = 15.0
"""Imports, data, and the first kernels of a cell: an assumption."""


@dataclass(frozen=True)
class CellEstimate:
    """What is left to do of one cell, on one kind of GPU; None where nothing tells."""

    cell_id: str
    label: str
    training_tokens: int | None
    """Real tokens over all epochs; 0 where it is trained or trains nothing."""
    computed_tokens: int | None
    """Tokens that pass the model when shared prefixes are computed once."""
    scoring_tokens: int | None
    tokens_source: str
    """counted, known or estimated: the weakest of its counts."""
    training_flops: float | None
    scoring_flops: float | None
    training_seconds: float | None
    scoring_seconds: float | None
    other_seconds: float
    """Start, loading, and a pass of the image encoder over the training pictures."""
    gpus: int
    peak_bytes: float | None
    """On each GPU."""
    host_bytes: float
    """Of the host's memory, all of its processes."""
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
        """Operations of training and scoring."""
        if self.training_flops is None or self.scoring_flops is None:
            return None
        return self.training_flops + self.scoring_flops


@dataclass(frozen=True)
class GridEstimate:
    """What is left to do of a grid, on one kind of GPU."""

    name: str
    gpu: Gpu
    price_per_hour: float | None
    cells: tuple[CellEstimate, ...]
    """Those that are to do."""
    done_cells: int
    done_seconds: float
    """Measured, of what is done already: training and scoring."""
    needs: tuple[Need, ...]
    disk: compute.DiskNeeds

    @property
    def gpu_hours(self) -> float | None:
        """Hours of all cells; None where one of them cannot be estimated."""
        hours = [cell.gpu_hours for cell in self.cells]
        return None if None in hours else sum(hour for hour in hours if hour is not None)

    def money(self, hours: float | None) -> float | None:
        """The price of so many GPU hours; None where no price was given."""
        return None if hours is None or self.price_per_hour is None else hours * self.price_per_hour

    def record(self) -> dict[str, Any]:
        """All of it as plain values."""
        cells = [
            asdict(cell)
            | {"gpu_hours": cell.gpu_hours, "seconds": cell.seconds}
            | {"cost": self.money(cell.gpu_hours)}
            for cell in self.cells
        ]
        return {
            "hardware": {"name": self.name, **self.gpu.model_dump()},
            "price_per_hour": self.price_per_hour,
            "gpu_hours": self.gpu_hours,
            "cost": self.money(self.gpu_hours),
            "done": {"cells": self.done_cells, "seconds": self.done_seconds},
            "cells": cells,
            "needs": [asdict(need) for need in self.needs],
            "disk": asdict(self.disk) | {"suffices": self.disk.suffices},
        }


def assumptions(gpu: Gpu) -> str:
    """What the hours on a GPU rest on that nobody measured, beside the share of its products."""
    return (
        f"Assumed too: products of scoring reach {SCORING_SHARE:.0%} of that, all other work moves "
        f"its bytes at {TRAFFIC_SHARE:.0%} of {gpu.bandwidth / 1e12:.2g} TB/s, generation reads "
        f"the weights at {WEIGHTS_SHARE:.0%} for {GENERATION_BATCH} answers at once, and a CPU "
        f"thread takes {OP_SECONDS * 1e6:.0f} µs for an operation, meanwhile; a cell takes "
        f"{START_SECONDS:.0f} s to start and loads {LOAD_BYTES_PER_SECOND / 1e9:g} GB a second. "
        "Operations and bytes are counted, not measured."
    )


def estimate_grid(
    states: Sequence[CellState],
    hardware: str,
    *,
    price_per_hour: float | None,
    runs_dir: Path,
    data_root: Path | None,
    num_rows: RowCounts,
) -> GridEstimate:
    """What is left to do of a grid's cells on a GPU.

    Args:
        states: the cells.
        hardware: the GPU's name.
        price_per_hour: of one GPU, in any currency.
        runs_dir: where results go, and where counted lengths are kept.
        data_root: of local data.
        num_rows: of each training set.

    Raises:
        UsageError: the GPU is not known.
        DataError: local data cannot be read.
    """
    gpu = find_gpu(hardware)
    tokens_of = token_counter(runs_dir=runs_dir, data_root=data_root, num_rows=num_rows)
    work = [state for state in states if state.status != "done"]
    needs = find_needs(work, data_root)
    untrained = [state.cell for state in work if not state.trained]
    features = pictures.feature_bytes(untrained, tokens_of, data_root)
    return GridEstimate(
        name=hardware.lower(),
        gpu=gpu,
        price_per_hour=gpu.price_per_hour if price_per_hour is None else price_per_hour,
        cells=tuple(estimate_cell(state, gpu, tokens_of, data_root) for state in work),
        done_cells=len(states) - len(work),
        done_seconds=sum(_measured_seconds(state) for state in states),
        needs=tuple(needs),
        disk=compute.disk_needs(work, needs, runs_dir, features=features),
    )


def _measured_seconds(state: CellState) -> float:
    result = state.result
    if result is None:
        return 0.0
    return (result.train.seconds if result.train else 0.0) + sum(result.evaluation_seconds.values())


def estimate_cell(
    state: CellState, gpu: Gpu, tokens_of: TokensOf, data_root: Path | None = None
) -> CellEstimate:
    """What is left to do of a cell on a GPU; `tokens_of` gives the tokens of one epoch."""
    cell, notes = state.cell, []
    precision = gpu.precision(cell.train.precision if cell.train else "auto")
    peak, gpus = gpu.peak_flops(precision), 1 if state.trained else cell.gpus_per_cell
    tokens = None if state.trained else tokens_of(cell)
    count, computed, train_flops = (0, 0, 0.0) if state.trained else _training(cell, tokens)
    scored = _scoring(state, data_root)
    score_flops = None if scored is None else _scoring_flops(cell, scored)
    if train_flops is None:
        notes.append("the size of its training data is unknown")
    if tokens is not None and (note := tokens.note(cell.data)):
        notes.append(note)
    if scored is None:
        notes.append("a benchmark's size is unknown")
    if peak is None:
        notes.append(f"{gpu.title} does not compute in {precision}")
    if not state.trained and (note := _budget_note(cell)):
        notes.append(note)
    training_seconds: float | None = None
    if peak is not None and state.trained:
        training_seconds = 0.0
    elif train_flops is not None and tokens is not None:
        work = training_work(cell, tokens, train_flops, gpu, precision)
        training_seconds = work.seconds(gpu, precision)
    idle = state.trained and not state.missing
    needed = 0.0 if idle else _peak_bytes(state, precision, tokens)
    fits = None if needed is None else needed <= gpu.memory_bytes
    if peak is None:
        fits = False
    elif needed is not None and not fits:
        fits, note = _what_fits(state, precision, gpu, needed, tokens)
        notes.append(note)
    load_seconds = _model_bytes(cell, precision) / LOAD_BYTES_PER_SECOND
    if tokens is not None:
        load_seconds += pictures.encoding_seconds(cell, tokens.rows, data_root)
    return CellEstimate(
        cell_id=cell.id,
        label=cell.label,
        training_tokens=count,
        computed_tokens=computed,
        scoring_tokens=None if scored is None else sum(s.tokens + s.new_tokens for s in scored),
        tokens_source=_weakest([tokens, *(scored or [])]),
        training_flops=train_flops,
        scoring_flops=score_flops,
        training_seconds=training_seconds,
        scoring_seconds=None if scored is None else scoring_seconds(cell, scored, gpu, precision),
        other_seconds=0.0 if idle else START_SECONDS + load_seconds,
        gpus=gpus,
        peak_bytes=needed,
        host_bytes=0.0 if idle else memory.host_bytes(cell, trained=state.trained),
        fits=fits,
        precision=precision,
        note="; ".join(notes) or None,
    )


def _training(
    cell: Cell, tokens: TrainingTokens | None
) -> tuple[int, int, float] | tuple[None, None, None]:
    """Tokens, computed tokens and operations of all epochs."""
    assert cell.train is not None
    if tokens is None:
        return None, None, None
    work = compute.workload(cell)
    epochs = Fraction(cell.train.num_passed(tokens.rows), tokens.rows)  # a last one may be cut
    flops = compute.training_flops(work, cell.model.shape, tokens)
    computed = compute.computed_tokens(work, tokens)
    return round(epochs * tokens.tokens), round(epochs * computed), float(epochs) * flops


def training_flops(cell: Cell, tokens_of: TokensOf) -> float | None:
    """Operations of a cell's whole training; None where its tokens are not known.

    Raises:
        DataError: local data cannot be read.
        ModelError: the tokenizer cannot be read.
    """
    return _training(cell, tokens_of(cell))[2]


def _scoring(state: CellState, data_root: Path | None) -> list[ScoringTokens] | None:
    """What is to be scored, group by group; None where a benchmark's size is unknown."""
    # A cell that is trained again is scored again.
    tasks = state.missing if state.trained else state.cell.tasks
    shape = state.cell.model.shape
    found = [scoring_tokens(group, shape, data_root) for group in scored_together(tasks)]
    return None if None in found else [one for one in found if one is not None]


def _scoring_flops(cell: Cell, scored: Sequence[ScoringTokens]) -> float:
    return sum(compute.scoring_flops(cell.model.shape, one) for one in scored)


def _peak_bytes(state: CellState, precision: str, tokens: TrainingTokens | None) -> float | None:
    scoring = memory.scoring_bytes(state.cell, precision) + pictures.encoder_bytes(state.cell)
    if state.trained:
        return scoring
    if tokens is None:
        return None
    fullest = memory.fullest_pass(state.cell, tokens)
    return max(scoring, memory.training_bytes(state.cell, precision, fullest))


def _budget_note(cell: Cell) -> str | None:
    """Says that a set budget is less than sequences may be long: the cell refuses it then."""
    if cell.train is None or (budget := cell.train.token_budget) is None:
        return None
    if budget >= cell.train.max_length:
        return None
    return (
        f"train.token_budget {budget} is less than max_length {cell.train.max_length}, and a cell "
        "with a longer sequence than the budget is refused"
    )


def _what_fits(
    state: CellState, precision: str, gpu: Gpu, needed: float, tokens: TrainingTokens | None
) -> tuple[bool, str]:
    """Whether a cell that needs more than a GPU has fits with smaller passes; and what would."""
    cell = state.cell
    needs = f"needs {needed / 1e9:,.0f} GB, {gpu.title} has {gpu.memory_gb:g}"
    alone = Training.of(cell, precision, ranks=1)
    if state.trained or cell.train is None:
        fits = memory.scoring_fits(alone, gpu)
        return fits, f"{needs}: " + ("scored in smaller passes" if fits else "does not fit")
    ways = [] if tokens is None else list(memory.ways_to_fit(cell, precision, gpu, tokens))
    if not ways:
        why = ""
        if not memory.scoring_fits(alone, gpu):
            why = (
                f", for one GPU scores it and holds {alone.weight_bytes() / 1e9:,.0f} GB of weights"
            )
        return False, f"{needs}: does not fit{why}"
    smaller = ways[0].startswith("train.token_budget")
    if smaller and cell.train.token_budget is None:
        ways[0] += " (chosen by the cell itself)"
    return smaller, f"{needs}: fits with {', or '.join(ways)}"


def _model_bytes(cell: Cell, precision: str) -> int:
    return (4 if precision == "fp32" else 2) * cell.model.shape.num_parameters


def _weakest(counts: Sequence[TrainingTokens | ScoringTokens | None]) -> str:
    sources = [one.source for one in counts if one is not None]
    return next((s for s in ("estimated", "known") if s in sources), "counted")
