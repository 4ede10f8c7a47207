"""Within a section of the page each sentence stands once; what a table says anew is never lost."""

from __future__ import annotations

from harness.report.captions import REST, Captions
from harness.report.figures import Drawing
from harness.report.render import Table


def table(*caption: str, notes: tuple[str, ...] = ()) -> Table:
    return Table(name="t", title="T", header=("A",), rows=(), caption=caption, notes=notes)


def test_a_sentence_stands_once_and_the_rest_is_told() -> None:
    captions = Captions()
    first = captions.of_table(table("Percent of 5 items. Bold: best.", "Metrics: acc."))
    assert first.caption == ("Percent of 5 items. Bold: best.", "Metrics: acc.")
    second = captions.of_table(table("Percent of 5 items. Bold: worst.", "Metrics: acc."))
    assert second.caption == ("Bold: worst.", REST)


def test_notes_come_before_captions_and_count_with_them() -> None:
    captions = Captions()
    found = captions.of_table(table("Same.", "Other.", notes=("Same.",)))
    assert (found.notes, found.caption) == (("Same.",), ("Other.",))


def test_captions_of_figures_count_too() -> None:
    captions = Captions()
    drawing = Drawing("pareto-a", "A", "Stepped line: the front. Marks: three.", ())
    assert captions.of_drawing(drawing).caption == drawing.caption
    assert captions.of_table(table("Stepped line: the front.")).caption == (REST,)
    assert captions.of_drawing(drawing).caption == REST


def test_what_the_page_said_before_is_left_out_without_a_word() -> None:
    captions = Captions({"One thing. Another thing."})
    assert captions.of_table(table("Another thing.", "New.")).caption == ("New.",)
    assert captions.has_said("New.")
    assert not captions.has_said("New. Never.")
