"""LoRA's options, and that PEFT does what they say."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import LoraLayer
from pydantic import ValidationError

from harness.errors import MethodError
from harness.methods.lora import LoraOptions, apply_lora, count_lora
from harness.methods.row_dropout import DropoutKey, RowDropout, dropout_rng
from harness.models.loading import count_parameters, trained_parameters
from tests.fixtures.tiny_models import adapted, shape, stir, tiny_model, token_ids


def test_defaults_are_the_published_ones() -> None:
    options = LoraOptions()
    assert (options.rank, options.alpha, options.dropout) == (8, 16, 0.05)
    assert options.targets == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"alpha": 0},
        {"dropout": 1},
        {"targets": []},
        {"targets": ["lm_head"]},
        {"targets": ["q_proj", "q_proj"]},
    ],
)
def test_options_have_bounds(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoraOptions.model_validate(options)


def test_the_order_of_targets_does_not_matter() -> None:
    assert LoraOptions(targets=("v_proj", "q_proj")) == LoraOptions(targets=("q_proj", "v_proj"))


def test_a_rank_above_the_layer_is_refused() -> None:
    with pytest.raises(MethodError, match=r"rank: must be at most 16, .* v_proj .* \(got 17\)"):
        count_lora(shape(), LoraOptions(rank=17))
    with pytest.raises(MethodError, match="rank: must be at most 16"):
        apply_lora(tiny_model(), LoraOptions(rank=17), 0)


def test_all_targets_are_counted_as_they_are_built() -> None:
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    model = adapted("lora", tiny_model("wide-heads"), rank=3, targets=targets)
    expected = count_lora(shape("wide-heads"), LoraOptions(rank=3, targets=targets))
    assert count_parameters(model)[0] == expected


def test_a_model_without_the_layers_is_refused() -> None:
    model = tiny_model()
    for layer in model.model.layers:
        layer.self_attn.query = layer.self_attn.q_proj
        del layer.self_attn.q_proj
    with pytest.raises(MethodError, match="LlamaForCausalLM does not have one layer named q_proj"):
        apply_lora(model, LoraOptions(targets=("q_proj",)), 0)


def test_a_model_that_lacks_a_layer_in_one_place_is_refused() -> None:
    """PEFT would adapt the other layers and say nothing."""
    model = tiny_model()
    model.model.layers[2].self_attn.query = model.model.layers[2].self_attn.q_proj
    del model.model.layers[2].self_attn.q_proj
    with pytest.raises(MethodError, match="one layer named q_proj in each of its layers"):
        apply_lora(model, LoraOptions(), 0)


def test_targets_of_another_family_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(MethodError, match="targets: a model of type llama has no qkv_proj; it has"):
        count_lora(shape(), LoraOptions(targets=("qkv_proj",)))


def test_the_output_is_the_layer_plus_the_scaled_product() -> None:
    model = stir(adapted("lora", tiny_model(), rank=4, alpha=6.0, targets=["o_proj"]))
    layer = model.get_base_model().model.layers[0].self_attn.o_proj
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = x @ layer.base_layer.weight.T + 6.0 / 4 * (x @ first.T @ second.T)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_dropout_works_in_training_only() -> None:
    model = stir(adapted("lora", tiny_model(), dropout=0.5)).eval()
    ids = token_ids()
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_the_second_matrix_starts_at_zero() -> None:
    for name, value in trained_parameters(adapted("lora", tiny_model())).items():
        assert value.any() == ("lora_A" in name), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_no_input_is_cast_and_every_bit_stays(dtype: torch.dtype) -> None:
    ids = token_ids()
    found = []
    for casts in (True, False):
        model = adapted("lora", tiny_model(dtype=dtype), dropout=0.3)
        assert {p.dtype for p in trained_parameters(model).values()} == {torch.float32}
        stir(model)
        seen: list[torch.dtype] = []
        for module in model.modules():
            if isinstance(module, LoraLayer) and casts:
                module._forward_pre_hooks.clear()
            if isinstance(module, RowDropout):
                module.register_forward_hook(
                    lambda _, inputs, __, seen=seen: seen.append(inputs[0].dtype)
                )
        key = DropoutKey(3, torch.arange(len(ids)))
        with torch.autocast("cpu", dtype), dropout_rng(key):
            model.train()(input_ids=ids, labels=ids).loss.backward()
        assert set(seen) == {torch.float32 if casts else dtype}
        found.append([p.grad for p in trained_parameters(model).values()])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert one.any()
        assert torch.equal(one, other)
