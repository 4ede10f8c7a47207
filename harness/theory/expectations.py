"""The exponents that theory gives for each quantity, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass

from harness.theory.scenarios import Scenario

THEOREM = "the paper's theorem"
"""Of arXiv 2502.03029, zero-initialised attention; up to a power of log n."""
SHARED = "arXiv 2410.02200"
"""The same group's theorem on prefix tuning with shared keys and values; up to a power of log n."""
DERIVED = "derived here"
"""In docs/theory.md."""


@dataclass(frozen=True)
class Expectation:
    """error ~ n^exponent."""

    exponent: float
    source: str


def expectations(scenario: Scenario) -> dict[str, Expectation]:
    """Expected exponents of a scenario, by quantity; tables show these alone.

    Those of sequences are limits: they hold once the truth is close to where it goes.
    """
    rate, is_joint = scenario.rate, scenario.gating == "joint"
    if scenario.family == "copy":
        slow = 2 * rate if is_joint else 0.0
        return {
            "prompt": Expectation(-0.5 + (rate if is_joint else 0.0), DERIVED),
            "mass": Expectation(-0.5 + slow, DERIVED),
            "voronoi": Expectation(-0.5 + slow, DERIVED),
        }
    if scenario.family == "gate":
        return {"prompt": Expectation(-0.5 + rate, DERIVED)}
    if scenario.family == "merge":
        power = 2 if is_joint or scenario.knows_alpha else 4
        return {"prompt": Expectation(-0.5 + power * rate, DERIVED)}
    source = SHARED if is_joint else THEOREM
    found = {"single": Expectation(-0.5, source)}
    if scenario.extra_atoms:
        found |= {
            "over": Expectation(-0.25, source),
            "over_mean": Expectation(-0.25, DERIVED),
            "centre": Expectation(-0.5, DERIVED),
        }
    found["voronoi"] = Expectation(-0.5, source)
    if not is_joint:
        found["alpha"] = Expectation(-0.5, source)
    return found
