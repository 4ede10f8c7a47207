"""Reading rows: from the records of files to rows of one form, with what was left out counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.conversations import (
    BadRow,
    conversation_of,
    refuse_beside,
    text_of,
    turns_of,
    with_system,
)
from harness.data.forms import PICTURED, SAMPLE_ROWS, Form, form_of, known_columns
from harness.data.row_pictures import COLUMN, PictureReader
from harness.data.rows import (
    Completion,
    Conversation,
    Instruction,
    Row,
    ScienceQuestion,
    Text,
    picture_of,
    texts_of,
)
from harness.data.science_rows import science_question
from harness.data.spec import MAY_LACK, ODD_ROWS, DataSpec, Where
from harness.data.templates import NAMES
from harness.errors import DataError, did_you_mean
from harness.readers.column_types import is_plain, may_hold_pictures
from harness.readers.records import Record, Records, open_records

if TYPE_CHECKING:
    from harness.data.conditions import Condition

NAMED = 3
"""Bad rows that are told of."""


def odd_counts(**counts: int) -> dict[str, int]:
    """The counts of ODD_ROWS that are not 0."""
    return {name: count for name, count in counts.items() if count}


@dataclass
class RowReport:
    """What was found of a set's rows."""

    form: str = ""
    """As TRL names it: a key of `FORMS`."""
    template: str = ""
    """What they are put into, in words."""
    rows: int = 0
    """That are left to train on."""
    dropped: int = 0
    """Without a text where one is due, or with an empty response, where `on_bad_rows` is `drop`."""
    left_out: int = 0
    """By `where`."""
    filled: int = 0
    """Without a text where one is due, and kept, where `on_bad_rows` is `keep`."""
    empty: int = 0
    """Of `rows`: with an empty response."""
    text_bytes: int = 0
    """About: characters of the rows' texts, and bytes of their pictures."""
    pictures: int = 0
    """Of `rows`: with a picture."""
    longest: int = 0
    """Bytes of the texts of the longest row: it has no more tokens of its own."""

    def __str__(self) -> str:
        odd = self.odd | odd_counts(empty=self.empty)
        said = [f"{count:,} {ODD_ROWS[name]}" for name, count in odd.items()]
        said = [f"{self.pictures:,} with a picture"] * bool(self.pictures) + said
        template = f", {self.template}" if self.template else ""
        return "; ".join([f"{self.rows:,} rows ({self.form}{template})", *said])

    @property
    def odd(self) -> dict[str, int]:
        """Numbers of the rows that are left out, or filled, where there are any."""
        return odd_counts(dropped=self.dropped, filled=self.filled, left_out=self.left_out)

    @property
    def policy_matters(self) -> bool:
        """Whether `on_bad_rows` changed a row."""
        return bool(self.dropped or self.filled)


def template_title(form: str, template: str | None) -> str:
    """What rows of a form are put into, in words."""
    own = {
        "instruction": "template alpaca",
        "messages": "template chat",
        "scienceqa": "template scienceqa",
    }
    if template is None:
        return own.get(form, "no template")
    return f"template {template}" if template in NAMES else "a Jinja template"


@dataclass
class RowReader:
    """Goes through the rows of a set once; `report` is whole at the end."""

    spec: DataSpec
    report: RowReport = field(default_factory=RowReport)
    _number: int = 0
    _bad: list[str] = field(default_factory=list)
    _form_of: Path | str = ""
    _files: int = 1
    _pictures: PictureReader = field(default_factory=PictureReader)

    def rows_of_files(self, files: Sequence[Path], place: str) -> Iterator[Row]:
        """Yields the rows of files of one form, in order; `place` is what the grid calls them.

        Raises:
            ZbenchError: a file cannot be read, has rows of no or of another form, or bad rows.
        """
        self._files = len(files)
        for file in files:
            self._number = 0
            with open_records(file, known_columns(self.spec.columns)) as records:
                yield from self._rows(records, str(file))
        self._finish(place)

    def rows_of_records(self, records: Records, place: str) -> Iterator[Row]:
        """The same of a table of the hub."""
        yield from self._rows(records, place)
        self._finish(place)

    def _rows(self, records: Records, place: str) -> Iterator[Row]:
        form, found = self._form(records, place)
        if form is None:
            return
        if self.report.form not in ("", form.name):
            raise DataError(
                f"{place}: its rows are of the form {form.name}, those of {self._form_of} of the "
                f"form {self.report.form}; give files of one form"
            )
        self.report.form, self._form_of = form.name, self._form_of or place
        condition = _condition_of(self.spec)
        for record in found:
            number, self._number = self._number, self._number + 1
            if condition is not None and not condition.holds(
                record, f"{place}: row {number} (the first is 0)"
            ):
                self.report.left_out += 1
            elif (row := self._row(form, record, number, place)) is not None:
                yield row

    def _form(self, records: Records, place: str) -> tuple[Form | None, Iterable[Record]]:
        if records.types is not None:
            form = form_of(list(records.types), self.spec.columns, (), place)
            for name in form.read:
                kind = records.types[name]
                is_picture = name == form.columns.get(COLUMN)
                if not (may_hold_pictures(kind) if is_picture else is_plain(kind)):
                    due = "picture" if is_picture else "text"
                    raise DataError(f"{place}: column {name} holds {kind}, no {due}")
            return form, records.read(self._columns(form, records, place))
        rows = records.read(())
        sample = list(itertools.islice(rows, SAMPLE_ROWS))
        if not sample:
            return None, ()
        columns = list(dict.fromkeys(name for row in sample for name in row))
        form = form_of(columns, self.spec.columns, sample, place)
        return form, self._same_form(form, itertools.chain(sample, rows), place)

    def _columns(self, form: Form, records: Records, place: str) -> list[str]:
        """The columns to read of a table: the form's, and those of the condition."""
        assert records.types is not None
        wanted = list(form.read)
        if (condition := _condition_of(self.spec)) is not None:
            named = condition.columns
            for name in sorted(named - set(records.types)):
                known = did_you_mean(name, records.types)
                raise DataError(f"{place}: has no column '{name}', which `where` names{known}")
            for name in sorted(named):
                if not is_plain(kind := records.types[name]):
                    raise DataError(f"{place}: `where` names {name}, a column of {kind}, no text")
            wanted += [name for name in records.types if name in named]
        return list(dict.fromkeys(wanted))

    def _same_form(self, form: Form, rows: Iterable[Record], place: str) -> Iterator[Record]:
        """Yields rows of JSON, each of which has its own columns."""
        due = set(form.columns.values())
        for number, row in enumerate(rows):
            if due.isdisjoint(row):
                raise DataError(
                    f"{place}: row {number} (the first is 0) has the columns "
                    f"{', '.join(map(str, row))[:80] or 'none'}, the rows before it "
                    f"{', '.join(form.columns.values())}; give a file with rows of one form"
                )
            yield row

    def _row(self, form: Form, record: Record, number: int, place: str) -> Row | None:
        """The row of a record; None where it is not trained on."""
        policy, report, where = self.spec.on_bad_rows, self.report, self.spec.where
        try:
            row = make_row(form, record, self._pictures, keep=False)
        except BadRow as fault:
            said = str(fault)
            if policy == "drop":
                report.dropped += 1
                return None
            if policy != "keep" or (filled := self._filled(form, record)) is None:
                self._note(number, said, place)
                return None
            row, report.filled = filled, report.filled + 1
        size = sum(map(len, texts_of(row)))
        if isinstance(where, Where) and size > where.max_characters:
            report.left_out += 1
            return None
        if has_empty_response(row):
            if policy == "drop":
                report.dropped += 1
                return None
            if policy == "fail":
                self._note(number, "has an empty response", place)
                return None
            report.empty += 1
        report.rows += 1
        report.text_bytes += size
        if (picture := picture_of(row)) is not None:
            report.pictures += 1
            report.text_bytes += len(picture.data)
        if 4 * size > report.longest:  # a character has at most 4 bytes
            own = sum(len(text.encode(errors="replace")) for text in texts_of(row))
            report.longest = max(report.longest, own)
        return row

    def _filled(self, form: Form, record: Record) -> Row | None:
        """A bad row with empty texts where it has none; None where even that makes no row."""
        try:
            return make_row(form, record, self._pictures, keep=True)
        except BadRow:
            return None

    def _note(self, number: int, said: str, place: str) -> None:
        row = f"row {number}" if self._files < 2 else f"{Path(place).name}, row {number}"
        self._bad.append(f"{row}: {said}")
        if len(self._bad) == NAMED:
            self._refuse(place)

    def _finish(self, place: str) -> None:
        if self._bad:
            self._refuse(place)
        report = self.report
        if not report.rows:
            lost = [f"{report.dropped} are bad"] * bool(report.dropped)
            lost += [f"{report.left_out} left out by `where`"] * bool(report.left_out)
            said = f"has no rows that are left ({', '.join(lost)})" if lost else "has no rows"
            raise DataError(f"{place}: {said}; give a file with rows to train on")

    def _refuse(self, place: str) -> None:
        most = " at least" if len(self._bad) == NAMED else ""
        rows = "1 row" if len(self._bad) == 1 else f"{len(self._bad)} rows"
        other = "" if self.spec.on_bad_rows == "keep" else ", or say `on_bad_rows: drop`"
        raise DataError(
            f"{place}:{most} {rows} cannot be trained on (the first is 0): "
            f"{'; '.join(self._bad)}; correct the file{other}"
        )


def _condition_of(spec: DataSpec) -> Condition | None:
    if not isinstance(spec.where, str):
        return None
    from harness.data.conditions import Condition  # jinja2 takes a tenth of a command's start

    return Condition(spec.where)


def make_row(form: Form, record: Mapping[str, Any], pictures: PictureReader, *, keep: bool) -> Row:
    """The row of a record; `keep` takes a missing text for an empty one.

    Raises:
        BadRow: it lacks a text, its turns are out of order, or its picture is broken.
    """
    row = _made(form, record, pictures, keep=keep)
    own = "system" if isinstance(row, Conversation) else None  # it has a place for that
    refuse_beside(record, *(name for name in form.extras if name != own))
    return row


def _made(form: Form, record: Mapping[str, Any], pictures: PictureReader, *, keep: bool) -> Row:
    columns = form.columns

    def text(name: str) -> str:
        column = columns.get(name, name)
        if name in columns and column in record:
            return text_of(record[column], column, keep=keep)
        if name not in MAY_LACK and not keep:
            raise BadRow(f"has no {column}")
        return ""

    if form.name in PICTURED:
        column = columns.get(COLUMN, COLUMN)
        picture = pictures.picture(record.get(column), column) if COLUMN in columns else None
        if form.name == "scienceqa":
            return science_question(record, columns, picture)
        return Instruction(text("instruction"), text("input"), text("output"), picture)
    if form.name == "text":
        return Text(text("text"))
    if form.name == "messages":
        return conversation_of(record.get(columns["messages"]), record, keep=keep)
    prompt = record.get(columns["prompt"])
    if not isinstance(prompt, list):
        return Completion(text("prompt"), text("completion"))
    turns = turns_of(prompt, columns["prompt"], keep=keep)
    if any(turn.role == "assistant" for turn in turns):
        raise BadRow("its prompt has a turn of the assistant, which is not to be trained on")
    answer = turns_of(record.get(columns["completion"]), columns["completion"], keep=keep)
    return with_system([*turns, *answer], record, keep=keep)


def has_empty_response(row: Row) -> bool:
    """Whether nothing but the end is learned of a row, or of a turn of it."""
    if isinstance(row, Conversation):
        return any(turn.role == "assistant" and not turn.content for turn in row.turns)
    return not (isinstance(row, ScienceQuestion) or texts_of(row)[-1])
