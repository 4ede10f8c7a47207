"""What seeds and items can detect, in words and for a machine.

Imports nothing heavy: `zbench plan` says it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.analysis.power import Need, Reach
from harness.analysis.scales import Scale
from harness.report.numbers import scaled


def reach_text(reach: Reach, scale: Scale, unit: str) -> str:
    """What the seeds and items detect, and what one point, the margin and a published one take."""
    source = f". Spread over seeds: {reach.source}" if reach.source else ""
    size, needs = size_text(reach, scale, unit), needs_text(reach, scale, unit)
    return f"{size} in 80% of cases{needs}{source}"


def size_text(reach: Reach, scale: Scale, unit: str) -> str:
    """The smallest difference that so many seeds and items detect."""
    seeds = f"{reach.num_seeds} seed{'s' * (reach.num_seeds != 1)}"
    given = f"{seeds} and {reach.num_items:,} items" if reach.num_items else seeds
    if math.isinf(reach.smallest):
        return f"{given} detect no difference, however large,"
    return f"{given} detect {scaled(reach.smallest, scale)} {unit} or more"


def needs_text(reach: Reach, scale: Scale, unit: str) -> str:
    """What it takes to detect one point, the margin and a published difference."""
    texts = (f"; {name}: {_takes(need)}" for name, need in _needs(reach, scale, unit))
    return "".join(texts) + published_text(reach, scale, unit)


def published_text(reach: Reach, scale: Scale, unit: str) -> str:
    """What it takes to detect the published difference; empty without one."""
    if reach.published is None:
        return ""
    size = f"{scale.factor * reach.published.difference:.2f}".rstrip("0").rstrip(".")
    return f"; the published {size} {unit}: {_takes(reach.published)}"


def _needs(reach: Reach, scale: Scale, unit: str) -> Iterator[tuple[str, Need]]:
    """Yields what is asked about; a margin of one point is named once."""
    point, margin = reach.point, reach.margin
    if point and margin and math.isclose(margin.difference, point.difference):
        yield "one point, the margin", point
        point = margin = None
    if point is not None:
        yield "one point", point
    if margin is not None:
        yield f"the margin of {scale.factor * margin.difference:g} {unit}", margin


def _takes(need: Need) -> str:
    if need.seeds is not None:
        return f"{need.seeds:,} seed{'s' * (need.seeds != 1)}"
    return f"no number of seeds, but about {_rounded(need.items or 0):,} such items"


def _rounded(count: int) -> int:
    """Two digits of a count: no more of it is known."""
    scale = 10 ** max(0, len(str(count)) - 2)
    return -(-count // scale) * scale


def reach_record(reach: Reach, factor: float = 100.0) -> dict[str, object]:
    """What seeds and items detect, in points or in the metric's own unit; None for never."""
    never = math.isinf(reach.smallest)
    return {
        "num_seeds": reach.num_seeds,
        "num_items": reach.num_items,
        "smallest": None if never else round(factor * reach.smallest, 6),
        **_need_record("point", reach.point),
        **_need_record("margin", reach.margin),
        **_need_record("published", reach.published),
        "from": reach.source,
    }


def _need_record(name: str, need: Need | None) -> dict[str, object]:
    return {
        f"seeds_for_{name}": None if need is None else need.seeds,
        f"items_for_{name}": None if need is None else need.items,
    }
