"""Settings of adapter folders: the table is PEFT's, and each value out of place is told."""

from __future__ import annotations

import dataclasses
import re
import typing
from typing import Any

import pytest
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

import harness  # noqa: F401  # registers the prompt methods
from harness.errors import printable
from harness.models.adapter_settings import known_types, setting_faults, type_fault

GOOD: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16.5,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": ["q_proj"],
    "rank_pattern": {"q_proj": 4},
    "alpha_pattern": {"q_proj": 4.5},
    "use_rslora": False,
    "layers_to_transform": [0, 1],
    "layers_pattern": None,
    "loftq_config": {},
    "init_lora_weights": True,
    "revision": None,
}


def test_the_known_types_are_those_of_the_installed_peft() -> None:
    assert set(known_types()) == {kind.value for kind in PeftType}
    assert type_fault("LORA") is None
    assert "unknown peft_type 'LORRA'; did you mean 'LORA'?" in (type_fault("LORRA") or "")


def test_good_settings_have_no_fault() -> None:
    assert setting_faults(GOOD) == []


def test_what_peft_starts_a_configuration_with_has_no_fault() -> None:
    for peft_type, kind in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        settings: dict[str, Any] = {
            field.name: field.default if field.default is not dataclasses.MISSING else None
            for field in dataclasses.fields(kind)
        }
        settings["peft_type"] = peft_type
        assert setting_faults(settings) == [], kind


PLAIN = {int: 2.5, float: "x", bool: "false", str: 3}
"""A value of another kind, by the kind that PEFT states."""


@pytest.mark.parametrize("kind", sorted(PEFT_TYPE_TO_CONFIG_MAPPING))
def test_every_plain_setting_of_peft_is_in_the_table(kind: str) -> None:
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kinds = set(typing.get_args(hints[field.name])) or {hints[field.name]}
        (first, *more) = kinds - {type(None)}
        if first not in PLAIN or more or field.name in ("variant", "init_weights"):
            continue
        wrong = PLAIN[first]
        if "alpha" in field.name:
            wrong = "much"  # PEFT only divides it, so that a fraction is welcome
        assert setting_faults({field.name: wrong}), field.name


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("r", "x", r"r must be a whole number \(got 'x'\)"),
        ("r", 2.5, "a whole number"),
        ("r", True, "a whole number"),
        ("r", 0, "from 1 to 65,536"),
        ("r", -1, "from 1 to 65,536"),
        ("r", 10**9, "from 1 to 65,536"),
        ("r", [8], "a whole number"),
        ("lora_alpha", "much", "a number"),
        ("lora_alpha", float("nan"), "a number"),
        ("lora_dropout", 1.0, "from 0 to below 1"),
        ("lora_dropout", "0.1", "a number"),
        ("bias", "junk", "one of none, all, lora_only"),
        ("bias", ["none"], "one of none"),
        ("target_modules", 5, "a name or a list of names"),
        ("target_modules", ["q_proj", 3], "a name or a list of names"),
        ("target_modules", {"q_proj": 1}, "a name or a list of names"),
        ("modules_to_save", [None], "a name or a list"),
        ("rank_pattern", 3, "a mapping of names to numbers"),
        ("rank_pattern", {"q_proj": "x"}, "a mapping of names to numbers"),
        ("rank_pattern", {"q_proj": 0}, r"rank_pattern.q_proj must be from 1"),
        ("alpha_pattern", [1], "a mapping"),
        ("use_rslora", "false", r"true or false \(got 'false'\)"),
        ("fan_in_fan_out", 1, "true or false"),
        ("layers_to_transform", ["0"], "a whole number or a list"),
        ("num_virtual_tokens", 10**12, "from 1 to 65,536"),
        ("loftq_config", "x", "a mapping"),
        ("r", "x\x1b[31m" * 99, r"got 'x\\x1b"),
    ],
)
def test_a_value_of_another_kind_is_told(name: str, value: object, line: str) -> None:
    (fault,) = setting_faults(GOOD | {name: value})
    assert re.search(line, fault)
    assert fault.startswith(name)
    assert printable(fault) == fault
    assert len(fault) < 200
