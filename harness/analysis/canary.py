"""Base models whose scores are known: far from them, the evaluation is wrong, not the methods.

A wrong tokenizer, a missing BOS or other data shift every cell of a grid alike, so that no
comparison inside it shows them. The untrained base model does, against its published scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.data.pins import pins
from harness.evaluation.benchmarks import BENCHMARKS
from harness.grid.schema import Cell, is_base
from harness.grid.status import CellState
from harness.records.results import CellResult
from harness.records.scores import TaskScore

if TYPE_CHECKING:
    from harness.analysis.published import Anchor


NUM_PARAMETERS = {"llama-7b": 6_738_415_616, "llama-13b": 13_015_864_320}
"""Parameters of the models with anchors, by their name in `published.yaml`: LLaMA, not Llama 2."""

BELOW = 0.01
ABOVE = 0.10
ABOVE_BY_METRIC = {("arc_easy", "acc_norm"): 0.22}
"""How far a score may lie from its anchor, beside its own error. Our choice, not a published bound:
the anchors are of May 2023, and later fixes of the tokenizer only raise them, by a few points, and
arc_easy's acc_norm (which has no space before an answer there) by 20."""
STANDARD_ERRORS = 3.0
"""Standard errors of the score, added to each bound: what chance alone does once in 400 scores."""


@dataclass(frozen=True)
class Alarm:
    """A score of a base model that is far from the published one."""

    cell_id: str
    label: str
    score: TaskScore
    anchor: Anchor

    def __str__(self) -> str:
        score, anchor = self.score, self.anchor
        difference = 100 * score.value - anchor.value
        side = "above" if difference > 0 else "below"
        return (
            f"{self.label}: {score.benchmark} {score.metric} is {100 * score.value:.1f}, "
            f"{abs(difference):.1f} points {side} the published {anchor.value:.1f} of this base "
            f"model ({score.shots}-shot, lm-eval): every score of this grid may be off likewise; "
            "check the tokenizer, BOS, weights and data before going on"
        )


def alarms(cell: Cell, result: CellResult | None) -> list[Alarm]:
    """Scores of a base model that are far from their anchors.

    A score counts when it was measured as its anchor was: protocol, shots, metric, all items. A
    model counts by its name (in the grid, or of its repository) and its number of parameters.
    """
    model = _anchored_model(cell)
    if result is None or model is None:
        return []
    from harness.analysis.published import load_published

    published = load_published()
    known = {(one.benchmark, one.metric): one for one in published.anchors if one.model == model}
    setting = published.anchor_protocol, published.anchor_shots, None
    return [
        Alarm(cell.id, cell.label, score, anchor)
        for score in result.scores
        if (anchor := known.get((score.task, score.metric))) is not None
        and (score.protocol, score.shots, score.limit) == setting
        and score.n == _num_items(score.benchmark)
        and _is_far(score, anchor)
    ]


def grid_alarms(states: Iterable[CellState]) -> list[Alarm]:
    """Alarms of all cells of a grid."""
    return [alarm for state in states for alarm in alarms(state.cell, state.shown)]


def _anchored_model(cell: Cell) -> str | None:
    if not is_base(cell):
        return None
    repository = (cell.model.source or "").rpartition("/")[2].lower()
    parameters = cell.model.shape.num_parameters
    for name, expected in NUM_PARAMETERS.items():
        if name in (cell.model_name.lower(), repository) and parameters == expected:
            return name
    return None


def _num_items(benchmark: str) -> int | None:
    entry = BENCHMARKS.get(benchmark)
    pin = pins().get(entry.files[entry.eval_split]) if entry is not None else None
    return None if pin is None else pin.rows


def _is_far(score: TaskScore, anchor: Anchor) -> bool:
    from harness.analysis.stats import binomial_stderr

    stderr = score.stderr
    if stderr is None:
        stderr = binomial_stderr(score.value, score.n)
    difference = score.value - anchor.value / 100
    above = ABOVE_BY_METRIC.get((anchor.benchmark, anchor.metric), ABOVE)
    reach = STANDARD_ERRORS * stderr
    return difference < -(BELOW + reach) or difference > above + reach
