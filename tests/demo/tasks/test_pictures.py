"""The control of the picture questions: no item keeps its picture, nothing else changes."""

from __future__ import annotations

from datasets import Dataset

from harness.demo.tasks.pictures import with_others_pictures
from harness.demo.world import DATA


def test_every_item_has_the_picture_of_another_one() -> None:
    docs = Dataset.from_parquet(str(DATA / "pictures" / "test.parquet"), keep_in_memory=True)
    shown = with_others_pictures(docs)
    assert shown.remove_columns("image").to_list() == docs.remove_columns("image").to_list()
    own, others = ([image["bytes"] for image in one["image"]] for one in (docs, shown))
    assert sorted(own) == sorted(others)
    assert not any(a == b for a, b in zip(own, others, strict=True))
