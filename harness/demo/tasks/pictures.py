"""The control of the picture questions: every question with another item's picture."""

from __future__ import annotations

from datasets import Dataset


def with_others_pictures(docs: Dataset) -> Dataset:
    """The items, each with the picture of the next one, the last with the first's; the items are
    in random order.
    """
    columns = docs.to_dict()
    first, *rest = columns["image"]
    return Dataset.from_dict({**columns, "image": [*rest, first]})
