"""The prompt's share of attention against the weights themselves, and what the probe leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness.methods import METHODS as REGISTRY
from harness.methods.zero_init.attention import PromptAttention
from harness.methods.zero_init.probe import PROBE_TEXTS, PROBE_TOKENS, attention_shares, prompts_of
from harness.models.families import FAMILIES
from harness.testing import perturb, tiny_model, token_ids
from tests.fixtures.tiny import adapted, random_examples, tiny_llama

METHODS = ["random-init", "zero-init-linear", "zero-init-nonlinear"]
GATED = ["zero-init-linear", "zero-init-nonlinear"]
TEXTS = [example.token_ids for example in random_examples(5)]


def apply(name: str, base: Any) -> nn.Module:
    """Returns the base under a method with its defaults."""
    method = REGISTRY[name]
    return method.apply(base, method.options(), 0)


def attention_layers(model: nn.Module) -> list[nn.Module]:
    """Returns the attention layers that carry a prompt."""
    found = [module for module in model.modules() if hasattr(module, "q_proj")]
    return [
        layer for layer in found if any(isinstance(c, PromptAttention) for c in layer.children())
    ]


def heads_of(model: nn.Module, text: tuple[int, ...]) -> list[torch.Tensor]:
    """Returns what goes into each adapted layer's output projection, (T, H, d)."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.o_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0][0]))
        for layer in attention_layers(model)
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([text]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return [heads.view(len(text), 4, 8) for heads in seen]


@pytest.mark.parametrize("name", GATED)
def test_mass_share_of_a_gate_is_its_strength_beside_the_words_one(name: str) -> None:
    model = adapted(name, moved=True)
    shares = attention_shares(model, TEXTS)
    assert list(zip(shares["layer"], shares["head"], strict=True)) == [
        (layer, head) for layer in (2, 3) for head in range(4)
    ]
    strengths = torch.cat([prompt.gate.flatten().tanh() for prompt in prompts_of(model)])
    expected = [abs(s) / (1 + abs(s)) for s in strengths.tolist()]
    assert shares["mass_share"].tolist() == pytest.approx(expected, rel=1e-6)
    assert min(expected) > 1e-3


def test_shares_of_one_softmax_are_those_of_the_formula() -> None:
    model = adapted("random-init", moved=True)
    shares = attention_shares(model, TEXTS)
    layers = attention_layers(model)
    mass, norm = torch.zeros(2, 4), torch.zeros(2, 4)
    for text in TEXTS:
        inputs = inputs_of(model, layers, text)
        for place, (layer, (hidden, positions)) in enumerate(zip(layers, inputs, strict=True)):
            weights, values = joint_attention(layer, hidden, positions)
            mass[place] += weights[:, :, :10].sum(-1).sum(1)
            prompt = (weights[:, :, :10] @ values[:, :10]).norm(dim=-1)
            words = (weights[:, :, 10:] @ values[:, 10:]).norm(dim=-1)
            norm[place] += (prompt / (prompt + words)).sum(1)
    tokens = sum(map(len, TEXTS))
    for name, sums in (("mass_share", mass), ("norm_share", norm)):
        found = torch.tensor(shares[name].to_numpy())
        assert torch.allclose(found, sums.flatten() / tokens, rtol=1e-5)
        assert found.min() > 0.01


def inputs_of(
    model: nn.Module, layers: list[nn.Module], text: tuple[int, ...]
) -> list[tuple[torch.Tensor, tuple[torch.Tensor, ...]]]:
    """Returns what each layer is given: hidden states (T, D), and the rotation of its positions."""
    seen: list[tuple[torch.Tensor, tuple[torch.Tensor, ...]]] = []

    def look(_module: nn.Module, _args: object, kwargs: dict[str, Any]) -> None:
        seen.append((kwargs["hidden_states"][0], kwargs["position_embeddings"]))

    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    with torch.no_grad():
        model(input_ids=torch.tensor([text]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return seen


def joint_attention(
    layer: nn.Module, hidden: torch.Tensor, positions: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns softmax(q [K_p; K_w]^T / sqrt(d)), (H, T, L + T), and [V_p; V_w], (H, L + T, d)."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    (prompt,) = [c for c in layer.children() if isinstance(c, PromptAttention)]
    length = len(hidden)
    with torch.no_grad():
        query = layer.q_proj(hidden).view(1, length, 4, 8).transpose(1, 2)
        key = layer.k_proj(hidden).view(1, length, 2, 8).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *positions)
        rows = layer.k_proj(prompt.virtual_tokens).view(10, 2, 8).transpose(0, 1)
        keys = torch.cat([rows, key[0]], dim=1).repeat_interleave(2, dim=0)
        both = layer.v_proj(torch.cat([prompt.virtual_tokens, hidden])).view(10 + length, 2, 8)
        values = both.transpose(0, 1).repeat_interleave(2, dim=0)
        scores = query[0] @ keys.transpose(1, 2) / 8**0.5
        future = torch.ones(length, length).triu(1).bool()
        scores[:, :, 10:].masked_fill_(future, -torch.inf)
        return scores.softmax(-1), values


@pytest.mark.parametrize("name", GATED)
def test_norm_share_is_of_what_the_gates_add(name: str) -> None:
    """Per layer: of the first adapted one, whose input no gate has changed."""
    model = adapted(name, moved=True)
    shares = attention_shares(model, TEXTS)
    both = [heads_of(model, text)[0] for text in TEXTS]
    with torch.no_grad():
        for prompt in prompts_of(model):
            prompt.gate.zero_()
    words = [heads_of(model, text)[0] for text in TEXTS]
    whole, rest = torch.cat(both), torch.cat(words)
    part = (whole - rest).norm(dim=-1)
    expected = (part / (part + rest.norm(dim=-1))).mean(0)
    found = torch.tensor(shares[shares["layer"] == 2]["norm_share"].to_numpy())
    assert torch.allclose(found, expected, rtol=1e-4)
    assert found.min() > 1e-3


def test_parts_of_one_softmax_add_up() -> None:
    """With virtual tokens whose values are zero the output is the words' alone."""
    model = adapted("random-init", moved=True)
    with torch.no_grad():
        for prompt in prompts_of(model):
            prompt.virtual_tokens.zero_()
    shares = attention_shares(model, TEXTS)
    assert (shares["norm_share"] == 0).all()
    assert (shares["mass_share"] > 0.01).all()  # a key of zeros still has its weight


@pytest.mark.parametrize("name", GATED)
def test_untrained_gates_leave_the_prompt_no_share(name: str) -> None:
    shares = attention_shares(adapted(name), TEXTS)
    assert (shares[["mass_share", "norm_share"]] == 0).all(axis=None)


@pytest.mark.parametrize("name", METHODS)
def test_every_real_token_weighs_the_same_and_padding_nothing(name: str) -> None:
    model = adapted(name, moved=True)
    together = attention_shares(model, TEXTS)
    columns = ["mass_share", "norm_share"]
    alone = sum(len(text) * attention_shares(model, [text])[columns] for text in TEXTS)
    expected = (alone / sum(map(len, TEXTS))).to_numpy()
    assert torch.allclose(
        torch.tensor(together[columns].to_numpy()), torch.tensor(expected), rtol=1e-4
    )


def test_only_the_first_texts_and_tokens_are_looked_at() -> None:
    model = adapted("random-init", moved=True)
    texts = [tuple(range(1, 80)), *TEXTS] * 5
    assert len(texts) > PROBE_TEXTS
    cut = [text[:PROBE_TOKENS] for text in texts[:PROBE_TEXTS]]
    assert attention_shares(model, texts).equals(attention_shares(model, cut))
    fewer = attention_shares(model, cut[:-1])
    assert not attention_shares(model, cut).equals(fewer)


@pytest.mark.parametrize("name", METHODS)
def test_a_bf16_base_gives_the_same_shares_up_to_its_rounding(name: str) -> None:
    exact = attention_shares(adapted(name, moved=True), TEXTS)
    model = adapted(name, moved=True, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention_shares(model, TEXTS)
    for column in ("mass_share", "norm_share"):
        assert rounded[column].tolist() == pytest.approx(exact[column].tolist(), abs=5e-3)


@pytest.mark.parametrize("name", METHODS)
def test_eager_attention_gives_the_same_shares(name: str) -> None:
    found = []
    for implementation in ("sdpa", "eager"):
        base = tiny_llama()
        base.set_attn_implementation(implementation)
        model = apply(name, base)
        with torch.no_grad():
            for prompt in prompts_of(model):
                if prompt.gate is not None:
                    prompt.gate.fill_(0.5)
        found.append(attention_shares(model, TEXTS))
    for column in ("mass_share", "norm_share"):
        assert found[1][column].tolist() == pytest.approx(found[0][column].tolist(), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_of_every_family_are_of_what_its_gates_add(family: str) -> None:
    model = apply("zero-init-linear", tiny_model(family))
    perturb(model)
    outputs: list[torch.Tensor] = []
    first = prompts_of(model)[0]
    first.register_forward_hook(lambda _m, _a, output: outputs.append(output[0][0]))
    text = tuple(token_ids(1, 14)[0].tolist())
    shares = attention_shares(model, [text])
    with torch.no_grad():
        for prompt in prompts_of(model):
            prompt.gate.zero_()
    attention_shares(model, [text])
    part, words = (outputs[0] - outputs[1]).norm(dim=-1), outputs[1].norm(dim=-1)
    expected = (part / (part + words)).mean(0)
    found = shares[shares["layer"] == first.layer_index]["norm_share"]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    assert 1e-3 < found.min() < found.max() < 1


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_no_query_meets_have_the_weight_of_their_number(family: str) -> None:
    """Keys of zeros for words and prompt alike make every weight of a softmax the same."""
    model = apply("random-init", tiny_model(family))
    with torch.no_grad():
        for layer in [module for module in model.modules() if hasattr(module, "prompt")]:
            for parameter in layer.parameters():
                parameter.zero_()
    shares = attention_shares(model, [tuple(token_ids(1, 5)[0].tolist())])
    expected = sum(10 / (10 + seen) for seen in range(1, 6)) / 5
    assert shares["mass_share"].tolist() == pytest.approx([expected] * len(shares), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_left_on_the_model(name: str) -> None:
    model = adapted(name, moved=True)
    ids = torch.tensor([TEXTS[0]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    kept = {place: set(vars(module)) for place, module in model.named_modules()}
    generator = torch.get_rng_state()
    attention_shares(model, TEXTS)
    with pytest.raises(IndexError):
        attention_shares(model, [(10**6,)])  # no such token: the model's forward fails
    assert {place: set(vars(module)) for place, module in model.named_modules()} == kept
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize("name", GATED)
def test_values_that_are_nothing_have_no_share(name: str) -> None:
    """A closed gate over words whose values are zero, as a padding token's may be."""
    base = tiny_llama()
    with torch.no_grad():
        for layer in base.get_decoder().layers:
            layer.self_attn.v_proj.weight.zero_()
    shares = attention_shares(apply(name, base), TEXTS)
    assert (shares["norm_share"] == 0).all()
