"""The losses on validation rows, and the epochs whose weights are kept."""

from __future__ import annotations

from harness.analysis.findings import Findings
from harness.analysis.measurements import name_of
from harness.report.numbers import number, share_text
from harness.report.render import Table, blocks


def validation_table(findings: Findings) -> list[Table]:
    """Validation losses at the largest share of the data, where rows were held out."""
    lines = []
    for curves in findings.losses:
        for variant, epochs in curves.validation.items():
            means = {epoch: sum(losses) / len(losses) for epoch, losses in epochs.items()}
            kept = ", ".join(str(epoch) for epoch in curves.kept[variant])
            lines.append(
                [
                    *(variant.model, name_of(variant), share_text(variant.fraction), kept),
                    *(number(means[epoch], ".4f") for epoch in (min(means), max(means))),
                    number(min(means.values()), ".4f"),
                    str(min(means, key=lambda epoch: means[epoch])),
                ]
            )
    table = Table(
        name="validation",
        title="Loss on the validation rows (mean of the seeds, nats per response token)",
        header=(
            *("Model", "Method", "Data", "Kept epochs"),
            *("First epoch", "Last epoch", "Lowest", "At epoch"),
        ),
        rows=blocks(lines),
        caption=(
            "Measured after each epoch in evaluation mode, on rows that no cell of the data set "
            "trains on. Kept epochs: whose weights are saved and scored, by seed; under `keep: "
            "best` that of the lowest loss. The first epoch is 0, as in the figure.",
        ),
        num_text_columns=4,
    )
    return [table] if lines else []
