"""The theory in a report: the simulated rates, as `zbench theory` left them beside it.

The simulation is our illustration of the theorems of arXiv 2502.03029; the paper has no such
figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from harness.errors import StorageError
from harness.report.numbers import MISSING
from harness.report.page import Section, html, panel_images, render_page
from harness.report.render import Row, Table, row
from harness.report.theory_figure import drawings
from harness.theory.identity import STRENGTH, Identity
from harness.theory.slopes import FEWEST_OBSERVATIONS, verdict
from harness.theory.statements import cautions, exponent_text, number_text, slope_text, statements
from harness.theory.summary import LATE, STUDY_FILE, Study
from harness.theory.summary import Row as SlopeRow

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
