"""The prompt methods' attention equals the formula: an independent dense reference in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from harness.models.loading import trained_parameters
from tests.fixtures.reference import ACTIVATIONS, Sizes, reference_logits
from tests.fixtures.tiny_models import (
    HEADS,
    PROMPT_METHODS,
    adapted,
    padding_mask,
    stir,
    tiny_model,
    token_ids,
)

EXACT = 1e-10
SINGLE = 1e-5
"""Relative deviation allowed in fp32."""


class _Rotary(nn.Module):
    """transformers' rotary tables are fp32 at best; this one is fp64."""

    def __init__(self, theta: float, head_size: int) -> None:
        super().__init__()
        half = head_size // 2
        self.rates = theta ** (-torch.arange(half, dtype=torch.float64) / half)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].double() * self.rates
        angles = torch.cat([angles, angles], dim=-1)
        return torch.cos(angles), torch.sin(angles)


def make_exact(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Puts fp64 norms and rotary tables in place of those that compute in fp32."""

    def exact(norm: nn.Module) -> nn.Module:
        copied = nn.RMSNorm(norm.weight.numel(), norm.variance_epsilon, dtype=torch.float64)
        copied.weight = norm.weight
        return copied

    model.double()
    decoder = model.get_decoder()
    assert isinstance(decoder.rotary_emb, LlamaRotaryEmbedding)
    decoder.rotary_emb = _Rotary(10000.0, decoder.layers[0].self_attn.head_dim)
    decoder.norm = exact(decoder.norm)
    for layer in decoder.layers:
        layer.input_layernorm = exact(layer.input_layernorm)
        layer.post_attention_layernorm = exact(layer.post_attention_layernorm)
    return model


def sizes_of(model: LlamaForCausalLM, method: str, **options: object) -> Sizes:
    config = model.config
    layers = config.num_hidden_layers
    return Sizes(
        num_layers=layers,
        num_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_size=model.get_decoder().layers[0].self_attn.head_dim,
        adapted=range(layers - options.pop("num_layers", layers - 2), layers),
        prompt_length=options.pop("prompt_length", 10),
        method=method,
        **options,
    )


def reference_of(
    model: LlamaForCausalLM, sizes: Sizes, ids: Tensor, seen: Tensor, positions: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The reference's logits in fp64, and the leaves that its gradients arrive at."""
    weights = {plain(name): value.detach().double() for name, value in model.named_parameters()}
    leaves = {
        plain(name): weights[plain(name)].clone().requires_grad_()
        for name in trained_parameters(model)
    }
    return reference_logits(weights | leaves, sizes, ids, seen, positions), leaves


def plain(name: str) -> str:
    """A parameter's name as the reference calls it: without what PEFT adds."""
    return name.removeprefix("base_model.model.").replace(".default", "")


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest deviation relative to the largest expected value."""
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def causal_view(mask: Tensor) -> tuple[Tensor, Tensor]:
    """What each query sees (B, T, T), and the positions (B, T), for a 2-D mask."""
    length = mask.shape[1]
    seen = torch.ones(length, length).tril().bool()[None] & mask.bool()[:, None]
    return seen, (mask.cumsum(-1) - 1).clamp(min=0)


def check_formula(
    model: LlamaForCausalLM, sizes: Sizes, ids: Tensor, mask: Tensor, tolerance: float
) -> None:
    """Compares logits at real tokens, and all trained tensors' gradients, with the reference."""
    seen, positions = causal_view(mask)
    logits = model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    expected, leaves = reference_of(model, sizes, ids, seen, positions)
    real = mask.bool()
    assert deviation(logits[real], expected[real]) < tolerance
    weigh = torch.randn(expected[real].shape, generator=torch.Generator().manual_seed(1))
    (logits[real] * weigh).sum().backward()
    (expected[real] * weigh.double()).sum().backward()
    for name, parameter in trained_parameters(model).items():
        expected_gradient = leaves[plain(name)].grad
        assert expected_gradient.abs().max() > 0, name
        assert deviation(parameter.grad, expected_gradient) < tolerance, name


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_logits_and_gradients_equal_the_formula(method: str, heads: str, side: str) -> None:
    model = make_exact(stir(adapted(method, tiny_model(heads))))
    mask = torch.ones(3, 12).long() if side == "none" else padding_mask(side, (12, 7, 3), 12)
    check_formula(model, sizes_of(model, method), token_ids(), mask, EXACT)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_fp32_equals_the_formula(method: str, implementation: str) -> None:
    model = tiny_model("wide-heads")
    model.set_attn_implementation(implementation)
    model = stir(adapted(method, model))
    check_formula(
        model, sizes_of(model, method), token_ids(), padding_mask("left", (12, 9, 5), 12), SINGLE
    )


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"identity"}))
def test_generator_activations_equal_the_formula(activation: str) -> None:
    options = {"activation": activation, "hidden_size": 6, "prompt_length": 3, "num_layers": 4}
    model = make_exact(stir(adapted("zero-init-nonlinear", tiny_model(), **options)))
    del options["hidden_size"]
    sizes = sizes_of(model, "zero-init-nonlinear", **options)
    check_formula(model, sizes, token_ids(), torch.ones(3, 12).long(), EXACT)


def test_identity_gate_equals_the_formula_without_tanh() -> None:
    options = {"gate_activation": "identity", "num_layers": 1}
    model = make_exact(stir(adapted("zero-init-linear", tiny_model(), **options)))
    sizes = sizes_of(model, "zero-init-linear", **options)
    check_formula(model, sizes, token_ids(), torch.ones(3, 12).long(), EXACT)


@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_a_4d_mask_is_followed(method: str, kind: str) -> None:
    model = make_exact(stir(adapted(method, tiny_model())))
    ids, positions = token_ids(), torch.arange(12).expand(3, -1)
    seen = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(2)) < 0.5
    seen = seen.tril() | torch.eye(12).bool()
    mask = seen[:, None]
    if kind == "added":
        mask = torch.zeros(mask.shape).double().masked_fill(~mask, torch.finfo(torch.float64).min)
    logits = model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    expected, _ = reference_of(model, sizes_of(model, method), ids, seen, positions)
    assert deviation(logits, expected) < EXACT


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_packed_sequences_do_not_see_each_other(method: str) -> None:
    model = stir(adapted(method, tiny_model()))
    ids = token_ids(batch=1)
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    packed = model(ids, position_ids=positions, use_cache=False).logits
    alone = [model(part, use_cache=False).logits for part in (ids[:, :5], ids[:, 5:])]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=SINGLE, atol=SINGLE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_cuda_equals_the_formula(method: str, implementation: str) -> None:
    model = tiny_model("wide-heads")
    model.set_attn_implementation(implementation)
    model = stir(adapted(method, model))
    mask = padding_mask("left", (12, 9, 5), 12)
    seen, positions = causal_view(mask)
    expected, _ = reference_of(model, sizes_of(model, method), token_ids(), seen, positions)
    model.cuda()
    with torch.no_grad():
        logits = model(
            token_ids().cuda(), attention_mask=mask.cuda(), position_ids=positions.cuda()
        ).logits.cpu()
    real = mask.bool()
    assert deviation(logits[real], expected[real]) < SINGLE
