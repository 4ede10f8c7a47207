"""Every law on every method and every family; see harness/testing/method_laws.py."""

from __future__ import annotations

from typing import Any, ClassVar

from harness.methods import METHODS
from harness.models.families import FAMILIES
from harness.testing import MethodLaws

SEPARATE = tuple(name for name, family in FAMILIES.items() if family.layout == "separate")
"""Families whose projections have the names that LoRA's defaults are made of."""

_SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"families": SEPARATE},
    "dora": {"families": SEPARATE, "options": {"rank": 4}},
    "ia3": {"families": SEPARATE},
    "vera": {"families": SEPARATE, "options": {"rank": 8}},
    "prefix-tuning": {"starts_as_base": False, "generates_without_cache": False},
    "prompt-tuning": {"starts_as_base": False, "options": {"num_virtual_tokens": 6}},
    "adaption-prompt": {"families": ("llama", "mistral")},
    "random-init": {"starts_as_base": False},
}
"""What is special about a method; see `MethodLaws`."""

for _name, _method in METHODS.items():
    if _name == "adapter":  # it needs a folder; see tests/test_export.py
        continue
    _class = "TestLawsOf" + _name.title().replace("-", "")
    _settings = {"method": _method} | _SETTINGS.get(_name, {})
    globals()[_class] = type(_class, (MethodLaws,), _settings)


class TestLawsOfLoraOnFusedProjections(MethodLaws):
    method = METHODS["lora"]
    options: ClassVar = {"targets": ("qkv_proj", "down_proj")}
    families = ("phi3",)


class TestLawsOfLoraOnInterleavedProjections(MethodLaws):
    method = METHODS["lora"]
    options: ClassVar = {"targets": ("query_key_value",)}
    families = ("gpt_neox",)


def test_every_family_is_tested() -> None:
    assert MethodLaws.families == tuple(FAMILIES)
