"""The theory in print: the files of `zbench theory`, and its section of a report.

The simulation is our illustration of the theorems of arXiv 2502.03029; the paper has no such
figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import StorageError
from harness.records.files import write_bytes
from harness.report.numbers import MISSING
from harness.report.page import Section, html, panel_images, render_page
from harness.report.render import Row, Table, row, to_markdown
from harness.report.theory_figure import drawings
from harness.theory.identity import STRENGTH, Identity
from harness.theory.slopes import FEWEST_OBSERVATIONS, verdict
from harness.theory.statements import cautions, exponent_text, number_text, slope_text, statements
from harness.theory.summary import LATE, STUDY_FILE, Study
from harness.theory.summary import Row as SlopeRow

if TYPE_CHECKING:
    from harness.theory.study import Errors

GATES_SET = (
    f"The gates are set to tanh(g) = {STRENGTH:g} for this table; before training they are 0 and "
    "the prompts add nothing."
)


def theory_section(folder: Path) -> str:
    """HTML of the study that `zbench theory` left in a folder, nothing without one.

    A study that cannot be read is reported in its place: the report is about the grid.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        return ""
    try:
        study = Study.from_json(path.read_text(encoding="utf-8"), place=path.name)
    except (StorageError, OSError, UnicodeDecodeError) as fault:
        return html("paragraphs", [f"{fault}."])
    return section_html(study)


def section_html(study: Study) -> str:
    """Figure, findings, tables and cautions of a study."""
    parts = [
        html("paragraphs", [size_text(study)]),
        *(html("drawing", drawing, panel_images(drawing)) for drawing in drawings(study)),
        html("bullets", statements(study)),
        html("tables", [slope_table(study)]),
        "<h3>What may not be read from it</h3>",
        html("bullets", cautions(study)),
    ]
    if study.identities:
        tables = html("tables", [identity_table(found) for found in study.identities])
        title = "Attention as a mixture of experts, on the demo model"
        parts.append(html("folded", title, tables))
    return "\n".join(parts)


def theory_page(study: Study, file_names: Sequence[str]) -> str:
    """A page with this study alone."""
    names = html("paragraphs", [", ".join(file_names)])
    return render_page(
        grid_name=f"theory, {study.size}",
        heading="Convergence rates of prompts and gates",
        status=size_text(study),
        box="",
        lead=(),
        figures_key="",
        sections=(
            Section("theory", "Convergence rates (our simulation)", section_html(study)),
            Section("files", "Files beside this page", names),
        ),
    )


def size_text(study: Study) -> str:
    """How large a study is, in one sentence."""
    return (
        f"Suite '{study.size}': {len(study.efforts)} settings, n from {study.sizes[0]:,} to "
        f"{study.sizes[-1]:,}, up to {study.repetitions} repetitions at each, seed {study.seed}."
    )


def slope_table(study: Study) -> Table:
    """Slopes with intervals beside the expected exponents."""
    rows: list[Row] = []
    expected = [found for found in study.rows if found.expected]
    for title, group in groupby(expected, key=lambda found: found.scenario.setting_title):
        rows.append(row(title, *[""] * 7, starts_block=True))
        rows += [_slope_row(found) for found in group]
    return Table(
        name="slopes",
        title="Slopes of log error on log n, with 95% intervals",
        header=(
            *("Truth, model", "Error of", "Source"),
            *("Expected", "Slope", f"From n = {LATE:,}", "Bound", "Interval"),
        ),
        rows=tuple(rows),
        caption=(
            f"Slope: least squares on the mean error at n ≥ {FEWEST_OBSERVATIONS:,}; interval: "
            "bootstrap over the repetitions within each n. Expected: exponent of n in the limit, "
            "by the paper's theorem (an upper bound, up to a power of log n), by another theorem "
            "of the group, or derived in docs/theory.md; it holds under the condition in the first "
            "column. Bound: the slope that the Cramér–Rao bound gives over the same n.",
            "Interval: whether that of the slope holds the expected exponent; steeper is faster. "
            f"An interval from n = {LATE:,} on that does not hold it is marked likewise.",
        ),
        num_text_columns=3,
    )


def _slope_row(found: SlopeRow) -> Row:
    assert found.expected is not None
    exponent = found.expected.exponent
    late = verdict(found.late_slope, exponent)
    return row(
        found.scenario.model_title,
        found.title,
        found.expected.source,
        exponent_text(exponent),
        slope_text(found.slope),
        slope_text(found.late_slope) + (f" {late}" if late in ("steeper", "flatter") else ""),
        MISSING if found.predicted is None else number_text(found.predicted),
        found.verdict,
    )


def identity_table(found: Identity) -> Table:
    """Terms of the mixture at one head and token, with their sum and the difference."""
    is_joint = found.strength is None
    factor = MISSING if is_joint else f"{found.strength:.3f}"
    rows = [
        row(
            term.expert,
            f"{term.gate:.4f}",
            factor if term.is_prompt else MISSING,
            f"{term.value:.4f}",
            f"{term.contribution:.4f}",
        )
        for term in found.terms
    ]
    tokens, prompts = (sum(t.gate for t in found.terms if t.is_prompt is k) for k in (False, True))
    gates = f"tokens {tokens:.4f}, prompts {prompts:.4f}"
    rows += [
        row("Sum", gates, "", "", f"{found.total:.4f}", starts_block=True),
        row("The model's own output", "", "", "", f"{found.output:.4f}"),
        row("Difference", "", "", "", f"{abs(found.total - found.output):.1e}"),
    ]
    kind = "one softmax over tokens and prompts" if is_joint else "a softmax each, gate on prompts"
    return Table(
        name=f"identity-{found.method}",
        title=f"{found.method}: one head as a mixture of experts",
        subtitle=f"demo model, layer {found.layer}, head {found.head}, last token; {kind}",
        header=("Expert", "Gate G", "tanh(g)", "Expert along y", "Contribution"),
        rows=tuple(rows),
        caption=(
            "Experts are W_V times the layer's input at each token, or times a prompt; gates are "
            "their softmax weights; a contribution is gate × factor × ⟨expert, y⟩ / |y|, and all "
            "of them sum to |y|. The sum is made expert by expert from the layer's input and "
            "weights, y by the running model.",
            f"Largest difference over all heads, tokens and coordinates of the layer: "
            f"{found.largest_difference:.1e}, beside a largest coordinate of "
            f"{found.largest_output:.2f}.",
            *([] if is_joint else [GATES_SET]),
        ),
    )


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
        "points.csv": _csv(_head(r) | vars(point) for r in study.rows for point in r.points),
        "fits.csv": _csv(_fits(found)),
    }
    if study.identities:
        contents["experts.csv"] = _csv(_experts(study))
    for drawing in drawings(study):
        contents |= {f"{drawing.name}.{name}": file for name, file in drawing.files().items()}
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


def _head(row: SlopeRow) -> dict[str, object]:
    return {
        "scenario": row.scenario.name,
        "truth": row.scenario.setting_title,
        "model": row.scenario.model_title,
        "rate": row.scenario.rate if row.scenario.is_sequence else None,
        "quantity": row.quantity,
    }


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
