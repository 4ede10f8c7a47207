"""`train.image_learning_rate` is refused where no projection has it, and no part of other ids."""

from __future__ import annotations

from typing import Any

from harness.grid.resolver import resolve
from tests.grid.test_tune_entries import SPACE, raw_grid


def faults_of(raw: dict[str, Any]) -> list[str]:
    return list(resolve(raw, place="g.yaml").faults)


def plain(**keys: Any) -> dict[str, Any]:
    raw = raw_grid() | keys
    for block in raw["blocks"]:
        block.pop("tune", None)
    return raw


def test_a_method_without_an_encoder_has_no_use_for_it() -> None:
    raw = plain()
    raw["blocks"][0]["methods"] = [{"method": "lora", "train": {"image_learning_rate": 0.003}}]
    (fault,) = faults_of(raw)
    assert fault == (
        "g.yaml: blocks[0].methods[0].train.image_learning_rate: is the rate of an image_encoder's "
        "projection, and the method has none; leave it out, or give the method one"
    )


def test_a_grid_without_an_encoder_has_no_use_for_it() -> None:
    raw = plain()
    raw["train"] = {**raw.get("train", {}), "image_learning_rate": 0.003}
    (fault,) = faults_of(raw)
    assert fault == (
        "g.yaml: train.image_learning_rate: no method of the blocks has an image_encoder; "
        "leave it out"
    )


def test_it_is_not_tuned_where_there_is_no_encoder() -> None:
    space = {**SPACE, "lora": {"image_learning_rate": [0.001, 0.01]}}
    (fault,) = faults_of(raw_grid(space=space))
    assert fault == (
        "g.yaml: blocks[0].tune.space.lora.image_learning_rate: is the rate of an image_encoder's "
        "projection, and the method has none; leave it out"
    )
