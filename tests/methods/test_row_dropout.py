"""Dropout's random bits: uniform, independent, and a sequence's own in any micro-batch."""

from __future__ import annotations

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
