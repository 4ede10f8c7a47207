"""The page of answers: prompts down, methods across; one HTML file that loads nothing.

All of it is a plain table; a small script adds a search box and chooses columns and seeds. What
models wrote is text from outside: the template escapes it, and nothing in it steers the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.answers.columns import Answer, Column
from harness.answers.store import Entry, InstructionSet
from harness.evaluation.benchmarks import Decoding
from harness.report.numbers import MISSING
from harness.report.page import Section, environment, html, render_page
from harness.report.render import Entry as Place
from harness.report.render import Table, row

MOST_ANSWERS = 4000
"""That one page shows: a browser takes longer to lay out more."""
LONGEST = 8000
"""Characters of a text that is shown."""


@dataclass(frozen=True)
class PageInput:
    """What the page shows."""

    grid_name: str
    instructions: InstructionSet
    columns: Sequence[Column]
    decoding: Decoding
    notes: Sequence[str] = ()
    """What a reader must know: cells that are left out, prompts that were cut, files beside."""


def answers_page(page: PageInput) -> str:
    """The page as HTML."""
    entries, columns = page.instructions.entries, page.columns
    num_members = sum(len(column.members) for column in columns)
    shown = entries[: max(1, MOST_ANSWERS // max(num_members, 1))]
    notes = list(page.notes)
    if len(shown) < len(entries):
        notes.append(
            f"The first {len(shown)} of {len(entries)} prompts stand here; responses.parquet "
            "beside this page holds all."
        )
    members = [member.name for column in columns for member in column.members]
    body = _macro(
        "answers",
        [_Line(entry, columns) for entry in shown],
        columns,
        list(dict.fromkeys(filter(None, members))),
    )
    own = [column for column in columns if not column.is_beside]
    return render_page(
        grid_name=page.grid_name,
        heading=f"Answers to {len(entries)} instructions ({page.instructions.name})",
        status=(
            f"{len(own)} method{'s' * (len(own) != 1)} ({_cells(own)}); "
            f"{decoding_text(page.decoding)}"
        ),
        box="",
        lead=[*filter(None, [page.instructions.note]), _templates(own)],
        sections=[
            Section("lengths", "Lengths", html("tables", [lengths_table(columns)])),
            Section("answers", "Answers", body),
            *([Section("notes", "Notes", html("bullets", notes))] if notes else []),
        ],
        figures_key="",
        style=_macro("style"),
    )


def _cells(columns: Sequence[Column]) -> str:
    number = sum(len(column.members) for column in columns)
    return f"{number} cell{'s' * (number != 1)}"


@dataclass(frozen=True)
class _Line:
    """A prompt with all answers to it."""

    entry: Entry
    columns: Sequence[Column]

    @property
    def places(self) -> list[list[tuple[str, Answer | None]]]:
        """By column: each member's name and answer."""
        key = self.entry.id
        return [[(m.name, m.answers.get(key)) for m in one.members] for one in self.columns]


def _macro(name: str, *arguments: object) -> str:
    """What a macro of `answers.html.j2` makes of its arguments."""
    found = environment("harness.answers")
    found.filters["cut"] = _cut
    return str(getattr(found.get_template("answers.html.j2").module, name)(*arguments))


def _cut(text: str) -> str:
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]}… ({left:,} more characters)"


def decoding_text(decoding: Decoding) -> str:
    """How answers were generated, in words."""
    most = f"at most {decoding.max_new_tokens} new tokens"
    if decoding.temperature == 0:
        return f"greedy, {most}"
    return (
        f"drawn at temperature {decoding.temperature:g}, top-p {decoding.top_p:g}, "
        f"seed {decoding.seed}, {most}"
    )


def _templates(columns: Sequence[Column]) -> str:
    """What the prompts were put into, in words."""
    names = {column.template for column in columns}
    if len(names) == 1:
        text = f"Asked in the template of the training data ({names.pop()})"
    else:
        text = "Each asked in the template of its own training data, which the table names"
    others = [column.title for column in columns if not column.is_trained]
    if others:
        text += f"; so {'is' if len(others) == 1 else 'are'} {', '.join(others)}, trained on none"
    return f"{text}. Nothing here says which answer is better."


def lengths_table(columns: Sequence[Column]) -> Table:
    """Lengths and stop reasons, a row per column of the page."""
    rows = [
        row(
            column.title,
            column.template or MISSING,
            str(len(column.answers)),
            _number(column.mean_tokens),
            _number(column.mean_characters),
            _share(column.ended_ratio),
            _share(None if column.ended_ratio is None else 1 - column.ended_ratio),
            _share(column.empty_ratio),
            is_reference=column.is_beside,
        )
        for column in columns
    ]
    return Table(
        "lengths",
        "How long answers are, and what ended them",
        (
            "method",
            "template",
            "answers",
            "tokens",
            "characters",
            "ended itself",
            "at the limit",
            "empty",
        ),
        tuple(rows),
        num_text_columns=2,
        caption=(
            "Means over all answers of a method's seeds. Ended itself: the model wrote the token "
            "that ends an answer; at the limit: it was cut at the largest number of new tokens. "
            "Published outputs do not say how they ended.",
        ),
    )


def _number(value: float | None) -> Place:
    return Place(MISSING if value is None else f"{value:,.1f}")


def _share(value: float | None) -> Place:
    return Place(MISSING if value is None else f"{100 * value:.0f}%")
