"""What the grid cost, the state of its cells, and what it ran on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.analysis.columns import is_missing, records_of
from harness.analysis.differences import flatten
from harness.analysis.findings import Findings
from harness.analysis.variants import name_of
from harness.report.numbers import number, share_text, short_count, short_seconds
from harness.report.render import Table, blocks, row


def cost_table(findings: Findings) -> list[Table]:
    """What training and evaluation cost."""
    lines = [
        [
            *(line["variant"].model, name_of(line["variant"])),
            share_text(line["variant"].fraction),
            f"{line['num_done']} of {line['num_cells']}",
            short_count(line["trainable_parameters"]),
            *(number(line[name], ",.0f") for name in ("examples", "steps")),
            *(short_seconds(line[name]) for name in ("seconds", "evaluation_seconds")),
            short_seconds(line["predicted_seconds"]),
            number(line["measured_ratio"], ".2f"),
            number(line["tokens_per_second"], ",.0f"),
            number(line["peak_memory_bytes"], ".2f", 2**-30),
            number(line["peak_learning_rate"], ".3g"),
        ]
        for line in findings.costs
    ]
    table = Table(
        name="costs",
        title="Costs (means over the seeds that are done)",
        header=(
            *("Model", "Method", "Data", "Done"),
            *("Trained parameters", "Examples", "Steps", "Training", "Evaluation"),
            *("Predicted", "Measured/predicted", "Tokens/s", "Peak GiB", "Peak lr"),
        ),
        rows=blocks(lines),
        caption=(
            "Trained parameters are rounded here; the paper prints them truncated. Peak memory: of "
            "the allocator on CUDA, of the process on CPU. Tokens: without padding. Predicted: "
            "training and evaluation together, as estimated before the run from a probe of the "
            "machine or from the GPU's data sheet; a dash where nothing was.",
        ),
        num_text_columns=4,
    )
    return [table]


def failure_table(findings: Findings) -> list[Table]:
    """Failed cells and why each failed, where any did."""
    cells = findings.data.cells
    failed = cells[cells["status"] == "failed"].to_dict("records")
    rows = tuple(row(str(record["label"]), _error(record)) for record in failed)
    table = Table("failures", "Failed cells", ("Cell", "Error"), rows, num_text_columns=2)
    return [table] if failed else []


def _error(record: Mapping[Any, Any]) -> str:
    error = record.get("error")
    return "" if is_missing(error) else " ".join(str(error).split())


def cell_table(findings: Findings) -> list[Table]:
    """Status of every planned cell."""
    rows = [
        row(
            *(str(record["label"]), str(record["cell_id"])[:12], str(record["status"])),
            *("" if is_missing(record.get(n)) else str(record[n]) for n in ("precision", "device")),
            _error(record),
            *(number(record.get(f"final_gate_{kind}_abs"), ".3f") for kind in ("mean", "max")),
        )
        for record in records_of(findings.data.cells)
    ]
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
    rows = []
    for name, value in flatten(findings.data.environment):
        if isinstance(value, list | tuple):
            rows.append(row(name, ", ".join(map(str, value))))
        elif not is_missing(value):
            rows.append(row(name, str(value)))
    head = ("What", "Value")
    return [Table("environment", "Environment", head, tuple(rows), num_text_columns=2)]
