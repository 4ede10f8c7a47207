"""Families: the prompts' formula in each, counts of parameters, and refusals by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from harness.errors import ModelError
from harness.methods import METHODS
from harness.models.checkpoint import read_config
from harness.models.families import FAMILIES
from harness.models.shape import ModelShape, shape_of
from harness.testing import perturb, tiny_model, token_ids
from tests.fixtures.tiny_models import PROMPT_METHODS

ADAPTED = 2
"""The first layer with a prompt: what goes into its attention is the base model's."""
EXACT, SINGLE = 1e-10, 1e-5


def attention_of(model: Any, index: int) -> Any:
    return getattr(model.get_decoder().layers[index], FAMILIES[model.config.model_type].attention)


def attention_inputs(model: PreTrainedModel, ids: Tensor) -> dict[str, Any]:
    """What reaches the attention function of layer ADAPTED in a base model."""
    seen: dict[int, dict[str, Any]] = {}
    capped = FAMILIES[model.config.model_type].soft_capped
    # SDPA knows no caps; the eager attention beside each model takes its softmax in fp32.
    eager = sys.modules[type(model).__module__].eager_attention_forward
    base_attention = eager if capped else AttentionInterface()["sdpa"]

    def record(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        seen[module.layer_idx] = {"q": query, "k": key, "v": value, "mask": mask} | kwargs
        return base_attention(module, query, key, value, mask, **kwargs)

    AttentionInterface.register("recording", record)
    AttentionMaskInterface.register("recording", AttentionMaskInterface()["eager"])
    model.set_attn_implementation("recording")
    with torch.no_grad():
        model(ids, use_cache=False)
    return seen[ADAPTED]


def keys_and_values(module: Any, rows: Tensor, model_type: str) -> tuple[Tensor, Tensor]:
    """The prompt's keys and values (G, L, d), from the weights, one head at a time."""
    config = module.config
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(module, "head_dim", None) or module.head_size
    if model_type == "gpt_neox":
        weight, bias = module.query_key_value.weight, module.query_key_value.bias
        each = [
            rows @ weight[head * 3 * size :][: 3 * size].T + bias[head * 3 * size :][: 3 * size]
            for head in range(heads)
        ]
        return (
            torch.stack([head[:, size : 2 * size] for head in each]),
            torch.stack([head[:, 2 * size :] for head in each]),
        )
    if model_type == "phi3":
        weight = module.qkv_proj.weight[heads * size :]
        flat_key, flat_value = rows @ weight[: groups * size].T, rows @ weight[groups * size :].T
    else:
        flat_key, flat_value = rows @ module.k_proj.weight.T, rows @ module.v_proj.weight.T
    if model_type == "qwen2":
        flat_key, flat_value = flat_key + module.k_proj.bias, flat_value + module.v_proj.bias
    if model_type == "olmo":
        flat_key, flat_value = (flat.clamp(-1.0, 1.0) for flat in (flat_key, flat_value))
    if model_type == "olmo2":
        flat_key = _rms(flat_key, module.k_norm.weight)
    keys = flat_key.view(-1, groups, size).transpose(0, 1)
    values = flat_value.view(-1, groups, size).transpose(0, 1)
    if model_type == "qwen3":
        keys = _rms(keys, module.k_norm.weight)
    if model_type == "gemma3_text":
        keys = _rms(keys, 1 + module.k_norm.weight)
    return keys, values


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def expected_output(model: Any, given: dict[str, Any], ids: Tensor, method: str) -> Tensor:
    """The attention output (B, T, H, d) of layer ADAPTED, written from the formula."""
    module, model_type = attention_of(model, ADAPTED), model.config.model_type
    prompt = module.prompt
    rows = prompt.prompt().detach().to(given["q"].dtype)
    prompt_keys, prompt_values = keys_and_values(module, rows, model_type)
    heads, groups = given["q"].shape[1], prompt_keys.shape[0]
    cap: Callable[[Tensor], Tensor] = lambda scores: scores  # noqa: E731  # one line each
    if given.get("softcap") is not None:
        limit = given["softcap"]
        cap = lambda scores: limit * torch.tanh(scores / limit)  # noqa: E731
    outputs = []
    for head in range(heads):
        shared = head * groups // heads
        q, k, v = given["q"][:, head], given["k"][:, shared], given["v"][:, shared]
        scores = cap(q @ k.transpose(1, 2) * given["scaling"]) + given["mask"][:, 0]
        on_prompt = cap(q @ prompt_keys[shared].T * given["scaling"])
        if method == "random-init":
            joint = torch.softmax(torch.cat([on_prompt, scores], -1), -1)
            length = rows.shape[0]
            outputs.append(joint[..., :length] @ prompt_values[shared] + joint[..., length:] @ v)
        else:
            gate = torch.tanh(prompt.gate[head].double())
            part = torch.softmax(on_prompt, -1) @ prompt_values[shared]
            outputs.append(torch.softmax(scores, -1) @ v + gate * part)
    return torch.stack(outputs, dim=2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_the_adapted_attention_equals_the_formula(method: str, family: str) -> None:
    """Norms of keys, biases, caps, clips, windows and fused weights, each where it belongs."""
    ids = token_ids()
    base = tiny_model(family).double()
    model = perturb(METHODS[method].apply(base, METHODS[method].options(), 5))
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    found: list[Tensor] = []
    module = attention_of(model, ADAPTED)
    last = module.dense if family == "gpt_neox" else module.o_proj
    handle = last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.no_grad():
        model(ids, use_cache=False)
    handle.remove()
    given = attention_inputs(tiny_model(family).double(), ids)
    with torch.no_grad():
        expected = expected_output(model, given, ids, method).flatten(2)
    deviation = (found[0] - expected).abs().max() / expected.abs().max()
    # Norms of keys and eager attention compute in fp32 in transformers, whatever their input.
    single = FAMILIES[family].key_norm is not None or FAMILIES[family].soft_capped
    assert deviation < (SINGLE if single else EXACT)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_as_transformers_has_them(family: str, tied: bool) -> None:
    config = tiny_model(family).config
    config.tie_word_embeddings = tied
    with torch.device("meta"):
        model = type(tiny_model(family))(config)
    assert shape_of(config).num_parameters == model.num_parameters()


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_layers_are_those_of_a_layer(family: str) -> None:
    model = tiny_model(family)
    found = {
        name.rpartition(".")[2]: (module.in_features, module.out_features)
        for name, module in model.get_decoder().layers[0].named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert found == shape_of(model.config).linear_layers


def test_windows_and_caps_of_the_tiny_models_bite() -> None:
    """The tests above would else not see them."""
    given = attention_inputs(tiny_model("mistral"), token_ids())
    assert (given["mask"][0, 0, -1] < 0).any()
    capped = attention_inputs(tiny_model("gemma2"), token_ids())
    scores = capped["q"][:, :2] @ capped["k"].transpose(2, 3)[:, :1] * capped["scaling"]
    assert (scores.abs() > capped["softcap"] / 2).any()


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [("gpt2", "carry no rotation"), ("gemma3", "give the text model"), ("opt", "not been checked")],
)
def test_another_family_is_refused_by_name_with_the_reason(
    model_type: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    with pytest.raises(ModelError, match=rf"model_type '{model_type}' is not .*{reason}.*qwen3"):
        read_config(tmp_path)
    with pytest.raises(ValueError, match=reason):
        ModelShape.model_validate(
            {
                "model_type": model_type,
                "num_hidden_layers": 4,
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_attention_heads": 2,
                "vocab_size": 11,
            }
        )
