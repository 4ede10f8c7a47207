"""What earlier reports in the same folder said of each claim, and on which seeds.

Who looks, and adds seeds while the answer is open, finds differences that are not there more often
than the level of the test says (Armitage, McPherson & Rowe 1969). So each report keeps what it
judged, and the next one tells which seeds were not planned then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object

VERDICTS_FILE = "verdicts.json"
MOST_KEPT = 20
"""Verdicts of one claim that are kept: the first ones and the last."""


@dataclass(frozen=True)
class EarlierVerdict:
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


EarlierVerdicts = Mapping[str, Sequence[EarlierVerdict]]
"""Of each claim in their order, by `ClaimFinding.key`."""


def with_verdict(
    earlier: Sequence[EarlierVerdict], new: EarlierVerdict
) -> tuple[EarlierVerdict, ...]:
    """The verdicts of a claim, with a new one where it is another than the last.

    Where no seed is measured there is none.
    """
    if not new.seeds or (earlier and _same(earlier[-1], new)):
        return tuple(earlier)
    verdicts = (*earlier, new)
    half = MOST_KEPT // 2
    return verdicts if len(verdicts) <= MOST_KEPT else (*verdicts[:half], *verdicts[-half:])


def _same(one: EarlierVerdict, other: EarlierVerdict) -> bool:
    names = ("seeds", "planned", "verdict", "margin")
    return all(getattr(one, name) == getattr(other, name) for name in names)


Since = tuple[EarlierVerdict, tuple[int, ...]]
"""A verdict, and seeds that are not the same since."""


def added_since(earlier: Sequence[EarlierVerdict], seeds: Sequence[int]) -> Since | None:
    """The last verdict at which some of these seeds were not even planned, with these seeds."""
    for one in reversed(earlier):
        added = tuple(seed for seed in seeds if seed not in {*one.planned, *one.seeds})
        if added:
            return one, added
    return None


def lost_since(earlier: Sequence[EarlierVerdict], seeds: Sequence[int]) -> Since | None:
    """The last verdict that was reached on seeds which are not among these, with the lost ones."""
    for one in reversed(earlier):
        if lost := tuple(seed for seed in one.seeds if seed not in seeds):
            return one, lost
    return None


def other_margin(earlier: Sequence[EarlierVerdict], margin: float | None) -> EarlierVerdict | None:
    """The first verdict at which the claim had another margin."""
    return next((one for one in earlier if one.margin != margin), None)


def read_earlier_verdicts(folder: Path) -> tuple[EarlierVerdicts, str | None]:
    """The verdicts that a report's folder tells of, and a line where its file is damaged."""
    path = folder / VERDICTS_FILE
    if not path.is_file():
        return {}, None
    try:
        record = read_json_object(path)
        entries = [*record["verdicts"], *record["no_longer_claimed"]]
        found = {str(entry["key"]): tuple(map(_read, entry["history"])) for entry in entries}
    except (Unreadable, KeyError, TypeError, ValueError, AttributeError):
        return {}, (
            f"{path}: cannot be read as an earlier report's verdicts, so that seeds added since "
            "cannot be told; it is written anew"
        )
    return found, None


def _read(entry: Mapping[str, Any]) -> EarlierVerdict:
    seeds, planned = ([int(seed) for seed in entry[name]] for name in ("seeds", "planned"))
    numbers = [entry["difference"], entry["margin"]]
    if not all(one is None or math.isfinite(one) for one in numbers):
        raise ValueError(numbers)
    difference, margin = (None if one is None else float(one) for one in numbers)
    verdict = str(entry["verdict"])
    return EarlierVerdict(
        str(entry["date"]), tuple(seeds), tuple(planned), verdict, difference, margin
    )
