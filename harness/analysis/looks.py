"""Earlier looks at a claim: what a report in the same folder said of it, and on which seeds.

Who looks, and adds seeds while the answer is open, finds differences that are not there more often
than the level of the test says (Armitage, McPherson & Rowe 1969). So each report keeps what it
judged, and the next one tells which seeds were not planned then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object

VERDICTS_FILE = "verdicts.json"
MOST_LOOKS = 20
"""Looks at one claim that are kept: the first ones and the last."""


@dataclass(frozen=True)
class Look:
    """What one report said of a claim."""

    date: str
    """ISO 8601; empty where it is not known."""
    seeds: tuple[int, ...]
    """Those that it was judged on."""
    planned: tuple[int, ...]
    """Those that the grid had then, trained or not."""
    verdict: str
    difference: float | None
    """In the unit of the scores, positive as claimed."""
    margin: float | None = None
    """The claim's then, in the unit of the scores."""


Looks = Mapping[str, Sequence[Look]]
"""Looks at each claim in their order, by `ClaimFinding.key`."""


def with_look(earlier: Sequence[Look], new: Look) -> tuple[Look, ...]:
    """The looks at a claim, with a new one where it is another than the last.

    Where no seed is measured there is nothing to look at.
    """
    if not new.seeds or (earlier and _same(earlier[-1], new)):
        return tuple(earlier)
    looks = (*earlier, new)
    half = MOST_LOOKS // 2
    return looks if len(looks) <= MOST_LOOKS else (*looks[:half], *looks[-half:])


def _same(one: Look, other: Look) -> bool:
    names = ("seeds", "planned", "verdict", "margin")
    return all(getattr(one, name) == getattr(other, name) for name in names)


Since = tuple[Look, tuple[int, ...]]
"""A look, and seeds that are not the same since."""


def added_since(earlier: Sequence[Look], seeds: Sequence[int]) -> Since | None:
    """The last look at which some of these seeds were not even planned, with these seeds."""
    for look in reversed(earlier):
        added = tuple(seed for seed in seeds if seed not in {*look.planned, *look.seeds})
        if added:
            return look, added
    return None


def lost_since(earlier: Sequence[Look], seeds: Sequence[int]) -> Since | None:
    """The last look that was judged on seeds which are not among these, with the lost ones."""
    for look in reversed(earlier):
        if lost := tuple(seed for seed in look.seeds if seed not in seeds):
            return look, lost
    return None


def other_margin(earlier: Sequence[Look], margin: float | None) -> Look | None:
    """The first look at which the claim had another margin."""
    return next((look for look in earlier if look.margin != margin), None)


def read_looks(folder: Path) -> tuple[Looks, str | None]:
    """The looks that a report's folder tells of, and a line where its file is damaged."""
    path = folder / VERDICTS_FILE
    if not path.is_file():
        return {}, None
    try:
        record = read_json_object(path)
        entries = [*record["verdicts"], *record["no_longer_claimed"]]
        found = {str(entry["key"]): tuple(map(_look, entry["looks"])) for entry in entries}
    except (Unreadable, KeyError, TypeError, ValueError, AttributeError):
        return {}, (
            f"{path}: cannot be read as an earlier report's verdicts, so that seeds added since "
            "cannot be told; it is written anew"
        )
    return found, None


def _look(entry: Mapping[str, Any]) -> Look:
    seeds, planned = ([int(seed) for seed in entry[name]] for name in ("seeds", "planned"))
    numbers = [entry["difference"], entry["margin"]]
    if not all(one is None or math.isfinite(one) for one in numbers):
        raise ValueError(numbers)
    difference, margin = (None if one is None else float(one) for one in numbers)
    verdict = str(entry["verdict"])
    return Look(str(entry["date"]), tuple(seeds), tuple(planned), verdict, difference, margin)


def look_record(look: Look) -> dict[str, object]:
    """A look as it is kept in a file."""
    return asdict(look)
