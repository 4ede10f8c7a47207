"""A few items with pictures, and what the base model and trained ones answered to them.

The items are those whose names have the smallest SHA-256, half of them answered right by the first
method that takes pictures and half wrong, as far as there are so many: nobody chooses them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.answers import ITEM_KEY, ItemKey
from harness.analysis.columns import Group, Setting
from harness.analysis.item_pictures import Pictures
from harness.analysis.item_tables import records_of_items
from harness.analysis.item_texts import Texts, text_in, text_of
from harness.analysis.measurements import Measurements, Seed
from harness.analysis.shown_items import Record, answer_text, option_text
from harness.analysis.variants import BASE, Variant, name_of
from harness.readers.pictures import Picture

MOST_ITEMS = 24
"""Of a sheet; a page has one sheet for each model and data set of a benchmark."""
MOST_WITH_PICTURES = 3
"""Methods that take pictures and whose answers are shown."""


@dataclass(frozen=True)
class SheetAnswer:
    """What one model answered."""

    text: str
    is_right: bool


@dataclass(frozen=True)
class SheetItem:
    """An item with its picture."""

    name: str
    """Its lm-eval task and number."""
    picture: Picture
    question: str
    """Empty where the text is not at hand."""
    options: tuple[str, ...]
    gold: str
    answers: tuple[SheetAnswer, ...]
    """One for each method of the sheet."""


@dataclass(frozen=True)
class PictureSheet:
    """Items of one benchmark, and the answers to them."""

    model: str
    title: str
    """The benchmark's."""
    benchmark: str
    metric: str
    methods: tuple[tuple[str, Seed], ...]
    """Printed names, and the seed whose answers are shown; the first one chose the items."""
    items: tuple[SheetItem, ...]
    num_with_pictures: int
    """Items that have a picture, as far as their records tell."""
    num_right: int
    """Those of them that the first method answers right."""
    missing: str = ""
    """Why pictures are not shown; empty where all are."""


@dataclass(frozen=True)
class _Side:
    variant: Variant
    seed: Seed
    cell: str


def picture_sheets(measured: Measurements) -> Iterator[PictureSheet]:
    """Yields the sheets of a grid's benchmarks with pictures.

    Benchmarks that ask the same data (another protocol, or a control) have one sheet.
    """
    told = set()
    for group in measured.groups:
        for benchmark, column in group.by_benchmark().items():
            known = measured.benchmarks.get(benchmark)
            if known is None or known.picture_column is None:
                continue
            for model in measured.models:
                sides = _sides(measured, model, group, column)
                if not sides or (model, known.data_folder) in told:
                    continue
                sheet = _sheet(measured, model, known.title, group.settings[column], sides)
                if sheet is not None:
                    told.add((model, known.data_folder))
                    yield sheet


def _sides(measured: Measurements, model: str, group: Group, column: str) -> list[_Side]:
    """Methods with pictures, one without, and the base model: the first seed of each."""
    variants = measured.table_variants(model)
    standing = [v for v in measured.standing if v in variants]
    pictured = [v for v in [*standing, *variants] if v.picture_layers is not None]
    texts = [v for v in variants if v.picture_layers is None and v.method_name != BASE]
    base = [v for v in variants if v.method_name == BASE]
    chosen = [*dict.fromkeys(pictured)][:MOST_WITH_PICTURES] + texts[:1] + base[:1]
    found = []
    for variant in chosen:
        cells = measured.seeds_with(variant, group, column)
        if cells:
            seed = next(iter(cells))
            found.append(_Side(variant, seed, cells[seed]))
    return found


def _sheet(
    measured: Measurements, model: str, title: str, setting: Setting, sides: Sequence[_Side]
) -> PictureSheet | None:
    data, benchmark, metric = measured.data, setting.benchmark, setting.metric
    first = data.items(sides[0].cell, benchmark)
    if first is None or metric not in first:
        return None
    if "picture" in first:
        first = first[first["picture"].notna()]
    names = zip(*(first[name].tolist() for name in ITEM_KEY), strict=True)
    right = dict(zip(names, (first[metric].astype(float) > 0.5).tolist(), strict=True))
    shown = dict(zip(right, first["picture"].tolist(), strict=True)) if "picture" in first else {}
    wanted = list(right) if not shown else _chosen(right)
    found = data.pictures(sides[0].cell, benchmark, wanted)
    pictures = {
        item: one for item, one in found.items() if shown.get(item, one.sha256) == one.sha256
    }
    chosen = _chosen({item: right[item] for item in right if item in pictures})
    records = [records_of_items(measured, side.cell, setting, set(chosen)) for side in sides]
    texts = data.texts(sides[0].cell, benchmark)
    items = [_item(item, pictures, texts, records, metric) for item in chosen]
    return PictureSheet(
        model,
        title,
        benchmark,
        metric,
        tuple((name_of(side.variant), side.seed) for side in sides),
        tuple(items),
        len(right if shown else pictures),
        sum(right[item] for item in (right if shown else pictures)),
        _missing(found, pictures, wanted),
    )


def _missing(found: Pictures, pictures: Pictures, wanted: Sequence[ItemKey]) -> str:
    if wanted and not found:
        return (
            "the data root does not hold the pictures of these items; --data-root names the folder "
            "that does"
        )
    if len(pictures) < len(found):
        return (
            f"{len(found) - len(pictures)} pictures under the data root are others than those that "
            "were scored, and are left out"
        )
    return ""


def _chosen(right: Mapping[ItemKey, bool]) -> list[ItemKey]:
    """Items in the order of their names' SHA-256, half of them right if there are so many."""
    order = sorted(right, key=_name_sha256)
    sides = [[item for item in order if right[item] is kind] for kind in (True, False)]
    half = MOST_ITEMS // 2
    counts = [max(half, MOST_ITEMS - len(other)) for other in reversed(sides)]
    kept = {item for one, number in zip(sides, counts, strict=True) for item in one[:number]}
    return [item for item in order if item in kept]


def _name_sha256(item: ItemKey) -> str:
    return hashlib.sha256("/".join(map(str, item)).encode()).hexdigest()


def _item(
    item: ItemKey,
    pictures: Pictures,
    texts: Texts,
    records: Sequence[Mapping[ItemKey, Record]],
    metric: str,
) -> SheetItem:
    mine = [one.get(item, {}) for one in records]
    text = next(filter(None, map(text_in, mine)), None) or text_of(texts, item)
    options = text.options if text else ()
    gold = option_text(mine[0].get("gold"), options) or (text.gold if text else "")
    task, number, _ = item
    answers = tuple(
        SheetAnswer(answer_text(one, metric, options), float(one.get(metric) or 0.0) > 0.5)
        for one in mine
    )
    question = text.question if text else ""
    return SheetItem(f"{task} {number}", pictures[item], question, options, gold, answers)
