"""What a study supports, in words that are made from its intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from harness.theory.slopes import FEWEST_OBSERVATIONS, Slope, logarithmic_slope
from harness.theory.summary import LATE, Row, Study

NO_CONVERGENCE = -0.1
"""A slope whose whole interval is above this is said to converge hardly, if at all."""


MOST_NAMED = 3
"""Of steeper slopes in one sentence."""


def exponent_text(exponent: float) -> str:
    """Returns an exponent as a fraction: -0.25 is `−1/4`."""
    return str(Fraction(exponent).limit_denominator(64)).replace("-", "−")


def number_text(value: float) -> str:
    """Returns a slope with three decimals and a proper minus."""
    text = f"{abs(value):.3f}"
    return ("−" if value < 0 and float(text) else "") + text


def slope_text(slope: Slope | None) -> str:
    """Returns `−0.502 [−0.521, −0.484]`, or a dash."""
    if slope is None:
        return "–"
    return f"{number_text(slope.value)} [{number_text(slope.low)}, {number_text(slope.high)}]"


def verdict(slope: Slope | None, exponent: float) -> str:
    """Returns how an interval lies to an exponent: `holds it`, `steeper`, `flatter` or a dash.

    Steeper is faster: the error falls more quickly than the exponent says.
    """
    if slope is None:
        return "–"
    if slope.covers(exponent):
        return "holds it"
    return "steeper" if slope.high < exponent else "flatter"


def statements(study: Study) -> list[str]:
    """Returns the findings of a study, one sentence or two each."""
    lines = [*_zero_init(study), *_joint(study), *_copies(study), *_corners(study)]
    others = ("over_mean", "centre", "voronoi")
    rows = [row for name in others for row in study.find(family="fixed", quantity=name)]
    rows = [row for row in rows if row.expected]
    if rows:
        lines.append(
            "Fixed truths, Voronoi loss, and mean and centre of over-fitted cells: "
            f"{agreement(rows)}"
        )
    lines += _sequences(study)
    for family, title in (
        ("random", "Drawn truths (B, C, prompts and biases at random)"),
        ("continuous", "Continuous x instead of the grid"),
    ):
        rows = [row for row in study.find(family=family) if row.expected]
        if rows:
            lines.append(f"{title}: {agreement(rows)}")
    return lines


def agreement(rows: Sequence[Row]) -> str:
    """Returns how many intervals hold their expected exponents, and names those that do not.

    Flatter ones are named each; steeper ones, which contradict no upper bound, where they are few.
    """
    off: dict[str, list[str]] = {"flatter": [], "steeper": []}
    for row in rows:
        assert row.expected is not None
        found = verdict(row.slope, row.expected.exponent)
        if found in off:
            off[found].append(_excluded(row, found))
    steeper, flatter = off["steeper"], off["flatter"]
    held = len(rows) - len(steeper) - len(flatter)
    text = f"{held} of {len(rows)} intervals hold the expected exponent."
    if len(rows) == 1:
        text = f"its interval {'holds' if held else 'does not hold'} the expected exponent."
    named = flatter + (steeper if len(steeper) <= MOST_NAMED else [])
    if len(steeper) > MOST_NAMED:
        text += f" {len(steeper)} are steeper, as the table shows."
    return text + "".join(f" {line}." for line in named)


def _excluded(row: Row, found: str) -> str:
    """Returns which interval does not hold its exponent, and what it does from LATE on."""
    assert row.expected is not None
    exponent = row.expected.exponent
    late = ""
    if row.late_slope is not None:
        answer = verdict(row.late_slope, exponent)
        late = f"; from n = {LATE:,} on {slope_text(row.late_slope)}, " + (
            "which holds it" if answer == "holds it" else f"still {answer}"
        )
        if answer not in ("holds it", found):
            late = late.replace("still", "then")
    return (
        f"{found.capitalize()} than {exponent_text(exponent)}: {row.scenario.model_title}, "
        f"{row.scenario.setting_title}, {row.title}, {slope_text(row.slope)}{late}"
    )


def _range(rows: Sequence[Row]) -> str:
    values = sorted(row.slope.value for row in rows if row.slope)
    low, high = number_text(values[0]), number_text(values[-1])
    return f"slope {low}" if len(rows) == 1 else f"slopes {low} to {high}"


def _zero_init(study: Study) -> Iterator[str]:
    for quantity, title in (
        ("single", "cells with one fitted prompt, expected −1/2"),
        ("over", "cells with several fitted prompts, expected −1/4"),
        ("alpha", "the gate alpha, expected −1/2"),
    ):
        rows = study.find(family="fixed", gating="zero-init", quantity=quantity)
        if rows:
            yield (
                f"Zero-init attention at a fixed truth, {title}: {_range(rows)}; {agreement(rows)}"
            )


def _joint(study: Study) -> Iterator[str]:
    condition = (
        "Joint softmax at a fixed truth, where key and value share one prompt and B and C have "
        "full column rank"
    )
    compared = []
    for quantity, title in (
        ("single", "cells with one fitted prompt, expected −1/2"),
        ("over", "cells with several fitted prompts, expected −1/4"),
    ):
        rows = study.find(family="fixed", gating="joint", quantity=quantity)
        if rows:
            yield f"{condition}, {title}: {_range(rows)}; {agreement(rows)}"
            compared += [(row, _same_setting(study, row)) for row in rows]
    above = [(row, other) for row, other in compared if other and _is_slower(row, other)]
    slower = [(row, other) for row, other in above if _is_flatter(row)]
    if slower:
        yield f"{condition}, it is slower than zero-init here: {_pairs(slower)}."
    elif above:
        yield (
            f"{condition}, no slope of its prompts is flatter than expected; some lie above "
            f"zero-init's, which are steeper still: {_pairs(above)}. At such a truth this run "
            "gives no ground to call the joint softmax slow."
        )
    elif compared:
        yield (
            f"{condition}, no slope of its prompts lies above zero-init's beyond the intervals: "
            "at such a truth this run gives no ground to call the joint softmax slow."
        )


def _pairs(pairs: Sequence[tuple[Row, Row]]) -> str:
    return "; ".join(
        f"{row.scenario.setting_title}, {row.title}, {slope_text(row.slope)} against zero-init's "
        f"{slope_text(other.slope)}"
        for row, other in pairs
    )


def _is_flatter(row: Row) -> bool:
    assert row.expected is not None
    return verdict(row.slope, row.expected.exponent) == "flatter"


def _same_setting(study: Study, row: Row) -> Row | None:
    """Returns zero-init's row of the same truth, prompts and quantity."""
    scenario = row.scenario
    found = study.find(
        family=scenario.family, gating="zero-init", is_linear=scenario.is_linear,
        extra_atoms=scenario.extra_atoms, rate=scenario.rate, quantity=row.quantity,
        knows_alpha=False,
    )  # fmt: skip
    return found[0] if found else None


def _is_slower(row: Row, other: Row) -> bool:
    assert row.slope is not None
    assert other.slope is not None
    return row.slope.low > other.slope.high


def _copies(study: Study) -> Iterator[str]:
    for joint in study.find(family="copy", gating="joint", quantity="voronoi"):
        zero = _same_setting(study, joint)
        if zero is None or not joint.scenario.rate:
            continue
        assert joint.slope is not None
        assert zero.slope is not None
        slow = _is_slower(joint, zero)
        if joint.slope.low > 0:
            ours = "does not converge"
        elif joint.slope.low > NO_CONVERGENCE:
            ours = "converges hardly, if at all"
        else:
            ours = "is slower than zero-init" if slow else "is not seen to be slower than zero-init"
        theirs = {
            "holds it": "keeps −1/2",
            "steeper": "is steeper than −1/2",
            "flatter": "is flatter than −1/2",
        }[verdict(zero.slope, -0.5)]
        yield (
            "Along truths whose prompts drift to copies of the pre-trained words, at distance "
            f"proportional to n^{exponent_text(-joint.scenario.rate)}, the joint softmax {ours} "
            f"(Voronoi loss D: {slope_text(joint.slope)}) and zero-init {theirs} "
            f"({slope_text(zero.slope)})."
        )


def _sequences(study: Study) -> Iterator[str]:
    """Yields how the sequences' slopes lie to the limit's exponents and to the bound's slopes."""
    rows = [row for row in study.rows if row.scenario.rate and row.expected and row.slope]
    if not rows:
        return
    found: dict[str, list[Row]] = {"holds it": [], "steeper": [], "flatter": []}
    near_bound = 0
    for row in rows:
        assert row.expected is not None
        assert row.slope is not None
        found[verdict(row.slope, row.expected.exponent)].append(row)
        near_bound += row.predicted is not None and row.slope.covers(row.predicted)
    flatter = "; ".join(
        f"{row.scenario.model_title}, {row.scenario.setting_title}, {row.title}, "
        f"{slope_text(row.slope)}"
        for row in found["flatter"]
    )
    yield (
        f"Truths that move: of {len(rows)} intervals {len(found['holds it'])} hold the limit's "
        f"exponent, {len(found['steeper'])} are steeper and {len(found['flatter'])} flatter"
        + (f" ({flatter})" if flatter else "")
        + f"; {near_bound} hold the slope that the Cramér–Rao bound gives over the same n."
    )


def _corners(study: Study) -> Iterator[str]:
    for family, story in (
        ("gate", "Where the gate of zero-init goes to 0 as n^{rate}, and the prompt mass of the "
                 "joint softmax likewise"),
        ("merge", "Where two prompts merge, at distance proportional to n^{rate} (L = 2)"),
    ):  # fmt: skip
        for joint in study.find(family=family, gating="joint", quantity="prompt"):
            zero = _same_setting(study, joint)
            if zero is None or not joint.scenario.rate:
                continue
            rows = [zero, *_alpha_known(study, zero), joint]
            each = ", ".join(f"{r.scenario.model_title} {slope_text(r.slope)}" for r in rows)
            if _is_slower(zero, joint):
                end = "zero-init is the slower one"
            elif _is_slower(joint, zero):
                end = "the joint softmax is the slower one"
            else:
                end = "the intervals do not tell the two apart"
            place = story.format(rate=exponent_text(-joint.scenario.rate))
            yield f"{place}: prompts {each}; {end}."


def _alpha_known(study: Study, zero: Row) -> list[Row]:
    return study.find(
        family=zero.scenario.family, gating="zero-init", rate=zero.scenario.rate,
        quantity=zero.quantity, knows_alpha=True,
    )  # fmt: skip


def cautions(study: Study) -> list[str]:
    """Returns what may not be read from a study."""
    sizes = [n for n in study.sizes if n >= FEWEST_OBSERVATIONS]
    logs = np.log(np.log(sizes))
    tau = float(np.polyfit(np.log(sizes), -logs, 1)[0])
    extra = max(effort.scenario.extra_atoms for effort in study.efforts)
    num_intervals = sum(row.expected is not None and row.slope is not None for row in study.rows)
    lowest = min(study.efforts, key=lambda effort: effort.converged)
    empty = sum(effort.empty_cells for effort in study.efforts)
    return [
        "This is our illustration of the theorems, in a small invented world with two-dimensional "
        "inputs and prompts; it is no figure of the paper, which prints no such experiment.",
        "The theorems are upper bounds with a logarithm: over these n, (log n / n)^(1/2) has slope "
        f"{number_text(logarithmic_slope(0.5, sizes))} and (log n / n)^(1/4) "
        f"{number_text(logarithmic_slope(0.25, sizes))}; a steeper slope contradicts neither.",
        f"1 / log^tau(n) has slope {number_text(tau)} tau over these n, with tau unknown: no run "
        "of this length can tell it from a small power of n, and none is claimed to show it.",
        "The sequence of copies is ours, not the paper's proof: one way in which the joint softmax "
        "is slow, under its condition, and no statement about a fixed truth.",
        "Separate prompts for key and value are not simulated here.",
        "The rate of over-fitted cells needs a bounded set of parameters, and the error's size "
        f"depends on the bounds; fits had at most L + {extra} prompts.",
        "An interval is made from the repetitions alone and knows nothing of a lack of fit to a "
        "line; the limit's exponent may be reached only beyond these n. The column of the "
        "Cramér–Rao bound tells what theory gives over the very same n. Of "
        f"{num_intervals} such intervals about {0.05 * num_intervals:.0f} miss by chance alone.",
        f"The lowest of several starts near the truth is kept; {100 * lowest.converged:.1f}% of "
        f"the fits came to rest in the worst case ({lowest.scenario.model_title}, "
        f"{lowest.scenario.setting_title}). Cells left without a fitted prompt: {empty}.",
    ]
