"""The sheet of pictures, and what another picture changes: which items, whose answers, what is
said where pictures are missing or do nothing."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.analysis.item_texts import ItemText
from harness.analysis.picture_sheet import MOST_ITEMS
from harness.evaluation.benchmarks import BENCHMARKS
from harness.grid.questions import TableSpec
from harness.readers.pictures import Picture
from harness.report import build_report
from harness.report.pictures import effect_table, pictures_section, thumbnail

KNOWN = {
    "mine": replace(
        BENCHMARKS["arc_easy"], name="mine", title="Mine", column=None, picture_column="image"
    )
}
TABLES = (TableSpec(columns=["mine"]),)
METHODS = (
    ("zero-init-linear", "pictures", 5),
    ("random-init", "random", 5),
    ("zero-init-linear", "text-only", None),
    ("base", None, None),
)


def drawn(number: int, size: tuple[int, int] = (48, 48), kind: str = "PNG") -> Picture:
    pixels = np.random.default_rng(number).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return Picture.of(stream.getvalue())


def fill(results, num_items: int = 60, share: float = 0.7):
    """Adds four methods whose items have pictures, but for every fifth; returns the pictures."""
    pictures = {number: drawn(number) for number in range(num_items) if number % 5}
    rng = np.random.default_rng(0)
    for method, label, layers in METHODS:
        seed = None if method == "base" else 3
        values = (rng.random(num_items) < share).astype(float)
        cell = results.add(
            method, seed, {"mine": values}, label=label, further={"picture_layers": layers}
        )
        frame = results.items[cell, "mine"]
        frame["picture"] = [pictures[n].sha256 if n in pictures else None for n in range(num_items)]
        frame["prediction"] = np.where(values == 1, 0, 1)
        frame["gold"] = 0
    return pictures


def inputs(pictures, **fields):
    def stored(_cell, _benchmark, wanted):
        return {item: pictures[item[1]] for item in wanted if item[1] in pictures}

    texts = {
        (f"mine/{n}", f"q{n}"): ItemText(
            f"Which animal is <b>{n}</b>?\nA hint.", ("dog & cat", "frog")
        )
        for n in range(100)
    }
    return {
        "tables": TABLES,
        "claims": (),
        "benchmarks": KNOWN,
        "pictures": stored,
        "texts": lambda _cell, _benchmark: texts,
        **fields,
    }


def find(results, pictures, **fields):
    return results.findings(**inputs(pictures, **fields))


def test_half_of_the_items_are_right_and_half_wrong_by_the_first_method(results) -> None:
    pictures = fill(results)
    (sheet,) = find(results, pictures).sheets
    assert len(sheet.items) == MOST_ITEMS
    assert sum(item.answers[0].is_right for item in sheet.items) == MOST_ITEMS // 2
    assert sheet.num_with_pictures == len(pictures)
    assert [seed for _, seed in sheet.methods] == [3, 3, 3, None]
    names = [name for name, _ in sheet.methods]
    labels = ("(pictures)", "(random)", "(text-only)", "Base model")
    assert all(label in name for label, name in zip(labels, names, strict=True))
    assert all(int(item.name.split()[1]) % 5 for item in sheet.items)
    one = sheet.items[0]
    assert (one.gold, one.options) == ("dog & cat", ("dog & cat", "frog"))
    assert {answer.text for answer in one.answers} <= {"dog & cat", "frog"}
    assert all(a.is_right == (a.text == "dog & cat") for i in sheet.items for a in i.answers)


def test_the_choice_is_the_same_every_time_and_fills_up(results) -> None:
    pictures = fill(results, share=0.95)
    first, second = (find(results, pictures).sheets[0] for _ in range(2))
    assert [one.name for one in first.items] == [one.name for one in second.items]
    wrong = first.num_with_pictures - first.num_right
    assert wrong < MOST_ITEMS // 2
    assert sum(not item.answers[0].is_right for item in first.items) == wrong
    assert len(first.items) == MOST_ITEMS


def test_a_control_on_the_same_data_has_no_sheet_of_its_own(results) -> None:
    pictures = fill(results)
    control = replace(KNOWN["mine"], name="shuffled", title="Shuffled")
    for (cell, _), frame in list(results.items.items()):
        head = {k: v for k, v in results.scores[0].items() if k in results.cells[0]}
        results.score({**head, "cell_id": cell}, "shuffled", frame["acc"].tolist())
    tables = (TableSpec(columns=["mine", "shuffled"]),)
    found = find(results, pictures, tables=tables, benchmarks={**KNOWN, "shuffled": control})
    assert [sheet.benchmark for sheet in found.sheets] == ["mine"]


def test_pictures_that_are_not_here_or_others_are_told(results) -> None:
    pictures = fill(results)
    (sheet,) = find(results, {}).sheets
    assert sheet.items == ()
    section = pictures_section([sheet])
    assert "--data-root" in section
    assert "<img" not in section
    others = {number: drawn(1000) if number == 1 else one for number, one in pictures.items()}
    found = [one for one in find(results, others).sheets if "others than those" in one.missing]
    shown = {item.name for sheet in find(results, others).sheets for item in sheet.items}
    assert "mine 1" not in shown
    assert len(found) <= 1


def test_the_sheet_is_escaped_small_and_can_be_read_aloud(results, tmp_path) -> None:
    pictures = fill(results)
    report = build_report(results.input(**inputs(pictures)), tmp_path)
    page = report.page.read_text(encoding="utf-8")
    section = page[page.index('<section id="pictures">') :]
    section = section[: section.index("</section>")]
    assert section.count("<img") == MOST_ITEMS
    assert "&lt;b&gt;" in section
    assert "<b>" not in section
    assert "dog &amp; cat" in section
    assert section.count('<p class="context">A hint.</p>') == MOST_ITEMS
    assert len(re.findall(r'alt="Picture of mine \d+, 48 × 48 pixels"', section)) == MOST_ITEMS
    assert section.count("✓ right") + section.count("✗ wrong") == 4 * MOST_ITEMS
    assert len(section) < 400_000


def test_without_benchmarks_that_have_pictures_nothing_changes(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    findings = results.findings()
    assert (findings.sheets, findings.picture_effects) == ((), ())
    assert effect_table(findings) == []


@pytest.mark.parametrize(("size", "shown"), [((48, 40), (48, 40)), ((640, 320), (160, 80))])
def test_a_thumbnail_is_small_and_of_pixels_alone(size, shown) -> None:
    found = thumbnail(drawn(0, size, "JPEG"), "mine 0")
    assert (found.width, found.height) == shown
    assert found.said == f"Picture of mine 0, {size[0]} × {size[1]} pixels"
    head, _, data = found.address.partition(";base64,")
    assert head in ("data:image/png", "data:image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == shown


def test_a_broken_picture_is_told_and_stops_nothing() -> None:
    found = thumbnail(Picture.of(b"no picture"), "mine 0")
    assert found.address == ""
    assert "no picture" in found.said


def test_what_another_picture_changes_and_where_it_does_nothing(results, answer) -> None:
    for method, effects in (("zero-init-linear", (0.8, 0.4)), ("random-init", (0.9, 0.0001))):
        for seed, effect in enumerate(effects):
            results.add(method, seed, answer("1100"))
            results.cells[-1] |= {"picture_effect": effect, "picture_changes": float(effect > 0.1)}
    results.add("lora", 0, answer("1100"))
    results.cells[-1] |= {"picture_effect": math.nan, "picture_changes": math.nan}
    (table,) = effect_table(results.findings())
    rows = [[entry.text for entry in line.entries] for line in table.rows]
    assert [line[2:] for line in rows] == [
        ["2", "0.45‼", "0.0001", "50.0"] if "Random" in line[1] else ["2", "0.6", "0.4", "100.0"]
        for line in rows
    ]
    assert len(rows) == 2
    (note,) = table.notes
    assert "in 1 of 2 trainings pictures do nothing" in note
    assert "image_learning_rate" in note
