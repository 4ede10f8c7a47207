"""The prompt methods under plain PEFT: what its own tests ask of every method, stated once more.

docs/peft.md says what cannot apply, and why.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn

import harness  # noqa: F401  # makes PEFT know the prompt methods
from harness.errors import MethodError, ZbenchError
from harness.methods.zero_init.config import PromptConfig
from harness.methods.zero_init.tuner import GeneratorLayer, PromptLayer
from harness.models.adapter_folder import WEIGHTS_FILE
from tests.fixtures.tiny_models import PROMPT_METHODS, stir, tiny_model, token_ids

OPTIONS = {"zero-init-nonlinear": {"hidden_size": 6}}


def config(method: str, **options: object) -> PromptConfig:
    given = {"num_layers": 2, "prompt_length": 4} | OPTIONS.get(method, {}) | options
    return PromptConfig(task_type="CAUSAL_LM", method=method, options=given)


def wrapped(method: str) -> PeftModel:
    return get_peft_model(tiny_model(), config(method))


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(token_ids()).logits


def loose(model: nn.Module) -> list[str]:
    """What is trainable and no prompt."""
    named = model.named_parameters()
    return [name for name, value in named if value.requires_grad and ".prompt_" not in name]


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_the_prompts_alone_are_trained(method: str, tmp_path: Path) -> None:
    model = wrapped(method)
    assert loose(model) == []
    assert any(value.requires_grad for value in model.parameters())
    model(token_ids()).logits.sum().backward()
    grown = {name for name, value in model.named_parameters() if value.grad is not None}
    assert grown
    assert all(".prompt_" in name for name in grown)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_model(), tmp_path, is_trainable=True)
    assert loose(again) == []


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_one_configuration_serves_several_adapters(method: str, tmp_path: Path) -> None:
    shared = config(method)
    model = stir(get_peft_model(tiny_model(), shared))
    first = logits(model)
    for name in ("default2", "other_default", "efaul"):
        model.add_adapter(name, shared)
    assert loose(model) == []
    assert torch.equal(logits(model), first)
    model.set_adapter("efaul")
    assert not torch.equal(logits(model), first)
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    alone = load_file(tmp_path / WEIGHTS_FILE)
    assert len(alone) == len({n for n, _ in wrapped(method).named_parameters() if ".prompt_" in n})
    with pytest.raises(MethodError, match="carries a prompt adapter called efaul already"):
        model.base_model.inject_adapter(model.base_model.model, "efaul")


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_adapters_are_deleted_to_the_last_one(method: str) -> None:
    base = logits(tiny_model())
    shared = config(method)
    model = stir(get_peft_model(tiny_model(), shared))
    kept = logits(model)
    model.add_adapter("inactive", shared)
    model.delete_adapter("inactive")
    assert torch.equal(logits(model), kept)
    model.add_adapter("active", shared)
    model.set_adapter("active")
    model.delete_adapter("active")
    assert model.active_adapters == ["default"]
    assert torch.equal(logits(model), kept)
    model.delete_adapter("default")
    assert model.active_adapters == []
    for module in model.modules():
        if isinstance(module, PromptLayer | GeneratorLayer):
            names = (*module.adapter_layer_names, *module.other_param_names)
            assert not any(len(getattr(module, name)) for name in names)
    assert torch.equal(logits(model.base_model), base)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_what_prompts_cannot_do_is_refused_in_words(method: str) -> None:
    model = wrapped(method)
    for merge in ("merge_adapter", "unmerge_adapter", "merge_and_unload"):
        with pytest.raises(MethodError, match="cannot be merged into the base weights"):
            getattr(model, merge)()
    with pytest.raises(MethodError, match="cannot be added up"):
        model.add_weighted_adapter(["default"], [1.0], "sum")
    with pytest.raises(MethodError, match="adapter_names: all rows of a batch"):
        model(token_ids(), adapter_names=["default"] * len(token_ids()))


def test_an_adapter_that_is_refused_leaves_the_model_as_it_was() -> None:
    model = stir(wrapped("zero-init-linear"))
    before, names = logits(model), set(model.state_dict())
    with pytest.raises(ZbenchError, match="num_layers: must be at most 4"):
        model.add_adapter("too-deep", config("zero-init-nonlinear", num_layers=99))
    assert "too-deep" not in model.peft_config
    assert set(model.state_dict()) == names
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_a_copy_shares_nothing(method: str) -> None:
    model = stir(wrapped(method))
    expected = logits(model)
    other = copy.deepcopy(model)
    assert torch.equal(logits(other), expected)
    for name, value in other.named_parameters():
        if ".prompt_" in name:
            value.data.zero_()
    assert torch.equal(logits(model), expected)
    assert not torch.equal(logits(other), expected)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_half_precision_generates_with_and_without_a_cache(method: str) -> None:
    model = stir(get_peft_model(tiny_model().to(torch.bfloat16), config(method)))
    for cache in (True, False):
        told = model.generate(input_ids=token_ids()[:1], max_new_tokens=3, use_cache=cache)
        assert told.shape[1] == token_ids().shape[1] + 3
