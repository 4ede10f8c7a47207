"""What prefixes save on ScienceQA's test split, under LLaMA's tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerFast

from harness.evaluation.prefix_trie.trie import Request, plan_spans
from harness.evaluation.scienceqa.documents import letters, prompt_before_letter
from tests.fixtures.real_data import DATA_ROOT

Tokens = tuple[int, ...]


def distinct_tokens(texts: Iterable[Tokens]) -> int:
    """Nodes of the trie of texts."""
    total, before = 0, Tokens()
    for text in sorted(set(texts)):
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(before, text, strict=False))
        total, before = total + len(text) - sum(1 for _ in shared), text
    return total


@pytest.mark.slow
def test_tokens_of_the_test_split() -> None:
    """One by one, within an item, a trie for each picture, and one trie for all.

    The pictures of most rows are not here: each is taken for another one, but for those whose
    bytes are known to be the same. With all of them at hand it is less than 330,917.
    """
    folder = Path(DATA_ROOT or "") / "scienceqa"
    texts, pictures = folder / "test_text.parquet", folder / "test_pictures_240.parquet"
    if DATA_ROOT is None or not texts.is_file() or not pictures.is_file():
        pytest.skip("needs ScienceQA's test split: set ZBENCH_DATA_ROOT")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder.parent / "llama_tokenizer")
    known = {
        row["pid"]: hashlib.sha256(row["image"]["bytes"]).hexdigest()
        for row in pyarrow.parquet.read_table(pictures, columns=["pid", "image"]).to_pylist()
    }
    by_picture: dict[str | None, list[Tokens]] = {}
    within = 0
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(texts).to_pylist()
    for row in rows:
        asked = [f"{prompt_before_letter(row)} {letter}" for letter in letters(row)]
        tokens = [tuple(one) for one in tokenizer(asked)["input_ids"]]
        within += distinct_tokens(tokens)
        picture = known.get(row["pid"], row["pid"]) if row["has_image"] else None
        by_picture.setdefault(picture, []).extend(tokens)
    every = [one for of_it in by_picture.values() for one in of_it]
    assert len(every) == 11_575
    assert sum(map(len, every)) == 968_341
    assert within == 366_087
    assert sum(map(distinct_tokens, by_picture.values())) == 330_917
    assert distinct_tokens(every) == 271_067

    # What the scorer computes: without the letter, which is only predicted, and with the prefixes
    # that are cheaper computed again than kept.
    requests = {
        Request(one[:-1], one[-1:], picture)
        for picture, of_it in by_picture.items()
        for one in of_it
    }
    spans = plan_spans([*requests], largest_segment=4096, hidden_size=4096)
    segments = {span.segment for span in spans}
    segments |= {one.parent for one in segments if one.parent is not None}
    least = sum(distinct_tokens(one[:-1] for one in of_it) for of_it in by_picture.values())
    assert least <= sum(one.size for one in segments) < 1.1 * least
