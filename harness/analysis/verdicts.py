"""What becomes of a claim: reproduced, compatible, contradicted or underpowered, by a stated rule.

A claim says that one method is better than another by more than 0, with a margin δ within which a
difference counts as none. Of the difference d, positive as claimed, with its interval [l, u]:

    reproduced     l > 0
    contradicted   u < 0
    compatible     neither, and -δ < d < δ by two one-sided tests (Schuirmann 1987); needs a margin
    underpowered   else: these data do not decide

The p values are Holm's over all claims of a grid, each kind of test over the claims that it is made
of: the tests against 0 together, and the pairs of one-sided tests together. The same of a published
difference, see `judge_published`. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.analysis.stats import Estimate, holm

ALPHA = 0.05
"""Adjusted p below which a difference is called significant, and a test decides."""

Kind = Literal["reproduced", "compatible", "contradicted", "underpowered"]


@dataclass(frozen=True)
class Asked:
    """A claim with what was measured of it; positive is as claimed."""

    difference: Estimate | None
    """None where a side or its records are missing."""
    margin: float | None = None
    """In the unit of the difference."""
    reason: str = ""
    """Why nothing can be decided, whatever the difference; empty where it can."""


@dataclass(frozen=True)
class Verdict:
    """What the rule makes of a claim."""

    kind: Kind
    p_zero: float | None = None
    """Two-sided p of "there is no difference", adjusted; None where nothing was tested."""
    p_margin: float | None = None
    """The larger p of the two one-sided tests at the margin, adjusted; None without a margin."""
    reason: str = ""
    """Of `underpowered`: why nothing was tested; empty where the tests were made and left it
    open."""

    @property
    def is_within_margin(self) -> bool:
        """Whether the difference is shown to be smaller than the margin, whatever its sign."""
        return self.p_margin is not None and self.p_margin < ALPHA


def oriented(estimate: Estimate, *, is_lower_better: bool) -> Estimate:
    """A difference whose positive values say that the minuend is the better one."""
    return replace(estimate, value=-estimate.value) if is_lower_better else estimate


def equivalence_p(estimate: Estimate, margin: float) -> float | None:
    """The larger p of the two one-sided tests that the mean lies within ±`margin`.

    None where the error is unknown or 0.
    """
    above, below = estimate.p_above(-margin), estimate.p_below(margin)
    return None if above is None or below is None else max(above, below)


def judge(claims: Sequence[Asked]) -> list[Verdict]:
    """The verdict of each claim of a grid, in order, corrected over all of them.

    What cannot be tested has no p, and does not count in the correction.
    """
    reasons = [reason_of(one) for one in claims]
    tested = [
        None if reason else claim.difference for claim, reason in zip(claims, reasons, strict=True)
    ]
    zero = holm([None if one is None else one.p_value for one in tested])
    within = holm(
        [
            None if one is None or claim.margin is None else equivalence_p(one, claim.margin)
            for claim, one in zip(claims, tested, strict=True)
        ]
    )
    return [
        _decided(one, p_zero, p_margin) if one is not None else Verdict("underpowered", reason=why)
        for one, p_zero, p_margin, why in zip(tested, zero, within, reasons, strict=True)
    ]


def _decided(difference: Estimate, p_zero: float | None, p_margin: float | None) -> Verdict:
    assert p_zero is not None
    if p_zero < ALPHA:
        return Verdict("reproduced" if difference.value > 0 else "contradicted", p_zero, p_margin)
    if p_margin is not None and p_margin < ALPHA:
        return Verdict("compatible", p_zero, p_margin)
    return Verdict("underpowered", p_zero, p_margin)


def reason_of(claim: Asked) -> str:
    """Why a claim is not tested; empty where it is."""
    if claim.reason:
        return claim.reason
    if claim.difference is None:
        return "a side, or its answers to the items, is missing"
    if claim.difference.stderr is None:
        return "nothing is known of the error of the difference"
    if claim.difference.stderr == 0:
        return "the items and seeds all show the same difference, which tells no error"
    return ""


@dataclass(frozen=True)
class AskedPublished:
    """A published difference beside ours; both positive as claimed."""

    difference: Estimate | None
    """Ours."""
    published: float
    published_stderr: float
    """Of the items alone, unpaired: published values come without their answers and seeds."""
    reason: str = ""
    """As in `Asked`."""


@dataclass(frozen=True)
class PublishedVerdict:
    """What our difference says of a published one."""

    kind: Kind
    p_zero: float | None = None
    """Two-sided p of "ours is 0", adjusted."""
    p_between: float | None = None
    """Two-sided p of "ours is the published one", adjusted."""
    reason: str = ""


def between(asked: AskedPublished) -> Estimate:
    """Ours minus the published difference; the published error is taken as known.

    Its degrees of freedom are Satterthwaite's, with one uncertain summand.
    """
    ours = asked.difference
    assert ours is not None
    assert ours.stderr
    stderr = (ours.stderr**2 + asked.published_stderr**2) ** 0.5
    df = ours.df * (stderr / ours.stderr) ** 4
    return replace(ours, value=ours.value - asked.published, stderr=stderr, df=df)


def judge_published(claims: Sequence[AskedPublished]) -> list[PublishedVerdict]:
    """The verdict of each published difference, in order, corrected over all of them.

        contradicted   ours differs from it, or lies significantly on the other side of 0
        reproduced     ours lies significantly on its side, and does not differ from it
        underpowered   ours could be 0 as well as the published one: its interval holds both
        compatible     else

    The tests against 0 are corrected together, and those against the published value together.
    """
    reasons = [reason_of(Asked(one.difference, reason=one.reason)) for one in claims]
    known = [not reason for reason in reasons]
    zero = holm(
        [one.difference.p_value if ok and one.difference else None
         for one, ok in zip(claims, known, strict=True)]
    )  # fmt: skip
    apart = holm(
        [between(one).p_value if ok else None for one, ok in zip(claims, known, strict=True)]
    )
    return [
        _published(one, p_zero, p_between)
        if not why
        else PublishedVerdict("underpowered", reason=why)
        for one, p_zero, p_between, why in zip(claims, zero, apart, reasons, strict=True)
    ]


def _published(
    asked: AskedPublished, p_zero: float | None, p_between: float | None
) -> PublishedVerdict:
    ours = asked.difference
    assert ours is not None
    assert p_zero is not None
    assert p_between is not None
    is_found = p_zero < ALPHA
    is_other_side = is_found and ours.value * asked.published < 0
    if p_between < ALPHA or is_other_side:
        return PublishedVerdict("contradicted", p_zero, p_between)
    if is_found and ours.value * asked.published > 0:
        return PublishedVerdict("reproduced", p_zero, p_between)
    low, high = ours.interval or (0.0, 0.0)
    if not is_found and low <= asked.published <= high:
        # Its difference from 0 is not significant: it spans 0, corrected as the claims are.
        return PublishedVerdict("underpowered", p_zero, p_between)
    return PublishedVerdict("compatible", p_zero, p_between)
