"""What the grid cost, the state of its cells, and what it ran on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import is_missing
from harness.analysis.comparisons import name_of
from harness.analysis.measurements import variant_of
from harness.report.numbers import MISSING, share_text, short_count, short_seconds
from harness.report.render import Table, row

if TYPE_CHECKING:
    import pandas as pd


def cost_table(cells: pd.DataFrame) -> Table:
    """Returns what training and evaluating cost: means over the finished cells of a variant."""
    rows = []
    previous = None
    keys = ["model", "method", "method_name", "method_title", "fraction"]
    for _, part in cells.groupby(keys, sort=False, dropna=False):
        variant = variant_of(part.iloc[0].to_dict())
        trained = part[part["status"] == "done"]
        mean = {name: _mean(trained, name) for name in _COSTS}
        parameters = _mean(part, "trainable_parameters")
        rows.append(
            row(
                variant.model if variant.model != previous else "",
                name_of(variant),
                share_text(variant.fraction),
                f"{len(trained)} of {len(part)}",
                short_count(parameters),
                *(MISSING if mean[n] is None else f"{mean[n]:,.0f}" for n in _COSTS[:2]),
                short_seconds(mean["seconds"]),
                short_seconds(mean["evaluation_seconds"]),
                *_predicted(trained),
                *(MISSING if (v := mean["tokens_per_second"]) is None else f"{v:,.0f}",),
                *(MISSING if (v := mean["peak_memory_bytes"]) is None else _gib(v),),
                *(MISSING if (v := mean["peak_learning_rate"]) is None else f"{v:.3g}",),
                starts_block=variant.model != previous,
            )
        )
        previous = variant.model
    return Table(
        name="costs",
        title="Costs (means over the seeds that are done)",
        header=(
            *("Model", "Method", "Data", "Done"),
            *("Trained parameters", "Examples", "Steps", "Training", "Evaluation"),
            *("Predicted", "Measured/predicted", "Tokens/s", "Peak GiB", "Peak lr"),
        ),
        rows=tuple(rows),
        caption=(
            "Trained parameters are rounded here; the paper prints them truncated. Peak memory: of "
            "the allocator on CUDA, of the process on CPU. Tokens: without padding. Predicted: "
            "training and evaluation together, as estimated before the run from a probe of the "
            "machine or from the GPU's data sheet; a dash where nothing was.",
        ),
        num_text_columns=4,
    )


_COSTS = (
    "examples",
    "steps",
    "seconds",
    "evaluation_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "peak_learning_rate",
)


def _predicted(cells: pd.DataFrame) -> tuple[str, str]:
    """Returns the seconds that were predicted, and the ratio of the measured ones to them.

    Over the cells that have a prediction: means of both.
    """
    names = ("expected_training_seconds", "expected_scoring_seconds")
    if any(name not in cells for name in names):
        return MISSING, MISSING
    known = cells.dropna(subset=[*names, "evaluation_seconds"])
    predicted = float(known[list(names)].sum().sum())
    if not predicted:
        return MISSING, MISSING
    measured = float(known["seconds"].fillna(0.0).sum() + known["evaluation_seconds"].sum())
    return short_seconds(predicted / len(known)), f"{measured / predicted:.2f}"


def failure_table(cells: pd.DataFrame) -> Table:
    """Returns the failed cells and why each failed."""
    failed = cells[cells["status"] == "failed"].to_dict("records")
    return Table(
        name="failures",
        title="Failed cells",
        header=("Cell", "Error"),
        rows=tuple(row(str(record["label"]), _error(record)) for record in failed),
        num_text_columns=2,
    )


def _error(record: Mapping[Any, Any]) -> str:
    error = record.get("error")
    return "" if is_missing(error) else " ".join(str(error).split())


def cell_table(cells: pd.DataFrame) -> Table:
    """Returns the status of every planned cell."""
    rows = []
    for record in cells.to_dict("records"):
        gates = [record.get(f"final_gate_{kind}_abs") for kind in ("mean", "max")]
        rows.append(
            row(
                str(record["label"]),
                str(record["cell_id"])[:12],
                str(record["status"]),
                *("" if is_missing(record.get(n)) else str(record[n]) for n in _PLACE),
                _error(record),
                *(MISSING if is_missing(gate) else f"{gate:.3f}" for gate in gates),
            )
        )
    return Table(
        name="cells",
        title="Cells",
        header=(
            *("Cell", "Id", "Status", "Precision", "Device", "Error"),
            *("Mean |tanh(g)|", "Max |tanh(g)|"),
        ),
        rows=tuple(rows),
        caption=("Gates: after the last step, of the zero-init methods.",),
        num_text_columns=6,
    )


_PLACE = ("precision", "device")


def environment_table(environment: Mapping[str, Any]) -> Table:
    """Returns the environment as names and values."""
    rows = [row(str(name), str(value)) for name, value in _flatten(environment)]
    return Table(
        name="environment",
        title="Environment",
        header=("What", "Value"),
        rows=tuple(rows),
        num_text_columns=2,
    )


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            found += _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            found.append((prefix + str(name), ", ".join(map(str, value))))
        elif not is_missing(value):
            found.append((prefix + str(name), value))
    return found


def _mean(frame: pd.DataFrame, name: str) -> float | None:
    values = frame[name].dropna() if name in frame else ()
    return float(sum(values) / len(values)) if len(values) else None


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f}"
