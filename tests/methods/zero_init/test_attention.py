"""Laws of the prompt methods' attention: against the base model, in training, in generation."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from harness.methods.zero_init.attention import PromptAttention
from harness.models.loading import trained_parameters
from tests.fixtures.tiny_models import (
    PROMPT_METHODS,
    ZERO_INIT_METHODS,
    adapted,
    padding_mask,
    shape,
    stir,
    tiny_model,
    token_ids,
)

SINGLE = 1e-5
"""Deviation allowed in fp32."""

BASE_SHAPES = {
    "tiny": ({}, 12, (12, 7, 3)),
    "real-kernel": (
        {"hidden_size": 256, "intermediate_size": 320, "num_attention_heads": 8, "head_dim": 32},
        200,
        (200, 131, 17),
    ),
}


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", BASE_SHAPES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_zero_gates_leave_every_bit_of_the_base_model(
    implementation: str, size: str, dtype: torch.dtype, side: str
) -> None:
    """For one of the two methods: their attention is one; test_laws.py has both in every family."""
    sizes, length, lengths = BASE_SHAPES[size]
    base = tiny_model(dtype=dtype, **sizes)
    base.set_attn_implementation(implementation)
    model = adapted("zero-init-linear", copy.deepcopy(base))
    ids = token_ids(3, length)
    mask = None if side == "none" else padding_mask(side, lengths, length)
    with torch.no_grad():
        expected = base(ids, attention_mask=mask).logits
        assert torch.equal(model(ids, attention_mask=mask).logits, expected)
        # Once more with gates that are open: the law above is not one of a missing prompt.
        assert not torch.equal(stir(model)(ids, attention_mask=mask).logits, expected)


@pytest.mark.parametrize("method", ZERO_INIT_METHODS)
def test_zero_gates_leave_every_bit_with_a_cache(method: str) -> None:
    base = tiny_model(dtype=torch.bfloat16)
    model = adapted(method, copy.deepcopy(base))
    for network in (base, model):
        network.eval()
    ids = token_ids()
    with torch.no_grad():
        expected, found = base(ids[:, :8], use_cache=True), model(ids[:, :8], use_cache=True)
        assert torch.equal(found.logits, expected.logits)
        for start, end in ((8, 9), (9, 12)):
            expected = base(ids[:, start:end], past_key_values=expected.past_key_values)
            found = model(ids[:, start:end], past_key_values=found.past_key_values)
            assert torch.equal(found.logits, expected.logits)


def gradients(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """The gradients of one training step's loss, which it clears."""
    model.train()
    model(ids, labels=ids, use_cache=False).loss.backward()
    found = {name: value.grad for name, value in trained_parameters(model).items()}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ZERO_INIT_METHODS)
def test_only_gates_have_a_gradient_while_they_are_zero(method: str, dtype: torch.dtype) -> None:
    model = adapted(method, tiny_model(dtype=dtype))
    for name, gradient in gradients(model, token_ids()).items():
        assert (gradient.abs().max() > 0) == ("prompt_gate" in name), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ZERO_INIT_METHODS)
def test_prompts_have_a_gradient_from_the_second_step(method: str, dtype: torch.dtype) -> None:
    model, ids = adapted(method, tiny_model(dtype=dtype)), token_ids()
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
    model.train()
    with torch.no_grad():  # a validation before training must keep nothing
        model(ids)
    model(ids, labels=ids, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        model(ids)
    for name, gradient in gradients(model, ids).items():
        assert gradient.abs().max() > 0, name


def test_the_generator_leaves_its_near_saddle_with_adam() -> None:
    model, ids = adapted("zero-init-nonlinear", tiny_model()), token_ids()
    generator = model.get_decoder().generator
    start = generator("default", 3).abs().max().item()
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=2e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert start < 1e-3
    assert generator("default", 3).abs().max().item() > 20 * start
    assert losses[-1] < losses[0]


def attributes(model: nn.Module) -> dict[tuple[str, str], int]:
    """The identity of every object that a module holds, by module and attribute."""
    found = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            found[name, key] = id(value)
            if isinstance(value, dict):
                found |= {(name, f"{key}.{inner}"): id(held) for inner, held in value.items()}
    return found


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_forward_writes_nothing_onto_modules(method: str) -> None:
    model, ids = adapted(method, tiny_model()), token_ids()
    before = attributes(model)
    model(ids, labels=ids, use_cache=False).loss.backward()
    with torch.no_grad():
        model(ids, use_cache=True)
    assert attributes(model) == before


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_generation_with_a_cache_equals_generation_without(method: str, sample: bool) -> None:
    model = stir(adapted(method, tiny_model()))
    ids, mask = token_ids(), padding_mask("left", (12, 7, 3), 12)
    written = []
    for use_cache in (True, False):
        torch.manual_seed(4)  # generate() samples from the global generator
        written.append(
            model.generate(
                ids, attention_mask=mask, max_new_tokens=8, do_sample=sample, use_cache=use_cache
            )
        )
    assert torch.equal(*written)
    assert written[0].shape[1] > 12


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_a_static_cache_gives_the_same_text(method: str) -> None:
    model, ids = stir(adapted(method, tiny_model())), token_ids()
    settings = {"max_new_tokens": 6, "do_sample": False, "disable_compile": True}
    expected = model.generate(ids, use_cache=False, **settings)
    assert torch.equal(model.generate(ids, cache_implementation="static", **settings), expected)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_padding_changes_no_real_token(method: str) -> None:
    model = stir(adapted(method, tiny_model()))
    ids, lengths = token_ids(), (12, 7, 3)
    for side in ("left", "right"):
        mask = padding_mask(side, lengths, 12)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(ids, attention_mask=mask, position_ids=positions).logits
        for row in range(3):
            real = mask[row].bool()
            alone = model(ids[row, real][None]).logits[0]
            torch.testing.assert_close(logits[row, real], alone, rtol=SINGLE, atol=SINGLE)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_gradient_checkpointing_changes_nothing(method: str) -> None:
    model, ids = stir(adapted(method, tiny_model())), token_ids()
    expected = gradients(model, ids)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert model.is_gradient_checkpointing
    for name, gradient in gradients(model, ids).items():
        torch.testing.assert_close(gradient, expected[name], rtol=SINGLE, atol=1e-7)


@pytest.mark.parametrize("method", ["random-init", "zero-init-nonlinear"])
def test_compiled_layers_trace_as_one_graph(method: str) -> None:
    torch.compiler.reset()
    model, ids = stir(adapted(method, tiny_model(num_hidden_layers=3), num_layers=1)), token_ids()
    expected, logits = gradients(model, ids), model(ids, use_cache=False).logits
    model.get_decoder().layers[2].compile(backend="aot_eager", fullgraph=True)
    compiled = model(ids, use_cache=False).logits
    torch.testing.assert_close(compiled, logits, rtol=SINGLE, atol=SINGLE)
    for name, gradient in gradients(model, ids).items():
        torch.testing.assert_close(gradient, expected[name], rtol=SINGLE, atol=1e-6)


@pytest.mark.parametrize("method", PROMPT_METHODS)
def test_bf16_stays_within_its_rounding(method: str) -> None:
    model = stir(adapted(method, tiny_model()))
    logits = model(token_ids()).logits
    rounded = stir(adapted(method, tiny_model(dtype=torch.bfloat16)))
    found = rounded(token_ids()).logits
    assert found.dtype == torch.bfloat16
    assert {value.dtype for value in trained_parameters(rounded).values()} == {torch.float32}
    assert (found - logits).abs().mean() < 2**-6 * logits.abs().mean()


def test_initial_values_have_the_stated_distributions() -> None:
    model = adapted("zero-init-nonlinear", tiny_model(hidden_size=256), hidden_size=48)
    generator = model.get_decoder().generator
    embedding = generator.prompt_embedding["default"]
    hidden, output = generator.prompt_hidden["default"], generator.prompt_output["default"]
    weight = output.weight
    assert embedding.shape == (4, 48)
    assert abs(embedding.mean()) < 0.25
    assert abs(embedding.std() - 1) < 0.2
    bound = 1e-3 * math.sqrt(3 / (48 * 256))
    assert 0.999 * bound < weight.max() <= bound
    assert -bound <= weight.min() < -0.999 * bound
    assert abs(weight.std() - bound / math.sqrt(3)) < 0.01 * bound
    assert not output.bias.any()
    hidden_bound = 48**-0.5
    for tensor in (hidden.weight, hidden.bias):
        assert 0.8 * hidden_bound < tensor.abs().max() <= hidden_bound
    assert not any(m.gate.any() for m in model.modules() if isinstance(m, PromptAttention))


@pytest.mark.parametrize("method", ["random-init", "zero-init-linear"])
def test_free_prompts_start_as_standard_normals(method: str) -> None:
    model = adapted(method, tiny_model(hidden_size=256))
    rows = model.get_decoder().layers[3].self_attn.prompt.virtual_tokens
    assert rows.shape == (10, 256)
    assert abs(rows.mean()) < 0.08
    assert abs(rows.std() - 1) < 0.06
    assert 2.5 < rows.abs().max() < 5.5


def test_shape_of_the_tiny_models_is_what_the_tests_say() -> None:
    assert shape("wide-heads").query_size != shape("wide-heads").hidden_size
