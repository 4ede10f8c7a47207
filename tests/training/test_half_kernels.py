"""The kernels of half precision, on the CPU by their stand-ins: checked first, kept, named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.models import fused_norms, varlen_attention
from harness.models.fused_norms import FUSED
from harness.models.kernel_check import KernelCheck
from harness.models.packed_attention import VARLEN
from harness.records.results import TrainResult
from harness.training import half_kernels
from harness.training.checkpoint import Checkpoints, read_checkpoint
from harness.training.loop import fit
from harness.training.signals import SignalFlags
from harness.training.spec import TrainSpec
from tests.fixtures.tiny import adapted, random_examples, relative_distance, trained_state

SPEC = TrainSpec.model_validate({"learning_rate": 3e-3, "epochs": 1, "batch_size": 4})
BOTH = {VARLEN, FUSED}


def train(name: str, monkeypatch: pytest.MonkeyPatch, kernels: set[str], **given: Any) -> Any:
    """The result of a training that has these kernels, and its weights."""
    monkeypatch.setattr(half_kernels, "choose_kernels", lambda *_: set(kernels))
    model = adapted(name, moved=True)
    examples = random_examples(16)
    result = fit(
        model, examples, SPEC, seed=0, device="cpu", precision="fp32", pad_token_id=0, **given
    )
    return result, trained_state(model)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", ["zero-init-linear", "random-init", "lora"])
def test_it_trains_as_without_them_and_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, expected = train(name, monkeypatch, set())
    assert (usual.attention, usual.norms, usual.note) == ("buckets", None, None)
    result, weights = train(name, monkeypatch, BOTH)
    assert (result.attention, result.norms, result.note) == ("varlen", "fused", None)
    assert result.epoch_losses == pytest.approx(usual.epoch_losses, rel=1e-5)
    assert not same(weights, expected)
    for parameter, value in weights.items():
        assert relative_distance(value, expected[parameter]) < 1e-3, parameter


@pytest.mark.parametrize("name", ["zero-init-linear", "random-init"])
def test_a_kernel_that_is_wrong_is_not_used(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, expected = train(name, monkeypatch, set())
    right = varlen_attention.exact_varlen_attn

    def wrong(query: Tensor, key: Tensor, *rest: Any, **given: Any) -> Tensor:
        return right(query, key.roll(1, 0), *rest, **given)

    monkeypatch.setattr(varlen_attention, "exact_varlen_attn", wrong)
    with caplog.at_level(logging.WARNING):
        result, weights = train(name, monkeypatch, {VARLEN})
    assert (result.attention, result.norms) == ("buckets", None)
    assert "variable-length attention differs from the usual one by" in result.note
    assert "trained with attention by buckets" in caplog.text
    assert same(weights, expected)


def test_a_norm_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = train("lora", monkeypatch, set())
    right = fused_norms.fused_rms_norm
    monkeypatch.setattr(
        fused_norms, "fused_rms_norm", lambda x, weight, epsilon: right(x, weight, epsilon=0.1)
    )
    result, weights = train("lora", monkeypatch, {FUSED})
    assert (result.attention, result.norms) == ("buckets", None)
    assert "the fused norm differs" in result.note
    assert same(weights, expected)


def refuses(*_: Any, **__: Any) -> Tensor:
    """A kernel that torch was built without, or whose arguments are others."""
    raise RuntimeError("no kernel image\nis available")


@pytest.mark.parametrize("name", ["zero-init-linear", "random-init"])
def test_kernels_that_do_not_run_are_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = train(name, monkeypatch, set())
    monkeypatch.setattr(varlen_attention, "exact_varlen_attn", refuses)
    monkeypatch.setattr(fused_norms, "fused_rms_norm", refuses)
    result, weights = train(name, monkeypatch, BOTH)
    assert (result.attention, result.norms) == ("buckets", None)
    why = "does not run here (RuntimeError: no kernel image is available): trained with"
    assert f"{FUSED} {why} transformers' norms" in result.note
    assert f"{VARLEN} {why} attention by buckets" in result.note
    assert same(weights, expected)


def test_memory_that_is_full_is_no_fault_of_a_kernel() -> None:
    def full(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        KernelCheck().compare("one", full, torch.sin, [torch.ones(2)])


def test_a_norm_that_fails_leaves_attention_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = train("random-init", monkeypatch, {VARLEN})
    right = fused_norms.fused_rms_norm
    monkeypatch.setattr(
        fused_norms,
        "fused_rms_norm",
        lambda x, weight, epsilon: right(x, 2 * weight, epsilon=epsilon),
    )
    result, weights = train("random-init", monkeypatch, BOTH)
    assert (result.attention, result.norms) == ("varlen", None)
    assert same(weights, expected)


@pytest.mark.parametrize("kernels", [set(), BOTH])
def test_resumed_it_goes_on_with_them(
    kernels: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = {"cell": "a"}
    kept = Checkpoints(tmp_path, identity, minutes=0.0, flags=SignalFlags(), warn=print)
    whole, expected = train("zero-init-linear", monkeypatch, kernels, callbacks=[kept])
    newest, before = sorted(tmp_path.glob("step-*"), reverse=True)[:2]
    state = read_checkpoint(before, identity)
    assert state.progress.step < whole.steps
    assert newest != before
    # A device that has the others would choose anew: what the checkpoint says is kept.
    result, weights = train("zero-init-linear", monkeypatch, BOTH - kernels, resume=state)
    assert (result.attention, result.norms) == (whole.attention, whole.norms)
    assert result.epoch_losses == whole.epoch_losses
    assert same(weights, expected)


def test_results_of_older_versions_name_none() -> None:
    assert TrainResult.__pydantic_fields__["attention"].default is None
