"""Fewer launches in half precision on CUDA: the same function, up to its type's rounding."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from harness.models.families import FAMILIES
from harness.models.fused_inference import ROTATE, FusedInference, FusedRotation, _rotates_as_usual
from tests.fixtures.tiny import adapted, tiny_llama


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_queries_and_keys_are_rotated_as_by_transformers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(3, 4, 5, 16, dtype=dtype), torch.randn(3, 2, 5, 16, dtype=dtype)
    angles = torch.rand(3, 5, 16) * 6
    rotate = FusedRotation(modeling_llama.apply_rotary_pos_emb)
    for shift in (0, 1):  # positions of another pass
        cos, sin = (angles + shift).cos(), (angles + shift).sin()
        expected = modeling_llama.apply_rotary_pos_emb(q.float(), k.float(), cos, sin)
        for one, other in zip(rotate(q, k, cos, sin), expected, strict=True):
            assert one.dtype == dtype
            tolerance = 1e-6 if dtype == torch.float32 else 0.02
            torch.testing.assert_close(one.float(), other, rtol=tolerance, atol=tolerance)


def test_families_that_rotate_otherwise_keep_their_own() -> None:
    short = [name.removesuffix("_text") for name in FAMILIES]
    code = {
        name: importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        for name in short
    }
    usual = {name for name in short if _rotates_as_usual(code[name])}
    assert {"llama", "mistral", "qwen2", "qwen3"} <= usual
    assert not {"gpt_neox", "phi3"} & usual


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a model on the CPU pass for one on CUDA, as far as its device is asked for."""
    monkeypatch.setattr(FusedInference, "on_cuda", staticmethod(lambda _model: True))


def logits(model: Any, fused: FusedInference | None = None) -> torch.Tensor:
    tokens = torch.arange(3, 27).view(2, 12)
    with torch.no_grad():
        if fused is None:
            return model(tokens).logits
        with fused():
            return model(tokens).logits


@pytest.mark.parametrize("name", ["base", "lora", "zero-init-linear"])
@pytest.mark.usefixtures("on_cuda")
def test_half_precision_stays_within_its_rounding(name: str) -> None:
    model = adapted(name, moved=True).to(torch.bfloat16).eval()
    exact = logits(model.float())
    model = model.to(torch.bfloat16)
    usual, fused = logits(model), logits(model, FusedInference(model))
    assert not torch.equal(usual, fused)
    error = (usual.float() - exact).abs().max()
    assert (fused.float() - exact).abs().max() < 2 * error
    assert torch.equal(logits(model), usual)  # all is as it was
    assert modeling_llama.__dict__[ROTATE].__module__ == modeling_llama.__name__


@pytest.mark.usefixtures("on_cuda")
def test_fp32_keeps_its_bits_on_cuda_too() -> None:
    model = tiny_llama().eval()
    assert torch.equal(logits(model, FusedInference(model)), logits(model))


def test_on_the_cpu_nothing_changes() -> None:
    model = tiny_llama().to(torch.bfloat16).eval()
    assert torch.equal(logits(model, FusedInference(model)), logits(model))
