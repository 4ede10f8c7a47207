from __future__ import annotations

import pytest

from harness.evaluation import scorer as encodings
from harness.evaluation.scorer import EncodingCache


def test_encodings_are_kept_up_to_a_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "MAX_KEPT_TOKENS", 6)
    cache = EncodingCache()
    cache.put(("a", "b"), ([1, 2], [3]))
    cache.put(("a", "c"), ([1, 2], [4, 5]))
    cache.put(("a", "d"), ([1, 2], [6]))
    assert cache.get(("a", "b")) == ([1, 2], [3])
    assert cache.get(("a", "c")) is None
    assert cache.get(("a", "d")) == ([1, 2], [6])
