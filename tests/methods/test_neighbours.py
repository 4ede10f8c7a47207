"""What only methods of stock PEFT have to keep; test_laws.py has what every method keeps."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import LlamaForCausalLM

from harness.data.instructions import Example
from harness.methods import METHODS
from harness.methods.row_dropout import RowDropout, dropout_rng
from harness.models.adapter_folder import adapter_size
from harness.models.adapters import attach_adapter
from harness.models.loading import count_parameters, load_trained, save_trained, trained_parameters
from harness.training.loss import ResponseLoss, dropout_key
from harness.training.micro_batches import number_sequences
from tests.fixtures.tiny_models import stir, tiny_model, token_ids

NAMES = ("dora", "ia3", "vera", "prefix-tuning", "prompt-tuning", "adaption-prompt")
PROMPT_LEARNING = ("prefix-tuning", "prompt-tuning")
OPTIONS: dict[str, dict[str, object]] = {
    "dora": {"rank": 4},
    "vera": {"rank": 8},
    "prefix-tuning": {"num_virtual_tokens": 5},
    "prompt-tuning": {"num_virtual_tokens": 6},
}


def adapted(
    name: str, model: LlamaForCausalLM | None = None, *, seed: int = 5, **options: object
) -> nn.Module:
    method = METHODS[name]
    chosen = method.options.model_validate(OPTIONS.get(name, {}) | options)
    return method.apply(tiny_model() if model is None else model, chosen, seed)


def logits(model: nn.Module, ids: torch.Tensor | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model(token_ids(seed=9) if ids is None else ids).logits


def examples() -> list[Example]:
    ids = token_ids(7, 20, seed=4).tolist()
    return [Example(tuple(row[: 20 - 2 * index]), 3) for index, row in enumerate(ids)]


def losses(module: ResponseLoss, budget: int) -> Iterator[torch.Tensor]:
    sequences = number_sequences(examples())
    for batch in module.micro_batches(
        sequences, token_budget=budget, pad_token_id=0, device=torch.device("cpu")
    ):
        with dropout_rng(dropout_key(batch, 3)):
            yield module(batch)


def gradients(model: nn.Module, budget: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    for loss in losses(ResponseLoss(model), budget):
        loss.backward()
    return {name: value.grad.clone() for name, value in trained_parameters(model).items()}


def train(model: nn.Module, steps: int = 3) -> None:
    model.train()
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    module = ResponseLoss(model)
    for _ in range(steps):
        optimizer.zero_grad()
        for loss in losses(module, 60):
            loss.backward()
        optimizer.step()
    model.eval()


def expected_names(name: str) -> set[str]:
    """What is to be trained in a model of 4 layers, written out by hand."""
    layers = [f"base_model.model.model.layers.{index}." for index in range(4)]
    linear = [f"self_attn.{side}_proj." for side in "qkvo"]
    linear += [f"mlp.{side}_proj." for side in ("gate", "up", "down")]
    dora = (
        "lora_A.default.weight",
        "lora_B.default.weight",
        "lora_magnitude_vector.default.weight",
    )
    rescaled = ("self_attn.k_proj.", "self_attn.v_proj.", "mlp.down_proj.")
    return {
        "dora": {layer + module + part for layer in layers for module in linear for part in dora},
        "ia3": {layer + module + "ia3_l.default" for layer in layers for module in rescaled},
        "vera": {
            f"{layer}{module}vera_lambda_{part}.default"
            for layer in layers
            for module in linear
            for part in "bd"
        },
        "prefix-tuning": {"prompt_encoder.default.embedding.weight"},
        "prompt-tuning": {"prompt_encoder.default.embedding.weight"},
        "adaption-prompt": {
            f"{layer}self_attn.adaption_{part}"
            for layer in layers[2:]
            for part in ("prompt", "gate")
        },
    }[name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_expected_names_train_in_fp32(name: str, dtype: torch.dtype) -> None:
    model = adapted(name, tiny_model(dtype=dtype))
    assert set(trained_parameters(model)) == expected_names(name)
    for parameter in model.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else dtype)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_start(name: str) -> None:
    def start(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        model = adapted(name, tiny_model(dtype=dtype), seed=seed)
        trained = trained_parameters(model)
        return {
            k: v.detach() for k, v in model.state_dict().items() if k in trained or "vera_" in k
        }

    torch.manual_seed(1)
    first = start(5)
    torch.manual_seed(2)
    second, third = start(5), start(6)
    assert all(torch.equal(first[key], second[key]) for key in first)
    differs = any(not torch.equal(first[key], third[key]) for key in first)
    assert differs == (name != "ia3"), "(IA)³ starts from ones"
    if name in ("ia3", "prefix-tuning", "adaption-prompt"):  # PEFT makes the others as the base is
        rounded = start(5, torch.bfloat16)
        assert all(torch.equal(first[key], rounded[key]) for key in first)


@pytest.mark.parametrize("name", PROMPT_LEARNING)
def test_untrained_virtual_tokens_are_seen(name: str) -> None:
    found = logits(adapted(name))[:, -12:]
    assert (found - logits(tiny_model())).abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_without_the_adapter_it_is_the_base_model(name: str) -> None:
    model = stir(adapted(name))
    expected = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny_model()))
    assert torch.equal(logits(model), expected)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:The PEFT config's `base_model_name_or_path`")
def test_saved_then_loaded_it_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    model = adapted(name)
    train(model)
    save_trained(model, tmp_path, base_name="somebody/tiny")
    expected, trained = logits(model), trained_parameters(model)
    fresh = adapted(name, seed=99)
    assert not torch.equal(logits(fresh), expected)
    load_trained(fresh, tmp_path)
    assert torch.equal(logits(fresh), expected)
    for key, value in trained_parameters(fresh).items():
        assert torch.equal(value, trained[key]), key
    assert torch.equal(logits(attach_adapter(tiny_model(), tmp_path, advice="")), expected)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_model(), tmp_path).eval()), expected)
    assert adapter_size(tmp_path) == count_parameters(model)[0]


@pytest.mark.parametrize("name", PROMPT_LEARNING)
def test_generation_with_a_cache_is_generation_without(name: str) -> None:
    model = stir(adapted(name))
    ids = token_ids(2, 5)
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    expected = ids
    for _ in range(8):
        following = logits(model, expected)[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, following], 1)
    assert torch.equal(found, expected)
    plain = logits(tiny_model(), found)
    assert not torch.equal(logits(model, found)[:, -13:], plain)


def test_dora_drops_by_sequence() -> None:
    model = stir(adapted("dora", dropout=0.3)).train()
    assert sum(isinstance(module, RowDropout) for module in model.modules()) == 7 * 4
    whole, parts = gradients(model, 140), gradients(model, 40)
    assert all((parts[key] - whole[key]).norm() < 1e-5 * whole[key].norm() for key in whole)
    still = gradients(model.eval(), 140)
    assert any((still[key] - whole[key]).norm() > 1e-2 * whole[key].norm() for key in whole)


def test_vera_shares_one_pair_of_matrices() -> None:
    model = stir(adapted("vera"))
    layer = model.base_model.model.model.layers[1].self_attn.v_proj
    first, second = model.base_model.vera_A["default"], model.base_model.vera_B["default"]
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    ranks, outputs = layer.vera_lambda_d["default"], layer.vera_lambda_b["default"]
    added = outputs * (ranks * (x @ first[:, :32].T) @ second[:16].T)
    expected = x @ layer.base_layer.weight.T + added
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert added.norm() > 0.1


@pytest.mark.parametrize("start", ["vocabulary", "random"])
def test_prompt_tuning_starts_where_it_is_told(start: str) -> None:
    base = tiny_model()
    vocabulary = base.get_input_embeddings().weight.detach().clone()
    (prompt,) = trained_parameters(adapted("prompt-tuning", base, start=start)).values()
    is_token = [bool((row == vocabulary).all(dim=1).any()) for row in prompt.detach()]
    assert set(is_token) == {start == "vocabulary"}
