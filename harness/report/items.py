"""The page's table of items: a reader chooses pair, benchmark and kind, and turns its pages.

The rows are JSON in the page, which a small script of its own shows; nothing is loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness.analysis.answers import Kind
from harness.analysis.item_tables import ItemTable
from harness.errors import printable
from harness.report.page import html

LONGEST = 700
"""Characters of a text that is shown."""


def items_section(tables: Sequence[ItemTable]) -> str:
    """HTML of the browsable table; empty where there are no items."""
    if not tables:
        return ""
    shown = sum(len(table.items) for table in tables)
    total = sum(sum(table.counts.values()) for table in tables)
    notes = [
        "Items of the pairs that the grid asks to be compared, those first that the two do not "
        "answer alike. Right: by more than half of the seeds; of several seeds each answer stands "
        "once, with its number, and behind it the mean score."
    ]
    if shown < total:
        notes.append(
            f"{shown} of {total} items stand here; `zbench compare A B --items N` prints the other "
            f"{total - shown}."
        )
    if any(not item.question for table in tables for item in table.items):
        notes.append(
            "Items without a text: the data root does not hold it in a form that can be read "
            "without lm-eval; `zbench compare A B --items N` asks lm-eval for it."
        )
    return html("items", _json(tables), notes)


def _json(tables: Sequence[ItemTable]) -> str:
    """The rows, texts of items once; safe inside a script element."""
    texts: dict[tuple[Any, ...], int] = {}
    records = []
    names = Counter((table.model, table.left, table.right, _benchmark(table)) for table in tables)
    for table in tables:
        rows = []
        for one in table.items:
            text = (_cut(one.question), tuple(map(_cut, one.options)), _cut(one.gold))
            place = texts.setdefault(text, len(texts))
            name = _cut(f"{one.task} {one.doc_id}")
            answers = _cut(one.first_answers), _cut(one.second_answers)
            means = round(one.first, 4), round(one.second, 4)
            rows.append([one.kind, name, _cut(one.question_id), place, *answers, *means])
        name = _benchmark(table)
        if names[table.model, table.left, table.right, name] > 1:  # measured in several ways
            name += f": {table.group_title}"
        records.append(
            {
                "pair": _cut(f"{table.model}: {table.left} − {table.right}"),
                "sides": [_cut(table.left), _cut(table.right)],
                "benchmark": _cut(name),
                "seeds": table.num_seeds,
                "kinds": [
                    [kind, _cut(_kind_name(kind, table)), count]
                    for kind, count in table.counts.items()
                ],
                "rows": rows,
            }
        )
    plain = json.dumps({"texts": list(texts), "tables": records}, ensure_ascii=False)
    # No closing tag, comment or CDATA can begin in it.
    return plain.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _benchmark(table: ItemTable) -> str:
    return f"{table.column} ({table.benchmark} {table.metric})"


def _kind_name(kind: Kind, table: ItemTable) -> str:
    if table.right_or_wrong:
        names = {"first": f"only {table.left}", "second": f"only {table.right}"}
        return {"both": "both right", "neither": "neither", **names}[kind]
    names = {"first": f"{table.left} better", "second": f"{table.right} better"}
    return {"equal": "equal", **names}[kind]


def _cut(text: str) -> str:
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
