"""Items as a reader sees them: what is asked, the right answer, and what both sides answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.answers import LOGLIKELIHOOD, ItemOutcome, Kind
from harness.analysis.item_texts import ItemText, text_in

Record = Mapping[str, Any]
"""What is kept of one item of one cell: see docs/results.md."""


@dataclass(frozen=True)
class ShownItem:
    """One item, and how both sides answer it."""

    task: str
    doc_id: int
    question_id: str
    kind: Kind
    first: float
    """Mean score over the seeds."""
    second: float
    question: str
    """Empty where the text is not at hand."""
    options: tuple[str, ...]
    gold: str
    first_answers: str
    """Of several seeds each answer once, with its number."""
    second_answers: str


def shown_item(
    outcome: ItemOutcome,
    text: ItemText | None,
    first: Sequence[Record],
    second: Sequence[Record],
    metric: str,
) -> ShownItem:
    """An item with the records that the cells of both sides keep of it, and its text where these
    do not hold it."""
    text = next(filter(None, map(text_in, (*first, *second))), text)
    options = text.options if text else ()
    task, doc_id, question = outcome.item
    gold = option_text(first[0].get("gold"), options) if first else ""
    return ShownItem(
        task,
        doc_id,
        question,
        outcome.kind,
        outcome.first,
        outcome.second,
        text.question if text else "",
        options,
        gold or (text.gold if text else ""),
        _answers(first, metric, options),
        _answers(second, metric, options),
    )


def _answers(records: Sequence[Record], metric: str, options: Sequence[str]) -> str:
    found = Counter(answer_text(record, metric, options) for record in records)
    if len(found) == 1:
        return next(iter(found))
    return " | ".join(f"{text} (×{count})" for text, count in found.items())


def answer_text(record: Record, metric: str, options: Sequence[str]) -> str:
    """What a cell answered to an item: its response or choice, or else its score."""
    name, _, chosen_by = metric.partition(",")
    filtered = record.get("filtered")
    found = filtered.get(chosen_by or "none") if isinstance(filtered, Mapping) else None
    response = record.get("response")
    if found is not None and response not in (None, found):
        return f"{found or '(empty)'} (of: {response})"
    if response is not None:
        return str(response) or "(empty)"
    by_length = record.get("prediction_norm") if name == "acc_norm" else None
    prediction = record.get("prediction") if by_length is None else by_length
    if prediction is not None:
        return option_text(prediction, options)
    if isinstance(value := record.get(metric), int | float):
        return f"{value:.4g}"
    nats = record.get(LOGLIKELIHOOD)
    return f"log-likelihood {nats:.4g}" if isinstance(nats, int | float) else ""


def option_text(number: Any, options: Sequence[str]) -> str:
    """An option by its number, or several; the number itself where the texts are not known."""
    if number is None:
        return ""
    if isinstance(number, list | tuple):
        return " / ".join(option_text(one, options) for one in number)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int):
        return str(number)
    return options[number] if 0 <= number < len(options) else f"option {number + 1}"
