"""The table of forgetting: general text before and after training."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.findings import Findings
from harness.analysis.forgetting import Forgetting
from harness.analysis.scales import Scale
from harness.analysis.stats import Estimate
from harness.analysis.variants import name_of
from harness.report.numbers import MISSING, interval_text, scaled, signed
from harness.report.records import ends_record, head_record
from harness.report.render import Entry, Table, blocks

SCALE = Scale(1.0, 4)
"""Bits per byte as they are printed."""


def missing_lines(findings: Findings) -> list[str]:
    """What is lacking of the models that have no row at all, one line each."""
    return [f"{one.missing}." for one in findings.forgotten if one.missing and not one.changes]


def forgetting_tables(findings: Findings) -> list[Table]:
    """Once per text: the base model and every trained row, with what training changed."""
    texts: dict[tuple[str, str], list[Forgetting]] = {}
    for found in findings.forgotten:
        if found.changes:
            texts.setdefault((found.group.title, found.column), []).append(found)
    suffixes = ["", *(f"-{number}" for number in range(2, len(texts) + 1))]
    return [
        _table(entries, suffix) for entries, suffix in zip(texts.values(), suffixes, strict=False)
    ]


def _table(found: Sequence[Forgetting], suffix: str) -> Table:
    rows: list[list[str | Entry]] = []
    for one in found:
        assert one.base is not None
        rows.append([one.model, name_of(one.base), "", _value(one.before), *[""] * 2])
        for change in one.changes:
            low_high = interval_text(change.change.interval, scale=SCALE)
            rows.append(
                [
                    *(one.model, name_of(change.variant), str(change.change.num_seeds)),
                    *(_value(change.after), _value(change.change, is_signed=True), low_high),
                ]
            )
    changes = [change.change for one in found for change in one.changes]
    documents = "–".join(map(str, sorted({estimate.num_items for estimate in changes})))
    group, column = found[0].group, found[0].column
    return Table(
        name=f"forgetting{suffix}",
        title=f"Forgetting: {column}, after training minus before",
        subtitle=group.title,
        header=("Model", "Method", "Seeds", "Bits per byte", "Forgetting", "95% interval"),
        rows=blocks(rows),
        notes=tuple(f"{one.missing}." for one in found if one.missing is not None),
        caption=(
            f"Minus the log-likelihood (base 2) of {documents} documents over their bytes, ± one "
            "standard error; the lower, the better the text is predicted. Forgetting: after minus "
            "before, paired by document and seed; above 0 the text has become less likely, below 0 "
            f"more. {_errors(changes)} Differences are not corrected for their number. Plain text: "
            "no template, no chat.",
        ),
        num_text_columns=2,
    )


def _errors(changes: Sequence[Estimate]) -> str:
    """What the errors know."""
    texts = ["The error takes documents and seeds as random."]
    if any(one.basis == "pooled" for one in changes):
        texts.append("The spread over seeds is pooled over the rows (moderated variance).")
    if any(one.scope == "models" for one in changes):
        texts.append("Of one seed it is of this trained model, not of its method.")
    return " ".join(texts)


def _value(estimate: Estimate | None, *, is_signed: bool = False) -> Entry:
    if estimate is None:
        return Entry(MISSING)
    text = signed(estimate.value, SCALE) if is_signed else scaled(estimate.value, SCALE)
    return Entry(text, "" if estimate.stderr is None else f"± {scaled(estimate.stderr, SCALE)}")


def forgetting_records(findings: Findings) -> list[dict[str, object]]:
    """Tidy records for the CSV: one row per text and trained row."""
    return [
        {
            **head_record(found.group, found.model, change.variant.data),
            "column": found.column,
            "method": change.variant.method,
            "num_seeds": change.change.num_seeds,
            "num_documents": change.change.num_items,
            "before_bits_per_byte": found.before.value if found.before else None,
            "after_bits_per_byte": change.after.value,
            "forgetting_bits_per_byte": change.change.value,
            "stderr": change.change.stderr,
            **ends_record(change.change.interval),
        }
        for found in findings.forgotten
        for change in found.changes
    ]
