"""Whether the rows of a benchmark's local file can be asked: checked before a model is loaded.

What lm-eval says of a row that cannot be asked is an exception of a template, or nothing at all.
Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.data.pins import pins
from harness.errors import DataError, one_line
from harness.evaluation.benchmark import Benchmark
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.data_files import columns_here, read_rows
from harness.evaluation.task_files import subjects_of
from harness.readers.files import check_file
from harness.readers.formats import format_of
from harness.readers.parquet_files import read_footer
from harness.readers.pictures import BadPicture, Picture
from harness.records.files import sha256_of_file

Row = Mapping[str, Any]
QUESTION = "question"
"""The column that is asked in every benchmark that has it; other texts may be empty."""


def check_split(benchmark: Benchmark, file: str, path: Path, *, num_shots: int | None) -> None:
    """Checks that every row of a benchmark's file can be asked; the pinned ones can.

    Args:
        benchmark: what reads the file.
        file: its place under the data root, which may have a pinned content.
        path: where it lies.
        num_shots: of a split that few-shot examples are taken from, their number; None of the items
            themselves.

    Raises:
        DataError: a row cannot be asked, or there are too few.
        Unreadable: the file cannot be read, or lacks a column, or one has a type that is not due.
    """
    check_file(path)
    sha256 = sha256_of_file(path)
    pin = pins().get(file) if benchmark.hub is not None else None
    if pin is None or sha256 != pin.file_sha256:
        counts = _counted(benchmark.name, path, sha256)
        _check_counts(benchmark, path, counts, num_shots)


@lru_cache(maxsize=64)
def _counted(name: str, path: Path, _sha256: str) -> Counter[str]:
    """Number of rows by subject (the empty text without subjects), all of them checked."""
    benchmark = BENCHMARKS[name]
    texts = text_columns(benchmark)
    if format_of(path) == "parquet":
        plain = [one for one in benchmark.columns if one != benchmark.picture_column]
        read_footer(path).check({one: "text" if one in texts else "plain" for one in plain})
    rows = read_rows(path, columns_read(benchmark, path)).to_pylist()
    counts: Counter[str] = Counter()
    for number, row in enumerate(rows):
        for column, said in _faults(benchmark, row):
            raise DataError(
                f"{path}: row {number} (the first is 0), column {column}: {said}; correct "
                "the row, or take it out"
            )
        counts[str(row[benchmark.subject_column]) if benchmark.subject_column else ""] += 1
    return counts


def columns_read(benchmark: Benchmark, path: Path) -> list[str]:
    """The columns that a benchmark reads of a file: those it needs, and the others that are there.

    Raises:
        Unreadable: the file cannot be read.
    """
    optional = benchmark.optional_columns and set(columns_here(path))
    return [*benchmark.columns, *(one for one in benchmark.optional_columns if one in optional)]


def text_columns(benchmark: Benchmark) -> list[str]:
    """The columns that hold plain text: all but those of the options, the answer, the picture and
    the id.
    """
    form = benchmark.form
    assert form is not None
    places = (
        form.options, form.truths, form.answer, benchmark.id_column, benchmark.picture_column
    )  # fmt: skip
    others = {place.partition(".")[0] for place in places if place}
    return [column for column in benchmark.columns if column not in others]


def _faults(benchmark: Benchmark, row: Row) -> Iterator[tuple[str, str]]:
    """Yields a column and what is wrong in it."""
    form = benchmark.form
    assert form is not None
    if (picture := benchmark.picture_column) is not None:
        yield from ((picture, said) for said in picture_faults(row.get(picture)))
    for column in benchmark.columns:
        if column == picture:
            continue
        if row[column] is None and column != benchmark.id_column:
            yield column, "is empty (null)"
        elif column == QUESTION and not str(row[column]).strip():
            yield column, "is an empty text"
    options = value_at(row, form.options)
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        held = row[form.options.partition(".")[0]] if options is None else options
        yield form.options, f"holds {_shown(held)}, where a list of texts is due"
        return
    if len(options) < 2 or form.num_options not in (None, len(options)):
        due = form.num_options or "two or more"
        yield form.options, f"has {len(options)} options, {due} are due"
    if not all(options):
        yield form.options, f"option {options.index('')} (the first is 0) is an empty text"
    yield from _answer_faults(benchmark, row, options)


def picture_faults(value: object) -> Iterator[str]:
    """What is wrong with the picture that a cell holds: its header is read, not its pixels."""
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if data is None:
        return
    if not isinstance(data, bytes):
        yield f"holds {_shown(data)}, where a picture's bytes are due"
        return
    try:
        Picture.of(data).check()
    except BadPicture as fault:
        yield str(fault)


def _answer_faults(
    benchmark: Benchmark, row: Row, options: Sequence[str]
) -> Iterator[tuple[str, str]]:
    form = benchmark.form
    assert form is not None
    if form.truths is not None:
        truths = value_at(row, form.truths)
        if not isinstance(truths, list) or len(truths) != len(options):
            yield form.truths, f"holds {_shown(truths)}, where {len(options)} numbers are due"
        elif any(truth not in (0, 1) for truth in truths) or 1 not in truths:
            yield form.truths, f"holds {_shown(truths)}, where 0s and a 1 are due"
        elif form.first_is_true and truths[0] != 1:
            yield form.truths, "does not begin with 1: the first option is taken for the right one"
        return
    assert form.answer is not None
    answer = row[form.answer]
    if form.labels is not None:
        labels = value_at(row, form.labels)
        if not isinstance(labels, list) or len(labels) != len(options):
            yield form.labels, f"holds {_shown(labels)}, where {len(options)} labels are due"
        elif labels.count(answer) > 1:
            yield form.labels, f"holds {_shown(answer)} more than once: which is right is not said"
        elif answer not in labels:
            known = ", ".join(map(_shown, labels))
            yield form.answer, f"{_shown(answer)} is none of the labels {known}"
        return
    number = answer
    if form.number_as_text and isinstance(answer, str) and answer.isdecimal():
        number = int(answer)
    if type(number) is not int or number not in range(len(options)):
        yield form.answer, f"{_shown(answer)} is no number from 0 to {len(options) - 1}"


def _check_counts(
    benchmark: Benchmark, path: Path, counts: Mapping[str, int], num_shots: int | None
) -> None:
    if not counts:
        raise DataError(f"{path}: has no rows; give a file with the items of {benchmark.name}")
    asked: Sequence[str] = [""]
    if benchmark.subject_column is not None:
        known, all_asked = subjects_of(benchmark.task_folder, benchmark.name)
        for subject in sorted(counts.keys() - known):
            raise DataError(
                f"{path}: column {benchmark.subject_column}: {_shown(subject)} is no subject of "
                f"{benchmark.name}; take its rows out, or rename it"
            )
        asked = sorted(known) if all_asked else sorted(counts)
    least = 1 if num_shots is None else num_shots
    for subject in asked:
        if counts.get(subject, 0) < least:
            which = f" of {benchmark.subject_column} '{subject}'" if subject else ""
            what = "an item is" if num_shots is None else f"{least} examples are"
            raise DataError(
                f"{path}: has {counts.get(subject, 0)} rows{which}, and {what} asked for; give the "
                f"whole file{'' if num_shots is None else ', or lower shots'}"
            )


def question_id(benchmark: Benchmark, doc: Row, picture: str | None = None) -> str:
    """The data set's own id of an item, else a hash of its content, and of its picture's."""
    own = benchmark.id_column and doc.get(benchmark.id_column)
    if not own:
        content = {column: doc[column] for column in benchmark.columns or sorted(doc)}
        if picture is not None and benchmark.picture_column in benchmark.optional_columns:
            content["picture"] = picture
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=_named)
        own = hashlib.sha256(text.encode()).hexdigest()[:16]
    return str(own)


def _named(value: Any) -> str:
    """A value that JSON has no form for; a picture of Pillow's by its pixels, since its text names
    its place in memory."""
    if hasattr(value, "tobytes") and hasattr(value, "mode"):
        pixels = hashlib.sha256(value.tobytes()).hexdigest()
        return f"{value.mode} {value.size} {pixels}"
    return str(value)


def value_at(row: Row, place: str) -> Any:
    """What a row holds at `column` or `column.field`; None where there is nothing."""
    value: Any = row
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shown(value: object) -> str:
    return one_line(repr(value))[:60]
