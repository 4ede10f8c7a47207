"""Dropout's random bits: uniform, independent, and a sequence's own in any micro-batch."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from harness.methods.row_dropout import (
    DropoutKey,
    RowDropout,
    dropout_rng,
    replace_dropouts,
    uniform_bits,
)


def bits(key: int = 5, rows: tuple[int, ...] = (0, 1, 2), index: int = 0) -> torch.Tensor:
    return uniform_bits(DropoutKey(key, torch.tensor(rows)), index, torch.Size((len(rows), 40, 64)))


def test_draws_are_those_of_earlier_versions() -> None:
    """A training that is resumed, or run again elsewhere, drops what it dropped before."""
    few = uniform_bits(DropoutKey(5, torch.tensor([0, 3])), 2, torch.Size((2, 3, 4)))
    assert few.flatten().tolist()[:6] == [10497323, 1826543, 12433672, 13023338, 11262456, 16492084]
    packed = DropoutKey(2**62 + 12345, torch.tensor([[7, 7, 9]]), torch.tensor([[0, 1, 511]]))
    assert uniform_bits(packed, 63, torch.Size((1, 3, 5))).flatten().tolist() == [
        6571923, 14785926, 13626030, 13252367, 3738942, 371470, 16767612, 13948321, 15221580,
        16105504, 9164514, 4476000, 7844123, 8695654, 1911230,
    ]  # fmt: skip
    many = uniform_bits(DropoutKey(123456789, torch.arange(8)), 11, torch.Size((8, 200, 288)))
    assert hashlib.sha256(many.numpy().astype("<i4").tobytes()).hexdigest() == (
        "d4a4c937c06a27a4baae9d95f5830518f1cd273b320a5b2869b71c2114e3612c"
    )


def test_draws_are_uniform() -> None:
    shares = torch.histc(bits().float() / 2**24, bins=16, min=0, max=1) / bits().numel()
    standard_error = (1 / 16 * 15 / 16 / bits().numel()) ** 0.5
    assert (shares - 1 / 16).abs().max() < 4 * standard_error


def test_neighbours_are_uncorrelated() -> None:
    draws = bits().double() / 2**24 - 0.5
    for one, other in (
        (draws[:, :, 1:], draws[:, :, :-1]),
        (draws[:, 1:], draws[:, :-1]),
        (draws[1:], draws[:-1]),
        (draws, bits(key=6).double() / 2**24 - 0.5),
        (draws, bits(index=1).double() / 2**24 - 0.5),
    ):
        correlation = (one * other).mean() * 12
        assert correlation.abs() < 4 / one.numel() ** 0.5


def test_a_sequences_draws_do_not_depend_on_the_others_or_on_padding() -> None:
    assert torch.equal(bits(rows=(1,))[0], bits()[1])
    longer = uniform_bits(DropoutKey(5, torch.tensor([1])), 0, torch.Size((1, 50, 64)))
    assert torch.equal(longer[:, :40], bits(rows=(1,)))


def test_what_is_kept_is_scaled_so_that_the_mean_stays() -> None:
    dropout = RowDropout(0.25, 0).train()
    x = torch.ones(8, 100, 64)
    with dropout_rng(DropoutKey(1, torch.arange(8))):
        y = dropout(x)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(4 / 3).item()}
    share = (y == 0).float().mean()
    assert (share - 0.25).abs() < 4 * (0.25 * 0.75 / y.numel()) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.05, 0.7])
def test_result_and_gradient_are_those_of_the_formula_to_the_bit(
    dtype: torch.dtype, p: float
) -> None:
    random = torch.Generator().manual_seed(0)
    # More than one block of the CPU's code, the last of them smaller.
    x, slope = (torch.randn(2, 300, 256, generator=random).to(dtype) for _ in range(2))
    x[0, :, 0] = -0.0
    key = DropoutKey(2**62 + 9, torch.tensor([4, 1]))
    keep = (uniform_bits(key, 3, x.shape) >= round(p * 2**24)).to(dtype)
    x.requires_grad_()
    with dropout_rng(key):
        y = RowDropout(p, 3).train()(x)
    y.backward(slope)
    assert x.grad is not None
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    expected = (x.detach() * keep / (1 - p), slope / (1 - p) * keep)
    for found, wanted in zip((y.detach(), x.grad), expected, strict=True):
        assert torch.equal(found.view(integers), wanted.view(integers))  # zeros keep their signs


def test_a_byte_of_each_element_is_kept_for_the_backward_pass() -> None:
    kept: list[torch.Tensor] = []
    x = torch.ones(2, 100, 64, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
        dropout_rng(DropoutKey(1, torch.arange(2))),
    ):
        RowDropout(0.5, 0).train()(x)
    assert sum(tensor.nbytes for tensor in kept) == x.numel()


def test_nothing_is_dropped_outside_training() -> None:
    x = torch.ones(2, 3, 4)
    with dropout_rng(DropoutKey(1, torch.arange(2))):
        assert torch.equal(RowDropout(0.5, 0).eval()(x), x)


def test_active_dropouts_are_replaced_and_told_apart() -> None:
    model = nn.ModuleDict(
        {
            "a": nn.Dropout(0.1),
            "b": nn.Sequential(nn.Dropout(0.2), nn.Linear(1, 1)),
            "c": nn.Dropout(0),
        }
    )
    replace_dropouts(model)
    replaced = [module for module in model.modules() if isinstance(module, RowDropout)]
    assert [(module.p, module.index) for module in replaced] == [(0.1, 0), (0.2, 1)]
    assert isinstance(model["c"], nn.Dropout)
