"""The files of `zbench theory`: its numbers as CSV and JSON, the figures, the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.records.files import write_bytes
from harness.report.figures import FORMATS
from harness.report.render import to_markdown
from harness.report.theory import slope_table, theory_page
from harness.report.theory_figure import drawings
from harness.theory.study import Errors
from harness.theory.summary import STUDY_FILE, Row, Study


def write_study(study: Study, found: Iterable[Errors], folder: Path) -> list[Path]:
    """Writes a study and returns the files, the page last; the same study gives the same bytes.

    theory.json is what a report reads; slopes.csv has a row per slope, points.csv one per mean
    error, fits.csv one per fit, experts.csv one per term of the mixture of experts.

    Raises:
        StorageError: a file cannot be written.
    """
    contents = {
        STUDY_FILE: study.to_json().encode(),
        "slopes.csv": _csv(slope_records(study)),
        "points.csv": _csv(_points(study)),
        "fits.csv": _csv(_fits(found)),
    }
    if study.identities:
        contents["experts.csv"] = _csv(_experts(study))
    for drawing in drawings(study):
        contents |= {f"{drawing.name}.{suffix}": drawing.render(suffix) for suffix in FORMATS}
    contents["slopes.md"] = to_markdown(slope_table(study)).encode()
    contents["index.html"] = theory_page(study, list(contents)).encode()
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return [folder / name for name in contents]


def slope_records(study: Study) -> list[dict[str, object]]:
    """A record per slope, those without an expected exponent too."""
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


def _points(study: Study) -> Iterator[dict[str, object]]:
    return (_head(row) | vars(point) for row in study.rows for point in row.points)


def _fits(found: Iterable[Errors]) -> Iterator[dict[str, object]]:
    for errors in found:
        columns = {"chi2": errors.chi2, "converged": errors.converged, **errors.losses}
        head = {"scenario": errors.scenario.name, "n": errors.n}
        for index, values in enumerate(zip(*columns.values(), strict=True)):
            yield head | {"repetition": index} | dict(zip(columns, values, strict=True))


def _experts(study: Study) -> Iterator[dict[str, object]]:
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


def _csv(records: Iterable[Mapping[str, object]]) -> bytes:
    """Records as CSV: all their columns, empty where a record has none or a NaN."""
    import pandas as pd

    return pd.DataFrame(list(records)).to_csv(index=False, lineterminator="\n").encode()
