from __future__ import annotations

import pytest

from harness.evaluation import scorer
from harness.evaluation.scorer import EncodingCache


def test_encodings_are_kept_up_to_a_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "MAX_KEPT_TOKENS", 6)
    cache, encoded = EncodingCache(), []

    def encode(context: str, answer: str) -> tuple[list[int], list[int]]:
        encoded.append(answer)
        return [1] * len(context), [2] * len(answer)

    for _ in range(2):
        for answer in ("b", "bb", "c"):
            assert cache.get(("aa", answer), encode) == ([1, 1], [2] * len(answer))
    assert encoded == ["b", "bb", "c", "bb"]
