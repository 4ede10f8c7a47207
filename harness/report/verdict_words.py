"""What a verdict says to a reader without statistics, and the rule that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.claims import ClaimFinding, PublishedClaim
from harness.analysis.earlier_verdicts import (
    EarlierVerdict,
    EarlierVerdicts,
    added_since,
    lost_since,
    other_margin,
)
from harness.analysis.scales import Scale, scale_of
from harness.analysis.verdicts import ALPHA, Kind
from harness.report.numbers import interval_text, scaled, signed
from harness.report.power_words import reach_text

MARKS: dict[Kind, str] = {
    "reproduced": "✓",
    "compatible": "≈",
    "contradicted": "✗",
    "underpowered": "?",
}
"""A sign for each verdict, so that no reader needs its colour."""


@dataclass(frozen=True)
class Told:
    """A claim's verdict in words."""

    kind: Kind
    place: str
    """The model and how it was measured, where there are several."""
    claim: str
    sentence: str
    published: str = ""
    power: str = ""
    history: tuple[str, ...] = ()
    """What must be told of earlier reports."""

    @property
    def mark(self) -> str:
        """The verdict's sign."""
        return MARKS[self.kind]


def rule_text(num_claims: int) -> str:
    """The rule, as it stands beside the verdicts."""
    over = f" after Holm's correction over the {num_claims} verdicts" if num_claims > 1 else ""
    return (
        "The rule. A claim is that one method is better than another by more than 0. Reproduced: "
        "the paired difference lies significantly above 0. Contradicted: significantly below 0. "
        "Compatible: neither, and two one-sided tests place it within the claim's margin: no "
        "difference that counts. Underpowered: these data do not decide, which is no evidence that "
        f"the two are equal. Level {ALPHA:.0%}{over}, the tests against 0 and those against the "
        "margins each; intervals are of 95%, uncorrected."
    )


PUBLISHED_RULE = (
    "Of a published difference. Reproduced: ours lies significantly on its side of 0 and does not "
    "differ from it significantly. Contradicted: ours differs from it significantly, or lies "
    "significantly on the other side of 0. Underpowered: ours could be 0 as well as the published "
    "one. Compatible: else. The published error is the binomial one of two unpaired scores: their "
    "answers and the number of their seeds are not known."
)


def tell(
    finding: ClaimFinding,
    earlier: EarlierVerdicts,
    *,
    place: str = "",
    num_claims: int = 1,
    scattered: str = "",
) -> Told:
    """A verdict in words.

    Args:
        finding: the claim.
        earlier: what earlier reports in the same folder said.
        place: its model and protocol, where there are several.
        num_claims: over how many verdicts was corrected.
        scattered: the side whose seeds scatter more than those of the other methods.
    """
    entry, wide = finding.comparison, ""
    if scattered:
        wide = (
            f" {scattered} scatters more over the seeds than the other methods, with which its "
            "spread is pooled: the interval is too short."
        )
    return Told(
        finding.verdict.kind,
        place,
        f"{entry.left} better than {entry.right}, {entry.column}",
        sentence_of(finding, num_claims) + wide,
        "" if finding.published is None else published_sentence(finding, finding.published),
        power_sentence(finding),
        tuple(_history(finding, earlier.get(finding.key, ()))),
    )


def scale_for(finding: ClaimFinding) -> Scale:
    """How a claim's numbers are printed."""
    entry = finding.comparison
    values = (entry.estimate.value if entry.estimate else None, entry.margin)
    return scale_of(entry.group.unit(entry.column), values)


def unit_of(finding: ClaimFinding) -> str:
    """What its numbers count."""
    return finding.comparison.group.unit(finding.comparison.column) or "points"


def claimed_interval(finding: ClaimFinding) -> tuple[float, float] | None:
    """The 95% interval of the difference, positive as claimed."""
    entry = finding.comparison
    interval = entry.estimate.interval if entry.estimate else None
    if interval is None or not entry.group.is_lower_better(entry.column):
        return interval
    return -interval[1], -interval[0]


def sentence_of(finding: ClaimFinding, num_claims: int = 1) -> str:
    """What the verdict means."""
    entry, verdict, scale = finding.comparison, finding.verdict, scale_for(finding)
    estimate, interval, unit = finding.difference, claimed_interval(finding), unit_of(finding)
    if estimate is None:
        return f"Not decided: {verdict.reason}."
    size = f"{signed(estimate.value, scale)} {unit}"
    reach = f"95% interval {interval_text(interval, scale=scale)}" if interval else "no interval"
    if verdict.reason:
        return f"Not decided: {verdict.reason}. Of these two: {size} ({reach})."
    among = f", with all {num_claims} verdicts counted" if num_claims > 1 else ""
    margin = "" if finding.margin is None else f"±{scale.factor * finding.margin:g} {unit}"
    if verdict.kind == "compatible":
        return (
            f"No difference that counts: {size} ({reach}). A difference beyond the margin of "
            f"{margin} is ruled out in both directions, at a level of {ALPHA:.0%}; whether there "
            f"is a smaller one is not told.{_borrowed(finding)}"
        )
    if verdict.kind == "underpowered":
        return f"Not decided: {size} ({reach}). {open_sentence(interval)}"
    better, worse = (entry.left, entry.right)[:: 1 if verdict.kind == "reproduced" else -1]
    turn = "" if verdict.kind == "reproduced" else "The opposite of the claim: "
    said = (
        f"{turn}{better} is better than {worse} by {scaled(abs(estimate.value), scale)} {unit} "
        f"({reach}). Were the two equally good, chance in seeds and items would show a difference "
        f"as large less than one time in twenty{among}."
    )
    if verdict.is_within_margin:
        said += f" It is smaller than the margin of {margin}: of a size that does not count."
    return said + _borrowed(finding)


def _borrowed(finding: ClaimFinding) -> str:
    """What must be said of a decision whose spread over seeds is not that of its own seeds."""
    estimate = finding.difference
    if estimate is None or (estimate.basis != "stated" and estimate.num_seeds > 1):
        return ""
    spread = "the grid states" if estimate.basis == "stated" else "its other comparisons show"
    seeds = "one seed" if estimate.num_seeds == 1 else f"{estimate.num_seeds} seeds"
    return f" It stands on {seeds} and on the spread over seeds that {spread}: as good as that is."


def open_sentence(interval: tuple[float, float] | None) -> str:
    """Why these data do not decide."""
    if interval is not None and (interval[0] > 0 or interval[1] < 0):
        return (
            "Significant by itself, but not after the correction for the number of verdicts: among "
            "several, chance finds one like it too often."
        )
    return "These seeds and items leave open whether it is better, worse or the same."


def published_sentence(finding: ClaimFinding, published: PublishedClaim) -> str:
    """What ours says of the published difference."""
    scale, verdict = scale_for(finding), published.verdict
    said = {
        "reproduced": "ours lies on the same side of 0, and does not differ from it by more than "
        "chance explains",
        "contradicted": "ours differs from it by more than chance explains",
        "compatible": "ours does not differ from it by more than chance explains, and is not shown "
        "to differ from 0",
        "underpowered": "ours could be 0 as well as the published difference",
    }[verdict.kind]
    is_near = verdict.p_between is not None and verdict.p_between >= ALPHA
    if verdict.kind == "contradicted" and is_near:
        said = "ours lies on the other side of 0"
    if verdict.reason:
        said = verdict.reason
    size = f"{signed(published.difference, scale)} ± {scaled(published.stderr, scale)}"
    where = f" on the {published.split} split" if published.split else ""
    return f"Published{where}: {size} {unit_of(finding)}, {verdict.kind}: {said}."


def power_sentence(finding: ClaimFinding) -> str:
    """What the seeds and items that there are can detect."""
    if finding.reach is None:
        if finding.difference is None or not finding.verdict.reason:
            return ""
        return "How many seeds would decide it is not known: the grid can state `seed_sd`."
    return f"{reach_text(finding.reach, scale_for(finding), unit_of(finding))}."


def _history(finding: ClaimFinding, earlier: Sequence[EarlierVerdict]) -> list[str]:
    """What must be told of earlier reports: seeds that were added, or are gone."""
    lines = []
    if (found := added_since(earlier, finding.seeds)) is not None:
        one, seeds = found
        lines.append(
            f"{_named(seeds)} added after a report{_of(one)} that said {one.verdict}. Who adds "
            "seeds while the answer is open, and stops when it pleases, finds differences that "
            f"are not there more often than the {ALPHA:.0%} of the rule."
        )
    if (found := lost_since(earlier, finding.seeds)) is not None:
        one, seeds = found
        lines.append(
            f"{_named(seeds)} part of a report{_of(one)} that said {one.verdict}, and not of "
            "this one."
        )
    if (other := other_margin(earlier, finding.margin)) is not None:
        was = "none"
        if other.margin is not None:
            was = f"±{scale_for(finding).factor * other.margin:g} {unit_of(finding)}"
        lines.append(
            f"Its margin was {was} in a report{_of(other)}: a margin that is chosen after a result "
            "is no test of it."
        )
    return lines


def _named(seeds: tuple[int, ...]) -> str:
    names = ", ".join(map(str, seeds))
    return f"Seed {names} was" if len(seeds) == 1 else f"Seeds {names} were"


def _of(one: EarlierVerdict) -> str:
    return f" of {one.date[:10]}" if one.date else ""
