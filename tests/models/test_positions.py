"""Rotary types that depend on a forward pass, and lengths beyond a model's positions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.models.checkpoint import ModelSpec, check_checkpoint
from harness.models.positions import (
    FIXED_TYPES,
    group_by_frequencies,
    length_note,
    pass_dependence,
)
from tests.fixtures.tiny_checkpoint import edit_json, write_checkpoint
from tests.fixtures.tiny_models import shape


def model_with(rope: Any, positions: int = 10) -> Any:
    config = SimpleNamespace(rope_parameters=rope, max_position_embeddings=positions)
    return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))


def groups(rope: Any, lengths: list[int]) -> list[list[int]]:
    parts = group_by_frequencies(model_with(rope), lambda length: length, lengths)
    return [list(part) for part in parts]


LONG = {"rope_type": "longrope", "original_max_position_embeddings": 4}


@pytest.mark.parametrize("kind", sorted(FIXED_TYPES))
def test_fixed_frequencies_keep_all_together_and_in_order(kind: str) -> None:
    lengths = [3, 50, 4, 11]
    model = model_with({"rope_type": kind})
    assert pass_dependence(model) is None
    (part,) = group_by_frequencies(model, lambda length: length, lengths)
    assert part is lengths


@pytest.mark.parametrize(
    ("rope", "expected", "span"),
    [
        (LONG, [[3, 4], [5, 11, 12, 12]], 4),
        ({"rope_type": "dynamic"}, [[3, 4, 5], [11], [12, 12]], 10),
        ({"rope_type": "of tomorrow"}, [[3], [4], [5], [11], [12, 12]], 0),
        (
            {"full_attention": LONG, "sliding_attention": {"rope_type": "dynamic"}},
            [[3, 4], [5], [11], [12, 12]],
            4,
        ),
    ],
)
def test_lengths_share_a_pass_where_their_frequencies_are_the_same(
    rope: Any, expected: list[list[int]], span: int
) -> None:
    assert groups(rope, [3, 4, 5, 11, 12, 12]) == expected
    dependence = pass_dependence(model_with(rope))
    assert dependence is not None
    assert dependence.span == span


def test_lengths_beyond_the_positions_are_told_and_the_advice_is_true(tmp_path: Path) -> None:
    spec = write_checkpoint(tmp_path)
    edit_json(tmp_path / "config.json", max_position_embeddings=100)

    def told(**asked: int) -> list[str]:
        notes = check_checkpoint(ModelSpec(path=spec.path, shape=shape()), tmp_path, **asked)
        return [note for note in notes if "100 positions" in note]

    (said,) = told(max_length=101)
    assert said.startswith("train.max_length is 101, but the model has 100 positions")
    assert told(max_length=100) == []


def test_examples_that_are_longer_are_counted() -> None:
    assert length_note([4, 9], None) is None
    assert length_note([4, 9], 9) is None
    said = length_note([4, 9, 12], 8)
    assert said is not None
    assert said.startswith("2 of 3 examples are longer than the model's 8 positions (up to 12 tok")
