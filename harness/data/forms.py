"""Which form the rows of a file have, told from their columns; what is no training row is named."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.data.row_pictures import ALSO, COLUMN
from harness.data.spec import FORMS, MAY_LACK, Columns
from harness.errors import DataError, did_you_mean, one_line
from harness.readers.records import Record

TAKES = (
    "zbench trains on instruction/input/output (input may be absent), prompt/completion, messages "
    "(or conversations), text, or ScienceQA's question/choices/answer/hint"
)
SAMPLE_ROWS = 100
"""Rows that are looked at to tell the form, where a file names no columns."""
EXTRAS = ("system", "history", "tools")
"""What other frameworks put beside a row: a system text, turns before it, tools."""
CONVERSATIONS = ("messages", "conversations")
PICTURES = ("image", "images", "video", "videos", "audio", "audios")
PICTURED = tuple(form for form, columns in FORMS.items() if COLUMN in columns)
"""Forms whose rows may have a picture."""
PREFERENCES = ({"chosen", "rejected"}, {"preference"}, {"prompt", "completion", "label"})
BENCHMARK = ("choices", "endings", "options", "answerKey", "mc1_targets", "mc2_targets", "label")
OFTEN = {
    "instruction": ("question", "query", "problem", "prompt", "task", "human", "input"),
    "output": ("answer", "response", "solution", "completion", "output_1", "target", "gpt"),
    "messages": ("conversation", "dialog", "dialogue", "chat"),
    "text": ("content", "document", "body"),
}
"""What columns are often called; offered, and never taken of its own accord."""


@dataclass(frozen=True)
class Form:
    """The form of a file's rows, and where its texts stand."""

    name: str
    """A key of `FORMS`."""
    columns: Mapping[str, str]
    """The file's column for each of the form's that is there."""
    extras: Sequence[str] = field(default=())
    """Columns that say more of a row, which some forms have no place for: see EXTRAS; pictures."""

    @property
    def read(self) -> list[str]:
        """All columns that are read."""
        return [*self.columns.values(), *self.extras]


def known_columns(columns: Columns | None) -> set[str]:
    """The names that a text's header may be, if it is CSV of one column."""
    return {"text", "messages"} | set(columns.named.values() if columns else ())


def form_of(
    columns: Sequence[str], mapped: Columns | None, sample: Iterable[Record], place: str
) -> Form:
    """The form of rows with these columns.

    Args:
        columns: all of a table, or of the first rows.
        mapped: what the grid says of them.
        sample: first rows, to tell whether a column holds anything; none of a table.
        place: the file.

    Raises:
        DataError: it is none, or could be several; the line says which columns there are.
    """
    sample = list(sample)
    if mapped is not None:
        return _mapped(columns, mapped, place, later=bool(sample))
    found = [form for form in FORMS if _has(form, columns)]
    _check_trainable(columns, sample, place, pictured=any(form in PICTURED for form in found))
    if len(found) > 1 and "text" in found:
        found.remove("text")  # Alpaca's own set has one of all three in its template
    if len(found) > 1:
        raise DataError(
            f"{place}: its rows have the columns of two forms ({' and '.join(found)}); give a file "
            f"with rows of one form, or say by `columns` which is meant, as {_example(found[0])}"
        )
    if not found:
        raise DataError(f"{place}: {_no_form(columns, sample)}")
    return _form(found[0], {}, columns, later=bool(sample))


def _mapped(columns: Sequence[str], mapped: Columns, place: str, *, later: bool) -> Form:
    for name, column in mapped.named.items():
        if column not in columns:
            raise DataError(
                f"{place}: has no column '{column}', which `columns` names for {name}"
                f"{did_you_mean(column, columns)}"
            )
    own = mapped.named
    free = set(columns) - set(own.values())
    lacking = {
        form: [n for n in FORMS[form] if n not in own and n not in free and n not in MAY_LACK]
        for form in mapped.forms
    }
    form = min(lacking, key=lambda form: bool(lacking[form]))
    if due := [name for name in lacking[form] if name != "hint"]:
        raise DataError(
            f"{place}: has no column for {' and '.join(due)} (it has {_listed(columns)}); map "
            f"{'it' if len(due) == 1 else 'them'} too by `columns`"
        )
    return _form(form, own, columns, later=later)


def _form(name: str, own: Mapping[str, str], columns: Collection[str], *, later: bool) -> Form:
    """A form and its columns; `later` rows of JSON may have columns that the first ones lack."""
    found = dict(own)
    for due in FORMS[name]:
        other = {"messages": "conversations", COLUMN: ALSO}.get(due, due)
        meant = other if due not in columns and (due != COLUMN or other in columns) else due
        if due == COLUMN and own and name == "instruction":
            continue  # texts alone were meant, before there were pictures
        if due not in own and meant not in own.values() and (meant in columns or later):
            found[due] = meant
    names = EXTRAS + PICTURES * (later and not own)
    extras = [one for one in names if (one in columns or later) and one not in found.values()]
    return Form(name, found, () if name == "text" else extras)


def _has(form: str, columns: Collection[str]) -> bool:
    if form == "messages":
        return any(name in columns for name in CONVERSATIONS)
    return all(name in columns for name in FORMS[form] if name not in MAY_LACK)


def _check_trainable(
    columns: Sequence[str], sample: Sequence[Record], place: str, *, pictured: bool
) -> None:
    """Refuses what has the columns of a form, but is meant for something else.

    Args:
        pictured: whether they have those of a form whose rows may have a picture.
    """
    for meant in PREFERENCES:
        if meant <= set(columns):
            raise DataError(
                f"{place}: holds preferences ({_listed(columns)}), answers to be compared; {TAKES}"
                "; to train on one answer alone, map its column by `columns`"
            )
    for name in PICTURES:
        if pictured and name in (COLUMN, ALSO):
            continue
        if name in columns and (not sample or any(row.get(name) for row in sample)):
            said = "sound or film (column {}), which no model here is trained on"
            if name in (COLUMN, ALSO):
                said = "pictures (column {}), which are taken beside instruction/input/output and "
                said += "in ScienceQA's form alone"
            raise DataError(f"{place}: holds {said.format(name)}; {TAKES}")


def _no_form(columns: Sequence[str], sample: Sequence[Record]) -> str:
    """Why columns are of no form, and which mapping would do."""
    if len(sample) == 1 and any(isinstance(value, dict | list) for value in sample[0].values()):
        lists = [name for name, value in sample[0].items() if isinstance(value, list)]
        rows = f"; if {lists[0]} are its rows, give that list alone" if lists else ""
        return f"is one JSON object ({_listed(columns)}), where many rows are due{rows}; {TAKES}"
    head = f"has no columns of a training row (it has {_listed(columns)})"
    if items := [name for name in BENCHMARK if name in columns]:
        return (
            f"{head}: {', '.join(items)} belong{'s' * (len(items) == 1)} to a benchmark's items, "
            f"which are scored under `tasks`; {TAKES}"
        )
    if guess := guessed_columns(columns):
        pairs = ", ".join(f"{name}: {column}" for name, column in guess.items())
        return f"{head}; `columns: {{{pairs}}}` would do, if these are meant"
    return f"{head}; {TAKES}; map them, as {_example('instruction')}"


def guessed_columns(columns: Sequence[str]) -> dict[str, str]:
    """A mapping that would do for rows of no form; none where their names tell nothing."""
    guess = {
        name: next((other for other in (name, *often) if other in columns), None)
        for name, often in OFTEN.items()
    }
    for form in FORMS:
        due = {name: guess.get(name) for name in FORMS[form] if name not in MAY_LACK}
        if form != "completion" and all(due.values()):
            found = {name: column for name, column in due.items() if column and column != name}
            pictures = [name for name in (COLUMN, ALSO) if name in columns and form in PICTURED]
            return found | {COLUMN: pictures[0]} if found and pictures else found
    return {}


def _example(form: str) -> str:
    pairs = ", ".join(f"{name}: COLUMN" for name in FORMS[form] if name not in MAY_LACK)
    return f"`columns: {{{pairs}}}`"


def _listed(columns: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(one_line(name)[:40] for name in columns[:most]) or "none"
    return shown + (f", and {len(columns) - most} more" if len(columns) > most else "")
