"""What `zbench plan` says of a grid's claims: which differences its seeds and items detect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from harness.analysis.power import Reach
from harness.analysis.scales import scale_of
from harness.analysis.variants import name_of
from harness.errors import LONGEST_LIST
from harness.estimate.finished import finished_spreads
from harness.estimate.power import UNPAIRED, ClaimPower, PlannedClaim, claim_powers, planned_claims
from harness.grid.workspace import OpenGrid
from harness.report.power_words import needs_text, published_text, reach_record, size_text


def grid_powers(grid: OpenGrid) -> list[ClaimPower]:
    """What each claim of a grid could show with the cells that are planned."""
    cells = [state.cell for state in grid.expected]
    planned = planned_claims(grid.spec, cells, grid.data_root)
    return claim_powers(grid.spec, planned, finished_spreads(grid, planned) if planned else {})


def power_lines(powers: Sequence[ClaimPower]) -> Iterator[str]:
    """Yields a heading, and a line for each claim; what all of them lack is said once."""
    lacks = {one.lacks for one in powers}
    if lacks and len(lacks) == 1 and (lack := lacks.pop()):
        yield f"claims: what they could show is not known: {lack}"
        return
    sources = {one.reach.source for one in powers if one.reach is not None}
    common = sources.pop() if len(sources) == 1 else ""
    if powers:
        among = f", 5% in all over {len(powers)} tests" if len(powers) > 1 else ", level 5%"
        by = f"; spread by {common}" * bool(common)
        yield f"claims: what is found in 80% of cases (two-sided{among}{by}):"
    alike: dict[str, list[str]] = {}
    for one in powers[:LONGEST_LIST]:
        source = "" if common or one.reach is None else f"; spread by {one.reach.source}"
        alike.setdefault(f"{_said(one)}{source}", []).append(f"{_claim(one.planned)}{_theirs(one)}")
    for said, claims in alike.items():
        yield f"  {said}"
        yield from (f"    {claim}" for claim in claims)
    if len(powers) > LONGEST_LIST:
        yield f"  and {len(powers) - LONGEST_LIST} more (see --json)"


def short_line(grid_name: str, powers: Sequence[ClaimPower]) -> list[str]:
    """The line that tells a grid which cannot detect the margins of its own claims."""
    short = [one for one in powers if one.reach is not None and not one.reach.reaches_margin]
    if not short:
        return []
    wanted = [one.reach.margin for one in short if one.reach is not None]
    seeds = [None if margin is None else margin.seeds for margin in wanted]
    known = [number for number in seeds if number is not None]
    takes = f"{max(known)} seeds would do" if known else ""
    if len(known) < len(seeds):
        never = "no number of seeds does" if not known else "for others no number of seeds does"
        why = "their items are too few"
        if (share := _agreement(short)) is not None:
            why += f", unless both sides give the same answer to {share:.0%} of them or more"
        takes = "; ".join(filter(None, (takes, f"{never}: {why}")))
    of = "any claim" if len(short) == len(powers) else f"{len(short)} of {len(powers)} claims"
    return [f"{grid_name}: its seeds and items cannot detect the margin of {of}; {takes}"]


def _agreement(short: Sequence[ClaimPower]) -> float | None:
    """On which share of the items two sides must agree that enough seeds detect the margin.

    Of right and wrong answers it is what the variance of a difference comes from; unrelated ones
    agree on half. None where the items' part is measured.
    """
    shares = [
        1 - 0.5 * one.reach.num_items / one.reach.margin.items
        for one in short
        if one.reach
        and UNPAIRED in one.reach.source
        and one.reach.margin
        and one.reach.margin.items
    ]
    return max(shares, default=None)


def _claim(planned: PlannedClaim) -> str:
    names = f"{name_of(planned.left)} better than {name_of(planned.right)}, {planned.column}"
    return f"{planned.model}, {planned.group.protocol}: {names}"


def _said(power: ClaimPower) -> str:
    return power.lacks if power.reach is None else _reach(power.reach, power.planned)


def _reach(reach: Reach, planned: PlannedClaim) -> str:
    unit = planned.unit or "points"
    scale = scale_of(planned.unit, (reach.smallest,), 1)
    return size_text(reach, scale, unit) + needs_text(replace(reach, published=None), scale, unit)


def _theirs(power: ClaimPower) -> str:
    """What it takes to find the published difference, where there is one."""
    reach, unit = power.reach, power.planned.unit
    return "" if reach is None else published_text(reach, scale_of(unit), unit or "points")


def power_record(power: ClaimPower) -> dict[str, Any]:
    """What a claim could show, for a machine; numbers in points, or in the metric's own unit."""
    planned, factor = power.planned, scale_of(power.planned.unit).factor
    published = None if planned.published is None else planned.published.value
    return {
        "model": planned.model,
        "data": planned.left.data,
        "protocol": planned.group.protocol,
        "better": planned.left.method,
        "than": planned.right.method,
        "column": planned.column,
        "unit": planned.unit or "points",
        "margin": None if planned.margin is None else round(factor * planned.margin, 6),
        "published": None if published is None else round(factor * published, 6),
        "seeds": list(planned.seeds),
        "detects_margin": None if power.reach is None else power.reach.reaches_margin,
        "power": None if power.reach is None else reach_record(power.reach, factor),
        "lacks": power.lacks or None,
    }
