"""Keeps the token ids of requests for the next model of the same tokenizer."""

from __future__ import annotations

Encoding = tuple[list[int], list[int]]

MAX_KEPT_TOKENS = 4_000_000
"""Encodings are kept for the next model up to so many tokens in all (about 100 MB)."""


class EncodingCache:
    """Token ids of (context, answer) pairs under one tokenizer, up to MAX_KEPT_TOKENS."""

    def __init__(self) -> None:
        self._num_tokens = 0
        self._encodings: dict[tuple[str, str], Encoding] = {}

    def get(self, pair: tuple[str, str]) -> Encoding | None:
        """Returns the pair's encoding if it is kept."""
        return self._encodings.get(pair)

    def put(self, pair: tuple[str, str], encoding: Encoding) -> None:
        """Keeps an encoding while there is room."""
        size = len(encoding[0]) + len(encoding[1])
        if self._num_tokens + size <= MAX_KEPT_TOKENS:
            self._encodings[pair] = encoding
            self._num_tokens += size
