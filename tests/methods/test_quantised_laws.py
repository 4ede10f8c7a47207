"""Every adapter method on a base in 8 and 4 bits; see harness/testing/quantised_laws.py."""

from __future__ import annotations

import importlib.util

import pytest

from harness.methods import METHODS
from harness.testing import QuantisedLaws
from tests.methods.test_laws import SETTINGS

if importlib.util.find_spec("bitsandbytes") is None:  # said once, not by every law
    pytest.skip("bitsandbytes is not installed (make test-quantised)", allow_module_level=True)

LAYOUTS = ("llama", "phi3", "gpt_neox")
"""Families of the three layouts of projections: prompts pass through the quantised ones."""
PROMPTS = ("random-init", "zero-init-linear", "zero-init-nonlinear")

for _name, _method in METHODS.items():
    if not _method.trains or _name in ("full", "peft", "adapter"):  # the last two need settings
        continue
    _settings = {"method": _method} | SETTINGS.get(_name, {})
    _settings.pop("generates_without_cache", None)
    _settings["families"] = LAYOUTS if _name in PROMPTS else ("llama",)
    if _name == "dora":
        _settings["quantizations"] = ("nf4",)
    _class = "TestQuantised" + _name.title().replace("-", "")
    globals()[_class] = type(_class, (QuantisedLaws,), _settings)
