"""Every law on every method and every family; see harness/testing/method_laws.py."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from harness.methods import METHODS
from harness.models.families import FAMILIES
from harness.testing import MethodLaws

CODE_PATHS = ("llama", "mistral", "gemma2", "phi3", "gpt_neox")
"""A family of each code path: no mask, windows, eager attention with caps, and the three layouts of
projections. PEFT's own methods touch nothing else of a family."""
EVERY_FAMILY = ("full", "random-init", "zero-init-linear", "zero-init-nonlinear")
"""Methods whose gradients or prompts pass zbench's own code in each family's attention."""
SEPARATE = tuple(name for name, family in FAMILIES.items() if family.layout == "separate")
"""Families whose projections have the names that LoRA's defaults are made of."""

SETTINGS: dict[str, dict[str, Any]] = {
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


class _Laws(MethodLaws):
    """The laws, slow where another family of the same code path proves them too."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "family" not in metafunc.fixturenames:
            super().pytest_generate_tests(metafunc)
            return
        every = FAMILIES if self.method.name in EVERY_FAMILY else CODE_PATHS
        marks = [[] if name in every else [pytest.mark.slow] for name in self.families]
        metafunc.parametrize(
            "family",
            [
                pytest.param(name, marks=mark)
                for name, mark in zip(self.families, marks, strict=True)
            ],
        )


for _name, _method in METHODS.items():
    if _name == "adapter":  # it needs a folder; see tests/export
        continue
    _class = "TestLawsOf" + _name.title().replace("-", "")
    _settings = {"method": _method} | SETTINGS.get(_name, {})
    globals()[_class] = type(_class, (_Laws,), _settings)


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
