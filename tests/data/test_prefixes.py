from __future__ import annotations

import random

from harness.data.prefixes import common_prefix_length


def test_what_two_sequences_begin_with_is_counted() -> None:
    rng = random.Random(0)
    for _ in range(300):
        left, right = (tuple(rng.randrange(2) for _ in range(rng.randrange(9))) for _ in range(2))
        expected = 0
        while expected < min(len(left), len(right)) and left[expected] == right[expected]:
            expected += 1
        assert common_prefix_length(left, right) == expected
        assert common_prefix_length(bytes(left), bytes(right)) == expected
