"""The findings of a study with their intervals and verdicts, and what may not be read from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Returns the findings of a study, one sentence each."""
    groups = [
        (f"{model}, {title}", study.find(family="fixed", gating=gating, quantity=quantity))
        for gating, model in _MODELS.items()
        for quantity, title in _HEADLINES.items()
    ]
    others = [study.find(family="fixed", quantity=name) for name in ("over_mean", "centre")]
    others.append(study.find(family="fixed", quantity="voronoi"))
    groups += [
        ("Fixed truths, Voronoi loss, and mean and centre of over-fitted cells", sum(others, [])),
        ("Drawn truths (B, C, prompts and biases at random)", study.find(family="random")),
        ("Continuous x instead of the grid", study.find(family="continuous")),
        ("Truths that move with n", [row for row in study.find() if row.scenario.rate]),
    ]
    lines = []
    for title, found in groups:
        if rows := [row for row in found if row.expected]:
            lines.append(f"{title}: {agreement(rows)}.")
    return [*lines, *_fixed_comparison(study), *_moving_comparisons(study)]


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


def _fixed_comparison(study: Study) -> Iterator[str]:
    """Calls the joint softmax slower only where it is flatter than its own exponent too."""
    pairs = [
        (joint, zero)
        for quantity in ("single", "over")
        for joint in study.find(family="fixed", gating="joint", quantity=quantity)
        for zero in study.find(
            family="fixed",
            gating="zero-init",
            quantity=quantity,
            is_linear=joint.scenario.is_linear,
            extra_atoms=joint.scenario.extra_atoms,
        )
    ]
    slower = "; ".join(
        f"{joint.scenario.setting_title}, {joint.title}, {slope_text(joint.slope)} against "
        f"zero-init's {slope_text(zero.slope)}"
        for joint, zero in pairs
        if _is_slower(joint, zero) and joint.verdict == "flatter"
    )
    if slower:
        yield f"{_MODELS['joint']}, it is slower than zero-init here: {slower}."
    elif pairs:
        yield (
            f"{_MODELS['joint']}, no slope of its prompts is both flatter than expected and above "
            "zero-init's interval: at such a truth this run gives no ground to call the joint "
            "softmax slow."
        )


def _moving_comparisons(study: Study) -> Iterator[str]:
    for family, quantity in (("copy", "voronoi"), ("gate", "prompt"), ("merge", "prompt")):
        for joint in study.find(family=family, gating="joint", quantity=quantity):
            rate = joint.scenario.rate
            rows = study.find(family=family, gating="zero-init", rate=rate, quantity=quantity)
            zero = next((row for row in rows if not row.scenario.knows_alpha), None)
            if not rate or zero is None:
                continue
            end = "the intervals do not tell the two apart"
            if _is_slower(zero, joint):
                end = "zero-init is the slower one"
            elif _is_slower(joint, zero):
                end = "the joint softmax is the slower one"
            each = (f"{row.scenario.model_title} {slope_text(row.slope)}, {_expectation(row)}"
                    for row in (joint, *rows))  # fmt: skip
            title = joint.scenario.setting_title
            yield f"{title[0].upper()}{title[1:]}, {joint.title}: {'; '.join(each)}; {end}."


def _expectation(row: Row) -> str:
    assert row.expected is not None
    exponent = exponent_text(row.expected.exponent)
    return f"{'holds' if row.verdict == 'holds it' else f'{row.verdict} than'} {exponent}"


def _is_slower(row: Row, other: Row) -> bool:
    assert row.slope is not None
    assert other.slope is not None
    return row.slope.low > other.slope.high


def cautions(study: Study) -> list[str]:
    """Returns what may not be read from a study."""
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
