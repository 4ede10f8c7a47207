"""Putting a PEFT adapter into a model: whole, seeded, and without a trace elsewhere."""

from __future__ import annotations

import warnings

import pytest
import torch
from peft import LoraConfig, PeftModelForCausalLM, PrefixTuningConfig

from harness.errors import MethodError
from harness.models.adapter_folder import ADAPTER
from harness.models.adapters import insert_adapter
from tests.fixtures.tiny_models import tiny_model


def test_the_model_is_wrapped_for_language_modelling() -> None:
    model = insert_adapter(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"]), 0)
    assert isinstance(model, PeftModelForCausalLM)
    assert list(model.peft_config) == [ADAPTER]
    assert model.peft_config[ADAPTER].task_type == "CAUSAL_LM"


def test_a_module_of_the_base_that_was_trainable_is_frozen() -> None:
    base = tiny_model()
    assert base.lm_head.weight.requires_grad
    model = insert_adapter(base, LoraConfig(r=2, target_modules=["q_proj"]), 0)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


def test_a_configuration_that_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(MethodError, match="LoraConfig does not fit LlamaForCausalLM") as caught:
        insert_adapter(tiny_model(), LoraConfig(target_modules=["c_attn"]), 0)
    assert "\n" not in str(caught.value)
    model = tiny_model().train()
    model.gradient_checkpointing_enable()
    with pytest.raises(MethodError, match="does not work with gradient checkpointing"):
        insert_adapter(model, PrefixTuningConfig(num_virtual_tokens=2), 0)


def test_a_refusal_leaves_the_global_generator_alone() -> None:
    model = tiny_model()
    before = torch.get_rng_state()
    with pytest.raises(MethodError):
        insert_adapter(model, LoraConfig(target_modules=["c_attn"]), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = insert_adapter(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"]), 0)
    assert adapted.active_adapter == "default"
