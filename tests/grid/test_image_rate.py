"""`train.image_learning_rate` is refused where no projection has it, and no part of other ids."""

from __future__ import annotations

from typing import Any

from harness.grid.resolver import resolve, resolve_grid
from harness.grid.schema import expand
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


ENCODER = {"source": "openai/clip-vit-base-patch16"}


def test_only_methods_with_an_encoder_have_the_grids_rate() -> None:
    raw = plain()
    methods = ["lora", {"method": "zero-init-linear", "label": "text"}]
    methods.append({"method": "zero-init-linear", "label": "seeing", "image_encoder": ENCODER})
    raw["blocks"][0]["methods"] = methods
    without = {one.label: one.id for one in expand(resolve_grid(raw, place="g.yaml"))}
    raw["train"] = {**raw.get("train", {}), "image_learning_rate": 0.003}
    cells = expand(resolve_grid(raw, place="g.yaml"))
    rates = {one.method_label: one.train and one.train.image_learning_rate for one in cells}
    assert rates == {"lora": None, "text": None, "seeing": 0.003}
    changed = {one.method_label for one in cells if one.id != without[one.label]}
    assert changed == {"seeing"}
    assert "image_learning_rate" not in str(cells[0].record())


def test_it_is_tuned_where_there_is_one() -> None:
    raw = raw_grid(space={"seeing": {"image_learning_rate": [0.001, 0.01]}}, trials=2)
    raw["blocks"][0]["methods"] = [
        {"method": "zero-init-linear", "label": "seeing", "image_encoder": ENCODER, "num_layers": 5}
    ]
    tune = resolve_grid(raw, place="g.yaml").blocks[0].tune
    assert tune is not None
    assert tune.space["seeing"] == {"image_learning_rate": (0.001, 0.01)}


def test_it_is_not_tuned_where_there_is_no_encoder() -> None:
    space = {**SPACE, "lora": {"image_learning_rate": [0.001, 0.01]}}
    (fault,) = faults_of(raw_grid(space=space))
    assert fault == (
        "g.yaml: blocks[0].tune.space.lora.image_learning_rate: is the rate of an image_encoder's "
        "projection, and the method has none; leave it out"
    )
