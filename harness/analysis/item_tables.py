"""Which items one method gets right and the other wrong, of the pairs that the grid asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis.answers import ITEM_KEY, ItemKey, ItemOutcome, Kind, Outcomes, outcomes_of
from harness.analysis.columns import Group, Setting
from harness.analysis.comparisons import Comparison
from harness.analysis.item_texts import text_of
from harness.analysis.measurements import Measurements
from harness.analysis.shown_items import ShownItem, shown_item
from harness.analysis.variants import name_of

if TYPE_CHECKING:
    import pandas as pd

ASKED = ("claim", "compare")
"""Families of comparisons whose items are shown."""
MOST_ROWS = 2000
"""Items that a report shows, over all pairs and columns."""


@dataclass(frozen=True)
class ItemTable:
    """The items of one column, as two methods answer them."""

    model: str
    left: str
    """Printed name of the minuend."""
    right: str
    column: str
    benchmark: str
    metric: str
    group_title: str
    """How the column was measured."""
    num_seeds: int
    right_or_wrong: bool
    counts: Mapping[Kind, int]
    """Number of all items by kind."""
    items: tuple[ShownItem, ...]
    """Those that are shown: first those that the two do not answer alike."""


def item_tables(
    measured: Measurements, comparisons: Mapping[Group, Sequence[Comparison]]
) -> list[ItemTable]:
    """The items of all pairs that the grid claims something of, or asks to be compared."""
    found = list(_outcomes(measured, comparisons))
    room = MOST_ROWS // max(1, len(found))
    return [
        ItemTable(
            entry.model,
            entry.left,
            entry.right,
            column,
            setting.benchmark,
            setting.metric,
            entry.group.title,
            len(pairs),
            outcomes.right_or_wrong,
            outcomes.counts,
            tuple(_shown(measured, setting, pairs, _first(outcomes, room))),
        )
        for entry, column, setting, pairs, outcomes in found
    ]


def _outcomes(
    measured: Measurements, comparisons: Mapping[Group, Sequence[Comparison]]
) -> Iterator[tuple[Comparison, str, Setting, list[tuple[str, str]], Outcomes]]:
    told = set()
    for group, entries in comparisons.items():
        asked = {(e.model, e.left, e.right): e for e in entries if e.family in ASKED}
        for (model, left, right), entry in asked.items():
            names = {name_of(variant): variant for variant in measured.table_variants(model)}
            if left not in names or right not in names:
                continue
            alone = group.by_benchmark()
            for column, setting in group.settings.items():
                if setting.where and alone.get(setting.benchmark) != column:
                    continue  # they stand among all items
                if (model, left, right, setting) in told:  # protocols share a column
                    continue
                told.add((model, left, right, setting))
                pairs = measured.paired_cells(names[left], names[right], setting)
                outcomes = _of_pairs(measured, pairs, setting)
                if outcomes is not None:
                    yield entry, column, setting, pairs, outcomes


def _of_pairs(
    measured: Measurements,
    pairs: Sequence[tuple[str, str]],
    setting: Setting,
) -> Outcomes | None:
    if not pairs:
        return None
    first = measured.item_table([one for one, _ in pairs], setting)
    second = measured.item_table([other for _, other in pairs], setting)
    if first is None or second is None or not first[0].equals(second[0]):
        return None
    cells = [cell for pair in pairs for cell in pair]
    better = setting.higher_is_better or measured.is_told_by_likelihood(setting, cells)
    return outcomes_of(list(first[0]), first[1], second[1], higher_is_better=better)


def _first(outcomes: Outcomes, room: int) -> list[ItemOutcome]:
    """The items that are shown, in the order of the data set."""
    differ = [one for one in outcomes.items if one.kind in ("first", "second")]
    alike = [one for one in outcomes.items if one.kind not in ("first", "second")]
    return [*differ, *alike][:room]


def _shown(
    measured: Measurements,
    setting: Setting,
    pairs: Sequence[tuple[str, str]],
    chosen: Sequence[ItemOutcome],
) -> Iterator[ShownItem]:
    wanted = {one.item for one in chosen}
    cells = {
        cell: records_of_items(measured, cell, setting, wanted) for pair in pairs for cell in pair
    }
    texts = measured.data.texts(pairs[0][0], setting.benchmark)
    for one in chosen:
        first, second = ([cells[pair[at]].get(one.item, {}) for pair in pairs] for at in (0, 1))
        yield shown_item(one, text_of(texts, one.item), first, second, setting.metric)


def records_of_items(
    measured: Measurements, cell: str, setting: Setting, wanted: set[ItemKey]
) -> dict[ItemKey, dict[str, Any]]:
    """What is kept of the items that are wanted, of those of a cell."""
    frame: pd.DataFrame | None = measured.data.items(cell, setting.benchmark)
    if frame is None:
        return {}
    keys = list(zip(*(frame[name].tolist() for name in ITEM_KEY), strict=True))
    places = [number for number, key in enumerate(keys) if key in wanted]
    rows = frame.iloc[places].to_dict("records")
    return {keys[number]: _plain(row) for number, row in zip(places, rows, strict=True)}


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row without pandas' and numpy's own kinds of values."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if hasattr(value, "tolist"):
            value = value.tolist()
        missing = value is None or (not isinstance(value, list | dict | str) and value != value)
        found[str(name)] = None if missing or type(value).__name__ == "NAType" else value
    return found
