"""The laws of methods on a base in 8 or 4 bits, as tests for a method. In a test file:

    from harness.testing import QuantisedLaws
    from mypackage import NORM_TUNING

    class TestQuantisedNormTuning(QuantisedLaws):
        method = NORM_TUNING

They run on the CPU where bitsandbytes is installed, and are skipped where it is not.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from harness.errors import MethodError
from harness.methods.method import Method
from harness.models.loading import load_trained, save_trained, trained_parameters
from harness.models.quantization import Quantization, quantization_config, settle_quantised
from harness.models.shape import shape_of
from harness.testing.gradients import gradients, law_examples, plain_gradients, token_ids
from harness.testing.method_laws import perturb, tiny_model

KINDS: tuple[Quantization, ...] = ("int8", "nf4")
ROUNDING = {"int8": 1e-2, "nf4": 1e-4}
"""Relative deviation of gradients between packed sequences and single ones. LLM.int8() multiplies
in fp16 and 8 bits; 4-bit weights are multiplied in fp32 here."""


def quantised_model(family: str, quantization: Quantization, folder: Path) -> PreTrainedModel:
    """`tiny_model` of a family with its matrices in 8 or 4 bits, multiplied in fp32; on the CPU.

    Args:
        family: a Llama, say.
        quantization: int8 or nf4.
        folder: where the model is written, to be read from.
    """
    plain = tiny_model(family)
    plain.save_pretrained(folder)
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=quantization_config(quantization, "float32", "cpu"),
        attn_implementation=plain.config._attn_implementation,
    )
    settle_quantised(loaded)
    return loaded.eval()


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(token_ids()).logits
    return logits


def _stored(model: torch.nn.Module) -> list[torch.Tensor]:
    """Copies of what is frozen, codes included."""
    return [v.detach().clone() for v in model.parameters() if not v.requires_grad]


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed (make test-quantised)",
)
class QuantisedLaws:
    """Subclass it as `Test...` and set `method`; pytest then runs every law on it."""

    method: ClassVar[Method]
    options: ClassVar[dict[str, Any]] = {}
    """As in a grid; the method's defaults where absent."""
    families: ClassVar[tuple[str, ...]] = ("llama",)
    """Of the models that the laws run on."""
    starts_as_base: ClassVar[bool] = True
    """Whether the untrained method gives the quantised base's logits, bit for bit."""
    quantizations: ClassVar[tuple[Quantization, ...]] = ("int8", "nf4")
    """Those that the method runs with on the CPU; on the other it must raise MethodError."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs every law on each family and kind of base."""
        metafunc.parametrize("family", self.families)
        names = metafunc.fixturenames
        if "refused" in names:
            metafunc.parametrize("refused", [q for q in KINDS if q not in self.quantizations])
        elif "quantization" in names:
            metafunc.parametrize("quantization", self.quantizations)

    @pytest.fixture
    def base(self, family: str, quantization: Quantization, tmp_path: Path) -> PreTrainedModel:
        """A quantised model."""
        return quantised_model(family, quantization, tmp_path / "base")

    def apply(self, model: PreTrainedModel, *, seed: int = 5) -> Any:
        """The model with the method applied."""
        return self.method.apply(model, self.method.options.model_validate(self.options), seed)

    def test_another_kind_is_refused(
        self, refused: Quantization, family: str, tmp_path: Path
    ) -> None:
        with pytest.raises(MethodError, match=refused):
            self.apply(quantised_model(family, refused, tmp_path))

    def test_untrained_it_is_the_quantised_base(self, base: PreTrainedModel) -> None:
        if not self.starts_as_base:
            pytest.skip("this method changes the model before it is trained")
        expected = _logits(base)
        assert torch.equal(_logits(self.apply(base)), expected)

    def test_the_trained_parameters_are_counted_and_in_fp32(self, base: PreTrainedModel) -> None:
        trained = trained_parameters(self.apply(base)).values()
        options = self.method.options.model_validate(self.options)
        count = self.method.count_parameters(shape_of(base.config), options)
        assert sum(value.numel() for value in trained) == count > 0
        assert {value.dtype for value in trained} == {torch.float32}

    def test_training_moves_what_trains_and_no_code_of_the_base(
        self, base: PreTrainedModel
    ) -> None:
        model = self.apply(base)
        trained, frozen = trained_parameters(model), _stored(model)
        start = {name: value.detach().clone() for name, value in trained.items()}
        optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
        for _ in range(3):
            found = gradients(model, law_examples(), 100)
            for name, parameter in trained.items():
                assert found[name].isfinite().all(), name
                parameter.grad = found[name]
            optimizer.step()
        assert all(not torch.equal(value, start[name]) for name, value in trained.items())
        after = _stored(model)
        assert all(torch.equal(one, other) for one, other in zip(frozen, after, strict=True))

    def test_saved_and_loaded_it_gives_the_same_logits(
        self, base: PreTrainedModel, family: str, quantization: Quantization, tmp_path: Path
    ) -> None:
        model = perturb(self.apply(base))
        save_trained(model, tmp_path / "adapter")
        fresh = self.apply(quantised_model(family, quantization, tmp_path / "again"), seed=6)
        load_trained(fresh, tmp_path / "adapter")
        assert torch.equal(_logits(fresh), _logits(model))

    def test_any_token_budget_gives_the_gradient_of_one_sequence_at_a_time(
        self, base: PreTrainedModel, quantization: Quantization
    ) -> None:
        model = perturb(self.apply(base))
        expected = plain_gradients(model, law_examples())
        for budget, share in ((30, True), (1000, True), (1000, False)):
            found = gradients(model, law_examples(), budget, share=share)
            for name, gradient in found.items():
                deviation = (gradient - expected[name]).norm() / expected[name].norm()
                assert deviation <= ROUNDING[quantization], f"{name}: {deviation:.2e}, {budget}"
