"""Options, statistics and refusals of the prompt methods."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from harness.errors import MethodError
from harness.methods.zero_init import apply_prompts
from harness.methods.zero_init.attention import PromptAttention
from harness.methods.zero_init.options import (
    GatedPromptOptions,
    GeneratedPromptOptions,
    PromptOptions,
)
from harness.methods.zero_init.telemetry import gate_statistics
from tests.fixtures.tiny_models import (
    PROMPT_METHODS,
    adapted,
    shape,
    stir,
    tiny_config,
    tiny_model,
    token_ids,
)


@pytest.mark.parametrize(
    ("num_layers", "stated", "expected"),
    [(32, None, range(2, 32)), (40, None, range(2, 40)), (4, None, range(2, 4))]
    + [(5, 5, range(5)), (5, 1, range(4, 5)), (3, 3, range(3)), (1, 1, range(1))],
)
def test_prompts_go_to_the_last_layers(
    num_layers: int, stated: int | None, expected: range
) -> None:
    of_depth = shape().model_copy(update={"num_hidden_layers": num_layers})
    assert PromptOptions(num_layers=stated).adapted_layers(of_depth) == expected


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_default_needs_four_layers(num_layers: int) -> None:
    of_depth = shape().model_copy(update={"num_hidden_layers": num_layers})
    with pytest.raises(
        MethodError, match=rf"at least 4 layers; set num_layers to 1\.\.{num_layers}"
    ):
        PromptOptions().adapted_layers(of_depth)


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_length": 0},
        {"num_layers": 0},
        {"gate_activation": "relu"},
        {"activation": "swish"},
        {"hidden_size": 0},
        {"prompt_lenght": 10},
    ],
)
def test_options_have_bounds(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GeneratedPromptOptions.model_validate(options)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_the_stated_layers_and_length_are_inserted(method: str) -> None:
    model = adapted(method, tiny_model(), num_layers=3, prompt_length=6)
    found = [m.layer_index for m in model.modules() if isinstance(m, PromptAttention)]
    assert found == [1, 2, 3]
    assert model.get_decoder().layers[1].self_attn.prompt.prompt().shape == (6, 32)


def test_statistics_are_the_strengths_by_layer() -> None:
    model = adapted("zero-init-linear", tiny_model())
    with torch.no_grad():
        for index, values in ((2, [0.1, -0.4, 0.0, 0.2]), (3, [1.0, -2.0, 0.5, 0.0])):
            gate = model.get_decoder().layers[index].self_attn.prompt.gate
            gate.copy_(torch.tensor(values).view(gate.shape))
    found = gate_statistics(model)
    second = [math.tanh(value) for value in (0.1, 0.4, 0.0, 0.2)]
    third = [math.tanh(value) for value in (1.0, 2.0, 0.5, 0.0)]
    assert found == {
        "gate/mean_abs": pytest.approx(sum(second + third) / 8),
        "gate/max_abs": pytest.approx(third[1]),
        "gate/layer_02/mean_abs": pytest.approx(sum(second) / 4),
        "gate/layer_02/max_abs": pytest.approx(second[1]),
        "gate/layer_03/mean_abs": pytest.approx(sum(third) / 4),
        "gate/layer_03/max_abs": pytest.approx(third[1]),
    }


def test_statistics_of_identity_gates_are_not_squashed() -> None:
    model = adapted("zero-init-linear", tiny_model(), gate_activation="identity")
    with torch.no_grad():
        model.get_decoder().layers[3].self_attn.prompt.gate.fill_(-3.0)
    assert gate_statistics(model)["gate/max_abs"] == 3.0


def test_statistics_without_gates_are_empty() -> None:
    assert gate_statistics(adapted("random-init", tiny_model())) == {}


def test_another_architecture_is_refused_by_name() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=4, n_head=2, n_embd=8, vocab_size=11))
    with pytest.raises(MethodError, match="model_type 'gpt2' is not supported .*supported: llama"):
        apply_prompts(model, PromptOptions(), 0)


def test_another_attention_implementation_is_refused() -> None:
    model = LlamaForCausalLM._from_config(tiny_config(), attn_implementation="flex_attention")
    with pytest.raises(MethodError, match=r"not on flex_attention; load .*'sdpa'"):
        apply_prompts(model, GatedPromptOptions(), 0)
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_a_second_method_on_one_model_is_refused() -> None:
    model = adapted("zero-init-linear", tiny_model())
    with pytest.raises(MethodError, match="carries prompts already"):
        apply_prompts(model, PromptOptions(), 0)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_every_prompt_row_counts(method: str) -> None:
    """The output depends on each row of each adapted layer, at the first token too."""
    model = stir(adapted(method, tiny_model()))
    model.train()
    first = model(token_ids(), use_cache=False).logits[:, 0].square().sum()
    first.backward()
    if method == "zero-init-nonlinear":
        rows = model.get_decoder().generator.prompt_output["default"].weight.grad.view(10, -1)
        assert (rows.abs().amax(dim=1) > 0).all()
    else:
        for index in (2, 3):
            rows = model.get_decoder().layers[index].self_attn.prompt.virtual_tokens.grad
            assert (rows.abs().amax(dim=1) > 0).all()
