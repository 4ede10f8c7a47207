"""The neighbours' options: defaults, counts, and refusals of what does not fit a model."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from transformers import Qwen2Config, Qwen2ForCausalLM

from harness.errors import MethodError
from harness.methods import METHODS
from harness.models.loading import count_parameters
from harness.models.shape import shape_of
from harness.training.spec import TrainSpec
from tests.fixtures.tiny_models import (
    HEADS,
    LLAMA_7B,
    LLAMA_13B,
    shape,
    tiny_config,
    tiny_model,
    trained_on_meta,
)
from tests.methods.test_neighbours import NAMES, OPTIONS, adapted

COUNTS = {
    # LoRA of rank 64 on all linear layers (159.9M and 250.3M in VeRA's table 4), and magnitudes.
    "dora": (159_907_840 + 1_359_872, 250_347_520 + 2_129_920),
    "ia3": (614_400, 962_560),
    "vera": (1_589_248, 2_416_640),  # 1.6M and 2.4M in VeRA's table 4
    "prefix-tuning": (2_621_440, 4_096_000),
    "prompt-tuning": (409_600, 512_000),
    "adaption-prompt": (1_228_830, 1_945_638),  # LLaMA-Adapter's 1.2M
}


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_complete_training_settings(name: str) -> None:
    spec = TrainSpec.model_validate(dict(METHODS[name].recipe))
    published = {"dora": 4e-4, "ia3": 3e-3, "vera": 4e-3, "adaption-prompt": 2.25e-3}
    assert spec.peak_learning_rate == pytest.approx(published.get(name, 1e-3))


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", NAMES)
def test_counts_without_torch_equal_the_model(name: str, heads: str) -> None:
    if (name, heads) == ("adaption-prompt", "wide-heads"):
        pytest.skip("refused: see test_adaption_prompt_names_what_it_does_not_handle")
    trained, total = count_parameters(adapted(name, tiny_model(heads)))
    method = METHODS[name]
    options = method.options.model_validate(OPTIONS.get(name, {}))
    assert trained == method.count_parameters(shape(heads), options)
    assert total == shape(heads).num_parameters + trained


@pytest.mark.parametrize("name", NAMES)
def test_default_counts_of_the_real_models(name: str) -> None:
    method = METHODS[name]
    counts = [method.count_parameters(each, method.options()) for each in (LLAMA_7B, LLAMA_13B)]
    assert tuple(counts) == COUNTS[name]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "dora")) for name in NAMES]
)
def test_a_real_model_on_the_meta_device_has_the_count(name: str) -> None:
    assert trained_on_meta(METHODS[name], LLAMA_7B) == COUNTS[name][0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dora", {"rank": 0}),
        ("dora", {"dropout": 1}),
        ("ia3", {"targets": []}),
        ("ia3", {"targets": ["lm_head"]}),
        ("vera", {"rank": 0}),
        ("vera", {"initial_scale": 0}),
        ("vera", {"targets": ["q_proj", "q_proj"]}),
        ("prefix-tuning", {"num_virtual_tokens": 0}),
        ("prompt-tuning", {"num_virtual_tokens": 5000}),
        ("prompt-tuning", {"start": "text"}),
        ("adaption-prompt", {"prompt_length": 0}),
        ("adaption-prompt", {"num_layers": 0}),
    ],
)
def test_options_have_bounds(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        METHODS[name].options.model_validate(options)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("dora", {"rank": 17}, r"rank: must be at most 16, .* k_proj .* \(got 17\)"),
        (
            "ia3",
            {"targets": ["qkv_proj"]},
            "targets: a model of type llama has no qkv_proj; it has",
        ),
        ("vera", {"targets": ["dense"]}, "targets: a model of type llama has no dense; it has q_p"),
        ("adaption-prompt", {"num_layers": 5}, r"num_layers: must be at most 4, .* \(got 5\)"),
    ],
)
def test_options_that_do_not_fit_are_refused_alike(
    name: str, options: dict[str, object], line: str
) -> None:
    method = METHODS[name]
    chosen = method.options.model_validate(OPTIONS.get(name, {}) | options)
    with pytest.raises(MethodError, match=line) as planned:
        method.count_parameters(shape(), chosen)
    with pytest.raises(MethodError) as applied:
        adapted(name, **options)
    assert str(planned.value) == str(applied.value)


def test_adaption_prompt_names_what_it_does_not_handle() -> None:
    method = METHODS["adaption-prompt"]
    assert "PEFT" in method.title
    with pytest.raises(
        MethodError, match="written for llama and mistral; this model is of type qw"
    ):
        method.apply(Qwen2ForCausalLM(qwen2_config()), method.options(), 0)
    with pytest.raises(MethodError, match="this model has 4 of 12, hidden size 32"):
        method.count_parameters(shape("wide-heads"), method.options())


def qwen2_config() -> Qwen2Config:
    sizes = shape_of(tiny_config()).model_dump(exclude={"model_type", "head_dim"})
    return Qwen2Config(**sizes)
