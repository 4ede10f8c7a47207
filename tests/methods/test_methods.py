"""The paper's methods on Llama: names, counts and figures; test_laws.py has the laws of all."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.errors import MethodError
from harness.methods import METHODS, check_options
from harness.models.loading import count_parameters, load_trained, save_trained, trained_parameters
from harness.training.spec import TrainSpec
from tests.fixtures.tiny_models import (
    HEADS,
    LLAMA_7B,
    LLAMA_13B,
    adapted,
    shape,
    stir,
    tiny_model,
    token_ids,
    trained_on_meta,
)

NAMES = ("base", "full", "lora", "random-init", "zero-init-linear", "zero-init-nonlinear")
"""Those of the paper; tests/methods/test_neighbours.py has the others."""
TRAINING = tuple(name for name in NAMES if METHODS[name].trains)

PUBLISHED_COUNTS = {
    "base": (0, 0),
    "full": (6_738_415_616, 13_015_864_320),
    "lora": (4_194_304, 6_553_600),
    "random-init": (1_228_800, 1_945_600),
    "zero-init-linear": (1_229_760, 1_947_120),
    "zero-init-nonlinear": (2_669_568, 3_336_240),
}
"""For 7B and 13B; the paper prints 1.2M and 1.9M, 2.6M and 3.3M, 4.2M, 7B (its table 2)."""


def expected_names(name: str, model: nn.Module) -> set[str]:
    """What is to be trained in a model of 4 layers, written out by hand."""
    every = set(dict(model.named_parameters()))
    layers = {index: f"base_model.model.model.layers.{index}.self_attn." for index in range(4)}
    prompts = {layers[index] + "prompt.prompt_" for index in (2, 3)}
    generator = {"embedding.default"} | {
        f"{layer}.default.{part}" for layer in ("hidden", "output") for part in ("weight", "bias")
    }
    lora = {
        f"{layer}{side}_proj.lora_{matrix}.default.weight"
        for layer in layers.values()
        for side in "qv"
        for matrix in "AB"
    }
    return {
        "base": set(),
        "full": every,
        "lora": lora,
        "random-init": {prompt + "rows.default" for prompt in prompts},
        "zero-init-linear": {
            f"{prompt}{part}.default" for prompt in prompts for part in ("rows", "gate")
        },
        "zero-init-nonlinear": {prompt + "gate.default" for prompt in prompts}
        | {f"base_model.model.model.generator.prompt_{part}" for part in generator},
    }[name]


def train(model: nn.Module, steps: int = 3) -> None:
    model.train()
    optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-3)
    ids = token_ids()
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
    model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(token_ids(seed=9)).logits


def test_the_names_and_their_order_are_fixed() -> None:
    assert tuple(METHODS) == (
        *("base", "full", "lora"),
        *("dora", "ia3", "vera", "prefix-tuning", "prompt-tuning", "adaption-prompt"),
        *("random-init", "zero-init-linear", "zero-init-nonlinear"),
        *("peft", "adapter"),
    )
    assert all(method.name == name for name, method in METHODS.items())
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("name", TRAINING)
def test_recipes_are_complete_training_settings(name: str) -> None:
    spec = TrainSpec.model_validate(dict(METHODS[name].recipe))
    published = {"full": 2e-5, "lora": 3e-4}
    assert spec.peak_learning_rate == pytest.approx(published.get(name, 2.25e-3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_expected_names_train_in_fp32(name: str, dtype: torch.dtype) -> None:
    model = adapted(name, tiny_model(dtype=dtype))
    assert set(trained_parameters(model)) == expected_names(name, model)
    for parameter in model.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else dtype)


@pytest.mark.parametrize("name", TRAINING)
def test_save_then_load_in_a_fresh_model_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    model = adapted(name, tiny_model())
    train(model)
    save_trained(model, tmp_path)
    fresh = adapted(name, tiny_model(), seed=99).eval()
    expected = logits(model)
    assert not torch.equal(logits(fresh), expected)
    load_trained(fresh, tmp_path)
    assert torch.equal(logits(fresh), expected)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", NAMES)
def test_counts_without_torch_equal_the_model(name: str, heads: str) -> None:
    model = adapted(name, tiny_model(heads))
    method = METHODS[name]
    expected = method.count_parameters(shape(heads), method.options())
    trainable, total = count_parameters(model)
    assert trainable == expected
    added = 0 if name in ("base", "full") else expected
    assert total == shape(heads).num_parameters + added


@pytest.mark.parametrize("name", NAMES)
def test_counts_equal_the_published_ones(name: str) -> None:
    method = METHODS[name]
    counts = [method.count_parameters(each, method.options()) for each in (LLAMA_7B, LLAMA_13B)]
    assert tuple(counts) == PUBLISHED_COUNTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_real_model_on_the_meta_device_has_the_count(name: str) -> None:
    assert trained_on_meta(METHODS[name], LLAMA_7B) == PUBLISHED_COUNTS[name][0]


@pytest.mark.parametrize("name", NAMES)
def test_two_models_of_one_process_do_not_meet(name: str) -> None:
    """A model is the same whatever was applied to another before and after."""
    base = tiny_model()
    first = stir(adapted(name, copy.deepcopy(base)))
    expected = logits(first)
    others = [stir(adapted(other, copy.deepcopy(base)), seed=1) for other in NAMES]
    assert torch.equal(logits(first), expected)
    assert len(others) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_finite_numbers_by_path(name: str) -> None:
    statistics: Callable[[nn.Module], dict[str, float]] | None = METHODS[name].statistics
    assert (statistics is not None) == name.startswith("zero-init")
    if statistics is not None:
        found = statistics(adapted(name, tiny_model()))
        assert set(found.values()) == {0.0}
        assert all("," not in key for key in found), "MLflow refuses commas in names"


def test_options_that_do_not_fit_are_refused_without_torch() -> None:
    program = (
        "import sys\n"
        "from harness.methods import METHODS, check_options\n"
        "from harness.errors import MethodError\n"
        "from harness.models.shape import ModelShape\n"
        f"shape = ModelShape.model_validate({LLAMA_7B.model_dump()!r})\n"
        "method = METHODS['zero-init-linear']\n"
        "check_options(method, method.options(), shape)\n"
        "try:\n"
        "    check_options(method, method.options(num_layers=33), shape)\n"
        "except MethodError as fault:\n"
        "    print(fault)\n"
        "print([name for name in ('torch', 'peft', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    line, heavy = done.stdout.splitlines()
    assert line == "num_layers: must be at most 32, the layers of this model (got 33)"
    assert heavy == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_default_options_fit_the_published_models(name: str) -> None:
    method = METHODS[name]
    for model_shape in (LLAMA_7B, LLAMA_13B):
        check_options(method, method.options(), model_shape)


def test_check_and_apply_refuse_alike() -> None:
    options = {"num_layers": 5}
    method = METHODS["random-init"]
    with pytest.raises(MethodError) as planned:
        check_options(method, method.options.model_validate(options), shape())
    with pytest.raises(MethodError) as applied:
        adapted("random-init", tiny_model(), **options)
    assert str(planned.value) == str(applied.value)
