"""The files of `zbench theory`: its numbers as CSV and JSON, the figure, the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.records.files import write_bytes
from harness.report.render import to_markdown
from harness.report.theory import slope_table, theory_page
from harness.report.theory_figure import NAME, render
from harness.theory.study import Errors
from harness.theory.summary import STUDY_FILE, Row, Study


def write_study(study: Study, found: Iterable[Errors], folder: Path) -> list[Path]:
    """Writes a study and returns the files, the page last; the same study gives the same bytes.

    theory.json is what a report reads; slopes.csv has a row per slope, points.csv one per mean
    error, fits.csv one per fit, experts.csv one per term of the mixture of experts.

    Raises:
        StorageError: a file cannot be written.
    """
    texts = {
        STUDY_FILE: study.to_json(),
        "slopes.csv": _csv(slope_records(study)),
        "points.csv": _csv(_point_records(study)),
        "fits.csv": _csv(_fit_records(found)),
    }
    if study.identities:
        texts["experts.csv"] = _csv(_expert_records(study))
    contents = {name: text.encode() for name, text in texts.items()}
    contents |= {f"{NAME}.{suffix}": content for suffix, content in render(study).items()}
    contents["slopes.md"] = to_markdown(slope_table(study)).encode()
    contents["index.html"] = theory_page(study, list(contents)).encode()
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return [folder / name for name in contents]


def slope_records(study: Study) -> list[dict[str, object]]:
    """Returns a record per slope, those without an expected exponent too."""
    return [
        {
            **_head(row),
            "expected": row.expected.exponent if row.expected else None,
            "source": row.expected.source if row.expected else None,
            "slope": row.slope.value,
            "low": row.slope.low,
            "high": row.slope.high,
            "late_slope": row.late_slope.value if row.late_slope else None,
            "late_low": row.late_slope.low if row.late_slope else None,
            "late_high": row.late_slope.high if row.late_slope else None,
            "bound_slope": row.predicted,
            "interval": row.verdict if row.expected else None,
        }
        for row in study.rows
        if row.slope is not None
    ]


def _head(row: Row) -> dict[str, object]:
    return {
        "scenario": row.scenario.name,
        "truth": row.scenario.setting_title,
        "model": row.scenario.model_title,
        "rate": row.scenario.rate if row.scenario.is_sequence else None,
        "quantity": row.quantity,
    }


def _point_records(study: Study) -> Iterable[dict[str, object]]:
    return (_head(row) | vars(point) for row in study.rows for point in row.points)


def _fit_records(found: Iterable[Errors]) -> Iterable[dict[str, object]]:
    for errors in found:
        for index, chi2 in enumerate(errors.chi2):
            yield {
                "scenario": errors.scenario.name,
                "n": errors.n,
                "repetition": index,
                "chi2": float(chi2),
                "converged": bool(errors.converged[index]),
                **{name: float(values[index]) for name, values in errors.losses.items()},
            }


def _expert_records(study: Study) -> Iterable[dict[str, object]]:
    for found in study.identities:
        for term in found.terms:
            yield {
                "method": found.method,
                "layer": found.layer,
                "head": found.head,
                "position": found.position,
                "expert": term.expert,
                "is_prompt": term.is_prompt,
                "gate": term.gate,
                "strength": found.strength if term.is_prompt else None,
                "value": term.value,
                "contribution": term.contribution,
            }


def _csv(records: Iterable[Mapping[str, object]]) -> str:
    """Returns records as CSV: all their columns, empty where a record has none or a NaN."""
    listed = list(records)
    columns = list(dict.fromkeys(name for record in listed for name in record))
    target = io.StringIO()
    writer = csv.DictWriter(target, columns, lineterminator="\n")
    writer.writeheader()
    for record in listed:
        # NaN is the one value that differs from itself.
        writer.writerow({k: v for k, v in record.items() if v == v and v is not None})
    return target.getvalue()
