"""The laws that every method keeps, as tests for a method of any package. In a test file:

    from harness.testing import MethodLaws
    from mypackage import NORM_TUNING

    class TestNormTuning(MethodLaws):
        method = NORM_TUNING

Each law runs on a tiny random model of each family in `families`, on the CPU; with
`ZBENCH_LAWS_DEVICE=cuda` in pytest's environment it runs on a GPU.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Container
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from harness.data.instructions import Example
from harness.errors import MethodError
from harness.methods.method import Method
from harness.models.families import FAMILIES
from harness.models.loading import load_trained, save_trained, trained_parameters
from harness.models.shape import shape_of
from harness.testing.gradients import (
    VOCABULARY,
    device_of,
    gradients,
    law_examples,
    loss_of_all_but_the_first,
    plain_gradients,
    plain_loss,
    token_ids,
    whole_batch,
)
from harness.training.loss import ResponseLoss

SINGLE = 1e-5
"""Relative deviation allowed in fp32."""
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# Windows shorter than the sequences, and caps that bite, so that they are part of what is tested.
_SPECIAL: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 5},
    "qwen3": {"head_dim": 12},
    "gemma2": {"head_dim": 12, "sliding_window": 5, "query_pre_attn_scalar": 9,
               "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"head_dim": 12, "sliding_window": 5, "query_pre_attn_scalar": 9,
                    "layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi3": {"sliding_window": 5},
    "gpt_neox": {"num_key_value_heads": None},
    "olmo": {"clip_qkv": 1.0},
}  # fmt: skip


LAWS_DEVICE = os.environ.get("ZBENCH_LAWS_DEVICE", "cpu")
"""The torch device that the laws run on."""


def tiny_model(
    family: str, *, dtype: torch.dtype = torch.float32, device: str = LAWS_DEVICE
) -> PreTrainedModel:
    """A random model of a family: 4 layers, hidden size 32, in evaluation mode.

    Its weights are large enough to make attention uneven, and the same each time.
    """
    sizes = {k: v for k, v in (_SIZES | _SPECIAL.get(family, {})).items() if v is not None}
    config = AutoConfig.for_model(family, **sizes)
    implementation = "eager" if FAMILIES[family].soft_capped else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    random = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=random)
            elif "norm" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    model = model.to(dtype=dtype).eval()
    return model if device == "cpu" else model.to(device)  # under another default device it stays


def perturb(model: Any, *, seed: int = 7) -> Any:
    """Moves the trained tensors far, as if by training, and returns the model."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            matrix = parameter.ndim == 2 and min(parameter.shape) > 1
            # Gates open wide; scales and magnitudes, which start elsewhere, keep their sign.
            scale = 0.1 if parameter.any() else 0.5
            scale = parameter.shape[-1] ** -0.5 if matrix else scale
            step = scale * torch.randn(parameter.shape, generator=random)
            parameter.add_(step.to(parameter.device))
    return model


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(token_ids().to(device_of(model))).logits
    return logits


def base_name(name: str, known: Container[str]) -> str | None:
    """A parameter's name in the base model, whose names are `known`; None where it is added."""
    name = name.replace(".base_layer.", ".").replace(".self_attn.model.", ".self_attn.")
    for prefix in ("", "base_model.", "base_model.model."):  # of PEFT's wrappers
        plain = name.removeprefix(prefix)
        if name.startswith(prefix) and plain in known:
            return plain
    return None


class MethodLaws:
    """Subclass it as `Test...` and set `method`; pytest then runs every law on it."""

    method: ClassVar[Method]
    options: ClassVar[dict[str, Any]] = {}
    """As in a grid; the method's defaults where absent."""
    families: ClassVar[tuple[str, ...]] = tuple(FAMILIES)
    """Those that the method supports; on any other it must raise MethodError."""
    starts_as_base: ClassVar[bool] = True
    """Whether the untrained method gives the base model's logits, bit for bit."""
    generates_without_cache: ClassVar[bool] = True
    """False where the method lives in the cache, so that there is no generation without one."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs a law on each family that it asks for."""
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)
        if "other_family" in metafunc.fixturenames:
            others = [name for name in FAMILIES if name not in self.families]
            metafunc.parametrize("other_family", others)

    def adapted(self, family: str, *, dtype: torch.dtype = torch.float32, seed: int = 5) -> Any:
        """A tiny model of the family with the method applied."""
        return self.apply(tiny_model(family, dtype=dtype), seed=seed)

    def apply(self, model: PreTrainedModel, *, seed: int = 5) -> Any:
        """The model with the method applied."""
        return self.method.apply(model, self.method.options.model_validate(self.options), seed)

    def test_another_family_is_refused(self, other_family: str) -> None:
        with pytest.raises(MethodError):
            self.adapted(other_family)

    def test_the_trained_parameters_are_counted(self, family: str) -> None:
        model = self.adapted(family)
        options = self.method.options.model_validate(self.options)
        trained = sum(value.numel() for value in trained_parameters(model).values())
        assert trained == self.method.count_parameters(shape_of(model.config), options)
        assert (trained > 0) == self.method.trains

    def test_trained_tensors_are_fp32_and_the_rest_keeps_its_precision(self, family: str) -> None:
        kept = {torch.bfloat16, torch.float32}  # a buffer or a norm may be fp32 in any model
        for parameter in self.adapted(family, dtype=torch.bfloat16).parameters():
            assert parameter.dtype in ({torch.float32} if parameter.requires_grad else kept)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_training_moves_what_trains_and_no_bit_of_the_rest(
        self, family: str, dtype: torch.dtype
    ) -> None:
        base = tiny_model(family, dtype=dtype)
        before = {name: value.detach().clone() for name, value in base.named_parameters()}
        model = self.apply(base)
        start = {name: value.detach().clone() for name, value in model.named_parameters()}
        if not self.method.trains:
            assert not trained_parameters(model)
            return
        optimizer = torch.optim.AdamW(trained_parameters(model).values(), lr=1e-2)
        for _ in range(3):
            # As in training: a half-precision base runs under autocast.
            kind, half = device_of(model).type, dtype == torch.bfloat16
            with torch.autocast(kind, torch.bfloat16, enabled=half):
                found = gradients(model, law_examples(), 100)
            for name, parameter in trained_parameters(model).items():
                parameter.grad = found[name]
            optimizer.step()
        seen = set()
        for name, value in model.named_parameters():
            assert value.requires_grad != torch.equal(value, start[name]), name
            plain = base_name(name, before)
            if plain is not None:
                seen.add(plain)
                assert value.requires_grad or torch.equal(value, before[plain]), name
        assert seen == set(before), "parameters of the base model have gone"

    def test_the_seed_alone_decides_the_start(self, family: str) -> None:
        starts = []
        for outside in (1, 2):
            model = tiny_model(family)
            torch.manual_seed(outside)
            state = torch.get_rng_state()
            starts.append(trained_parameters(self.apply(model)))
            assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
        assert all(torch.equal(value, starts[1][name]) for name, value in starts[0].items())

    @pytest.mark.parametrize("training", [False, True])
    def test_applying_keeps_the_mode(self, family: str, training: bool) -> None:
        model = self.apply(tiny_model(family).train(training))
        assert {module.training for module in model.modules()} == {training}

    def test_untrained_it_is_the_base_model(self, family: str) -> None:
        if not self.starts_as_base:
            pytest.skip("this method changes the model before it is trained")
        assert torch.equal(_logits(self.adapted(family)), _logits(tiny_model(family)))

    def test_saved_and_loaded_it_gives_the_same_logits(self, family: str, tmp_path: Path) -> None:
        model = perturb(self.adapted(family))
        save_trained(model, tmp_path)
        fresh = self.adapted(family, seed=6)
        load_trained(fresh, tmp_path)
        assert torch.equal(_logits(fresh), _logits(model))

    def test_a_copy_is_independent(self, family: str) -> None:
        model = perturb(self.adapted(family))
        expected, copied = _logits(model), copy.deepcopy(model)
        assert torch.equal(_logits(copied), expected)
        perturb(copied, seed=2)
        assert torch.equal(_logits(model), expected)
        assert torch.equal(_logits(copied), expected) == (not self.method.trains)

    def test_any_token_budget_gives_the_gradient_of_one_sequence_at_a_time(
        self, family: str
    ) -> None:
        if not self.method.trains:
            pytest.skip("this method trains nothing")
        # In fp64: with weights so large, fp32's own rounding is 2e-5 in some families.
        model = perturb(self.adapted(family)).double()
        expected = plain_gradients(model, law_examples())
        for budget, share in ((14, True), (30, True), (1000, True), (30, False), (1000, False)):
            found = gradients(model, law_examples(), budget, share=share)
            for name, gradient in found.items():
                deviation = (gradient - expected[name]).norm() / expected[name].norm()
                assert deviation <= SINGLE / 5, f"{name}: {deviation:.2e}, {budget}, {share}"

    @pytest.mark.parametrize("share", [True, False])
    def test_documents_never_see_each_other(self, family: str, share: bool) -> None:
        model = perturb(self.adapted(family))
        shared, *documents = token_ids(5, 12, seed=2).tolist()
        losses = []
        for first in documents[:2]:
            texts = (first, *(document[:9] for document in documents[2:]))
            examples = [Example((*shared[:5], *ids), 7) for ids in texts]
            losses.append(loss_of_all_but_the_first(ResponseLoss(model), examples, share=share))
        torch.testing.assert_close(*losses, rtol=1e-6, atol=0)

    def test_the_loss_is_that_of_the_models_own_logits(self, family: str) -> None:
        model = perturb(self.adapted(family))
        (example,) = law_examples()[:1]
        batch = whole_batch(ResponseLoss(model), [example], share=True)
        with torch.no_grad():
            loss, own = ResponseLoss(model)(batch), plain_loss(model, example)
        torch.testing.assert_close(loss, own, rtol=SINGLE, atol=SINGLE)

    def test_later_tokens_change_nothing_before_them(self, family: str) -> None:
        model = perturb(self.adapted(family))
        ids = token_ids().to(device_of(model))
        with torch.no_grad():
            whole = model(ids, use_cache=False).logits[:, -ids.shape[1] :]
            part = model(ids[:, :7], use_cache=False).logits[:, -7:]
        torch.testing.assert_close(whole[:, :7], part, rtol=SINGLE, atol=SINGLE)

    @pytest.mark.parametrize("sample", [False, True])
    def test_generation_with_a_cache_equals_generation_without(
        self, family: str, sample: bool
    ) -> None:
        if not self.generates_without_cache:
            pytest.skip("this method lives in the cache")
        model, written = perturb(self.adapted(family)), []
        ids = token_ids().to(device_of(model))
        for use_cache in (True, False):
            torch.manual_seed(4)  # generate() samples from the global generator
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            options = {"do_sample": sample, "use_cache": use_cache, "pad_token_id": 0}
            written.append(model.generate(**inputs, **options, max_new_tokens=8))
        assert torch.equal(*written)
        assert written[0].shape[1] > ids.shape[1]

    def test_forward_writes_nothing_onto_modules(self, family: str) -> None:
        model = perturb(self.adapted(family))
        before = attributes(model)
        if self.method.trains:
            gradients(model, law_examples(), 30)
        with torch.no_grad():
            model(token_ids().to(device_of(model)), use_cache=True)
        assert attributes(model) == before


def attributes(model: nn.Module) -> dict[tuple[str, str], int]:
    """The identity of every object that a module holds, by module and attribute."""
    found = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key in ("training", "generation_config"):
                continue
            found[name, key] = id(value)
            if isinstance(value, dict):
                found |= {(name, f"{key}.{inner}"): id(held) for inner, held in value.items()}
    return found
