"""The findings of a study with their intervals and verdicts, and what may not be read from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from harness.theory.slopes import FEWEST_OBSERVATIONS, Slope, logarithmic_slope
from harness.theory.summary import Row, Study

MOST_NAMED = 3
"""Steeper slopes in one sentence: they contradict no upper bound. Flatter ones are all named."""
_MODELS = {
    "zero-init": "Zero-init attention at a fixed truth",
    "joint": "Joint softmax at a fixed truth, where key and value share one prompt and B and C "
    "have full column rank",
}
_HEADLINES = {
    "single": "cells with one fitted prompt",
    "over": "cells with several fitted prompts",
    "alpha": "the gate alpha",
}
_COMPARED = {
    "fixed": ("single", "over"),
    "copy": ("voronoi",),
    "gate": ("prompt",),
    "merge": ("prompt",),
}
"""Quantities by which the two models are compared, by family of truths."""


def exponent_text(exponent: float) -> str:
    """An exponent as a fraction: -0.25 is `−1/4`."""
    return str(Fraction(exponent).limit_denominator(64)).replace("-", "−")


def number_text(value: float) -> str:
    """A slope with three decimals and a proper minus."""
    text = f"{abs(value):.3f}"
    return ("−" if value < 0 and float(text) else "") + text


def slope_text(slope: Slope | None) -> str:
    """`−0.502 [−0.521, −0.484]`, or a dash."""
    if slope is None:
        return "–"
    return f"{number_text(slope.value)} [{number_text(slope.low)}, {number_text(slope.high)}]"


def statements(study: Study) -> list[str]:
    """Findings of a study, one sentence each."""
    groups = [
        (f"{model}, {title}", study.find(family="fixed", gating=gating, quantity=quantity))
        for gating, model in _MODELS.items()
        for quantity, title in _HEADLINES.items()
    ]
    names = ("over_mean", "centre", "voronoi")
    others = [row for name in names for row in study.find(family="fixed", quantity=name)]
    groups += [
        ("Fixed truths, Voronoi loss, and mean and centre of over-fitted cells", others),
        ("Drawn truths (B, C, prompts and biases at random)", study.find(family="random")),
        ("Continuous x instead of the grid", study.find(family="continuous")),
        ("Truths that move with n", [row for row in study.find() if row.scenario.rate]),
    ]
    expected = [(title, [row for row in found if row.expected]) for title, found in groups]
    agreements = [f"{title}: {agreement(rows)}." for title, rows in expected if rows]
    return [*agreements, *_comparisons(study)]


def agreement(rows: Sequence[Row]) -> str:
    """How many intervals hold their expected exponents, and which do not."""
    exponents = {row.expected.exponent for row in rows if row.expected}
    values = sorted(row.slope.value for row in rows if row.slope)
    text = ""
    if len(exponents) == 1:
        slopes = f"slopes {number_text(values[0])} to {number_text(values[-1])}"
        if len(rows) == 1:
            slopes = f"slope {slope_text(rows[0].slope)}"
        text = f"expected {exponent_text(exponents.pop())}, {slopes}; "
    held = sum(row.verdict == "holds it" for row in rows)
    text += f"{held} of {len(rows)} intervals hold the expected exponent"
    for verdict in ("flatter", "steeper"):
        off = [
            f"{row.scenario.model_title}, {row.scenario.setting_title}, {row.title}, "
            f"{slope_text(row.slope)}"
            for row in rows
            if row.verdict == verdict
        ]
        if verdict == "steeper" and len(off) > MOST_NAMED:
            text += f"; {len(off)} are steeper"
        elif off:
            text += f"; {verdict}: {'; '.join(off)}"
    bounded = [
        row.slope.covers(row.predicted) for row in rows if row.slope and row.predicted is not None
    ]
    if bounded:
        text += f"; {sum(bounded)} hold the slope that the Cramér–Rao bound gives over the same n"
    return text


def _comparisons(study: Study) -> Iterator[str]:
    """Yields each joint row beside zero-init's at the same truth.

    At a fixed truth the joint softmax is called slower only where it is flatter than its own
    exponent too: zero-init may be steeper than its bound.
    """
    for joint in study.find(gating="joint"):
        scenario = joint.scenario
        others = [
            row
            for row in study.find(gating="zero-init", quantity=joint.quantity)
            if replace(row.scenario, gating="joint", knows_alpha=False) == scenario
        ]
        is_compared = joint.quantity in _COMPARED.get(scenario.family, ())
        if not others or not is_compared or (scenario.is_sequence and not scenario.rate):
            continue
        is_fixed, zero = not scenario.is_sequence, others[0]
        if _is_above(zero, joint):
            end = "zero-init is the slower one"
        elif _is_above(joint, zero) and (not is_fixed or joint.verdict == "flatter"):
            end = "the joint softmax is the slower one"
        elif is_fixed:
            end = "no ground to call the joint softmax slow"
        else:
            end = "the intervals do not tell the two apart"
        title = f"{scenario.setting_title}, {joint.title}"
        each = [f"{row.scenario.model_title} {_slope_verdict(row)}" for row in (joint, *others)]
        yield f"{title[0].upper()}{title[1:]}: {'; '.join(each)}; {end}."


def _slope_verdict(row: Row) -> str:
    assert row.expected is not None
    exponent = exponent_text(row.expected.exponent)
    lies = "holds" if row.verdict == "holds it" else f"{row.verdict} than"
    return f"{slope_text(row.slope)}, {lies} {exponent}"


def _is_above(row: Row, other: Row) -> bool:
    return bool(row.slope and other.slope and row.slope.low > other.slope.high)


def cautions(study: Study) -> list[str]:
    """What may not be read from a study."""
    sizes = [n for n in study.sizes if n >= FEWEST_OBSERVATIONS]
    tau = float(np.polyfit(np.log(sizes), -np.log(np.log(sizes)), 1)[0])
    extra = max(effort.scenario.extra_atoms for effort in study.efforts)
    num_intervals = sum(row.expected is not None for row in study.find())
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
        "line; the limit's exponent may be reached only beyond these n. The Cramér–Rao bound tells "
        f"what theory gives over the very same n. Of {num_intervals} such intervals about "
        f"{0.05 * num_intervals:.0f} miss by chance alone.",
        f"The best of several starts near the truth is kept; {100 * lowest.converged:.1f}% of the "
        f"fits converged in the worst case ({lowest.scenario.model_title}, "
        f"{lowest.scenario.setting_title}). Cells left without a fitted prompt: {empty}.",
    ]
