"""What a grid's scores cost: a figure for each column, and the table of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from harness.analysis.findings import Findings
from harness.analysis.pareto import Axis, Front, Place, Point
from harness.analysis.scales import Scale, scale_of
from harness.analysis.tradeoffs import FORGETTING, MEMORY, OPERATIONS, PARAMETERS, Tradeoff
from harness.report.figures import Drawing, Styles, file_name, place_name
from harness.report.numbers import MISSING, scaled, short_count, signed
from harness.report.pareto import DEFINITION, MARKS, front_drawing
from harness.report.records import ends_record, head_record, numbers_record
from harness.report.render import Entry, Table, blocks

FORMS: Mapping[str, Callable[[float], str]] = {
    PARAMETERS.key: short_count,
    OPERATIONS.key: lambda value: f"{value:.3g}",
    MEMORY.key: lambda value: f"{MEMORY.factor * value:.2f}",
    FORGETTING.key: lambda value: signed(value, Scale(1.0, 4)),
}
"""How costs are printed."""
COSTS = {
    PARAMETERS.key: "Trained parameters: of the method, without the frozen base.",
    OPERATIONS.key: "Training FLOPs: computed from the model's shape, the method and the tokens of "
    "its rows, not measured.",
    "device_hours": "Hours: measured time of the training loop times the devices that shared it, "
    "mean of the seeds.",
    MEMORY.key: "Peak memory: of the allocator on CUDA, of the whole process on a CPU, mean of the "
    "seeds.",
    FORGETTING.key: "Forgetting: rise of the general text's bits per byte over the base model's, "
    "with its 95% interval.",
}
"""What each cost is."""


def tradeoff_drawings(findings: Findings, styles: Styles) -> Iterator[Drawing]:
    """Yields a figure for each column that is tested, with a panel for each cost.

    The first one's caption says what the marks, the front and the costs are.
    """
    is_first = True
    for found in findings.tradeoffs:
        if not found.is_drawn:
            continue
        group, where = found.group, _where(found)
        name = f"pareto-{place_name(found.model, found.data)}{group.suffix()}-"
        costs = " ".join(COSTS[f.axis.key] for f in found.fronts if f.axis.key in COSTS)
        told = f" {MARKS} {DEFINITION} {costs}" if is_first else " Marks as in the first figure."
        drawing = front_drawing(
            name + file_name(found.column).strip("-").lower(),
            f"{where}, {group.protocol} protocol: {found.column} against what training costs",
            f"{where}, {group.title}.{told}",
            found.fronts,
            styles,
        )
        if drawing is not None:
            is_first = False
            yield drawing


def _where(found: Tradeoff) -> str:
    return found.model + (f" on {found.data}" if found.data is not None else "")


def cost_score_tables(findings: Findings) -> list[Table]:
    """Scores beside their costs, and the place of each: once per group, model and data set."""
    tables: dict[tuple[str, ...], list[Tradeoff]] = {}
    for found in findings.tradeoffs:
        tables.setdefault((found.group.suffix(), _where(found)), []).append(found)
    names = {v.method: findings.measured.row_name(v) for v in findings.measured.tabled}
    return [_table(entries, suffix, where, names) for (suffix, where), entries in tables.items()]


def _table(found: list[Tradeoff], suffix: str, where: str, names: Mapping[str, str]) -> Table:
    axes = list(dict.fromkeys(front.axis for one in found for front in one.fronts))
    lines: list[list[str | Entry]] = []
    for one in found:
        by_axis = {front.axis: _by_label(front) for front in one.fronts}
        points = {label: point for known in by_axis.values() for label, (point, _) in known.items()}
        scale = scale_of(one.group.unit(one.column), [p.value for p in points.values()])
        for label, point in points.items():
            interval = point.interval and tuple(scaled(end, scale) for end in point.interval)
            entries = [_cost(axis, by_axis.get(axis, {}).get(label)) for axis in axes]
            text = MISSING if interval is None else " to ".join(interval)
            name = names.get(label, label)
            lines.append([one.group.head(one.column), name, scaled(point.value, scale), text,
                          *entries])  # fmt: skip
    titles = {axis.key: axis.title for axis in axes}
    return Table(
        name=f"pareto{suffix}",
        title=f"Scores against costs: {where}",
        subtitle=found[0].group.title,
        header=(
            "Score",
            "Method",
            "Percent" if _all_shares(found) else "Score",
            "95% interval",
            *titles.values(),
        ),  # fmt: skip
        rows=blocks(lines),
        caption=(
            "Each cost with the row's place.",
            DEFINITION,
            " ".join(COSTS[key] for key in titles if key in COSTS),
        ),
        num_text_columns=2,
    )


def _all_shares(found: list[Tradeoff]) -> bool:
    return all(one.group.unit(one.column) is None for one in found)


def _by_label(front: Front) -> dict[str, tuple[Point, Place]]:
    pairs = zip(front.points, front.places, strict=True)
    return {point.label: (point, place) for point, place in pairs}


def _cost(axis: Axis, known: tuple[Point, Place] | None) -> Entry:
    if known is None:
        return Entry()
    point, place = known
    form = FORMS.get(axis.key, lambda value: f"{axis.factor * value:.3g}")
    return Entry("0" if point.cost == 0 else form(point.cost), place)


def cost_score_records(findings: Findings) -> list[dict[str, object]]:
    """One row per column, cost and method, for their CSV; costs in their own units."""
    return [
        {
            **head_record(found.group, found.model, found.data),
            "column": found.column,
            "method": point.style,
            **numbers_record(
                {"value": point.value, **ends_record(point.interval)}, "percent", front.unit
            ),
            "cost": front.axis.key,
            "cost_mean": point.cost,
            "cost_low": point.cost_range[0] if point.cost_range else None,
            "cost_high": point.cost_range[1] if point.cost_range else None,
            "place": place,
            "dominated_by": by,
        }
        for found in findings.tradeoffs
        for front in found.fronts
        for point, place, by in zip(front.points, front.places, front.dominated_by, strict=True)
    ]
