"""What the grid cost, the state of its cells, and what it ran on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.analysis.columns import is_missing
from harness.analysis.comparisons import name_of
from harness.analysis.findings import Findings
from harness.report.numbers import MISSING, share_text, short_count, short_seconds
from harness.report.render import Table, row


def cost_table(findings: Findings) -> list[Table]:
    """What training and evaluation cost."""
    rows = []
    model = None
    for line in findings.costs:
        starts = line.variant.model != model
        model, mean, ratio = line.variant.model, line.means, line.measured_ratio
        memory = mean["peak_memory_bytes"]
        rows.append(
            row(
                model if starts else "",
                name_of(line.variant),
                share_text(line.variant.fraction),
                f"{line.num_done} of {line.num_cells}",
                short_count(line.parameters),
                _number(mean["examples"], ",.0f"),
                _number(mean["steps"], ",.0f"),
                short_seconds(mean["seconds"]),
                short_seconds(mean["evaluation_seconds"]),
                short_seconds(line.predicted_seconds),
                _number(ratio, ".2f"),
                _number(mean["tokens_per_second"], ",.0f"),
                _number(None if memory is None else memory / 2**30, ".2f"),
                _number(mean["peak_learning_rate"], ".3g"),
                starts_block=starts,
            )
        )
    table = Table(
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
    return [table]


def _number(value: float | None, format_spec: str) -> str:
    return MISSING if value is None else format(value, format_spec)


def failure_table(findings: Findings) -> list[Table]:
    """Failed cells and why each failed, where any did."""
    cells = findings.data.cells
    failed = cells[cells["status"] == "failed"].to_dict("records")
    table = Table(
        name="failures",
        title="Failed cells",
        header=("Cell", "Error"),
        rows=tuple(row(str(record["label"]), _error(record)) for record in failed),
        num_text_columns=2,
    )
    return [table] if failed else []


def _error(record: Mapping[Any, Any]) -> str:
    error = record.get("error")
    return "" if is_missing(error) else " ".join(str(error).split())


def cell_table(findings: Findings) -> list[Table]:
    """Status of every planned cell."""
    rows, places = [], ("precision", "device")
    for record in findings.data.cells.to_dict("records"):
        gates = [record.get(f"final_gate_{kind}_abs") for kind in ("mean", "max")]
        rows.append(
            row(
                str(record["label"]),
                str(record["cell_id"])[:12],
                str(record["status"]),
                *("" if is_missing(record.get(n)) else str(record[n]) for n in places),
                _error(record),
                *(MISSING if is_missing(gate) else f"{gate:.3f}" for gate in gates),
            )
        )
    table = Table(
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
    return [table]


def environment_table(findings: Findings) -> list[Table]:
    """What the grid ran on, as names and values."""
    rows = [row(str(name), str(value)) for name, value in _flatten(findings.data.environment)]
    table = Table(
        name="environment",
        title="Environment",
        header=("What", "Value"),
        rows=tuple(rows),
        num_text_columns=2,
    )
    return [table]


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
