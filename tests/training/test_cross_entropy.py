"""The chunked cross-entropy, against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from harness.training import cross_entropy as module
from harness.training.cross_entropy import summed_cross_entropy
from tests.fixtures.tiny import relative_distance

NUM_LABELS, SIZE, VOCABULARY = 37, 8, 50


def subject(*, bias: bool = False) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    head = nn.Linear(SIZE, VOCABULARY, bias=bias)
    hidden = (4 * torch.randn(NUM_LABELS, SIZE)).requires_grad_()
    return head, hidden, torch.randint(0, VOCABULARY, (NUM_LABELS,))


def torchs(
    head: nn.Module, hidden: torch.Tensor, labels: torch.Tensor, cap: float | None
) -> torch.Tensor:
    logits = head(hidden)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return functional.cross_entropy(logits.float(), labels, reduction="sum")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_loss_and_gradients_are_torchs_own(
    monkeypatch: pytest.MonkeyPatch, rows: int, cap: float | None, bias: bool
) -> None:
    monkeypatch.setitem(module.CHUNK_LOGITS, "cpu", rows * VOCABULARY)
    head, hidden, labels = subject(bias=bias)
    inputs = [hidden, *head.parameters()]
    expected = torchs(head, hidden, labels, cap)
    found = summed_cross_entropy(head, hidden, labels, soft_cap=cap)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    pairs = zip(
        torch.autograd.grad(found / 3, inputs),
        torch.autograd.grad(expected / 3, inputs),
        strict=True,
    )
    for own, torchs_own in pairs:
        assert relative_distance(own, torchs_own) < 1e-5


def test_logits_so_large_that_their_exponentials_overflow() -> None:
    head, hidden, labels = subject()
    hidden = hidden.detach() * 1e4
    found = summed_cross_entropy(head, hidden, labels, soft_cap=None)
    assert torch.isfinite(found)
    assert found.item() == pytest.approx(torchs(head, hidden, labels, None).item(), rel=1e-6)


def test_a_frozen_head_gets_no_gradient() -> None:
    head, hidden, labels = subject()
    head.requires_grad_(False)
    summed_cross_entropy(head, hidden, labels, soft_cap=None).backward()
    assert head.weight.grad is None
    assert hidden.grad is not None


def test_under_autocast_the_head_multiplies_in_bf16_and_the_softmax_is_fp32() -> None:
    head, hidden, labels = subject()
    exact = summed_cross_entropy(head, hidden, labels, soft_cap=None)
    with torch.autocast("cpu", torch.bfloat16):
        found = summed_cross_entropy(head, hidden, labels, soft_cap=None)
        expected = torchs(head, hidden, labels, None)
    assert found.dtype == torch.float32
    assert found.item() != exact.item()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    inputs = [hidden, head.weight]
    pairs = zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    )
    for own, torchs_own in pairs:
        assert own.dtype == torchs_own.dtype
        assert relative_distance(own, torchs_own) < 1e-2


def test_few_logits_exist_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.CHUNK_LOGITS, "cpu", 5 * VOCABULARY)
    head, hidden, labels = subject()
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as profile:
        summed_cross_entropy(head, hidden, labels, soft_cap=None).backward()
    shapes = [shape for event in profile.events() for shape in event.input_shapes]
    rows = {shape[0] for shape in shapes if len(shape) == 2 and shape[1] == VOCABULARY}
    assert rows - {SIZE} == {NUM_LABELS % 5, 5}  # of SIZE rows is the head itself, transposed


def test_another_kind_of_head_is_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    _, hidden, labels = subject()
    head = Doubled(SIZE, VOCABULARY)
    found = summed_cross_entropy(head, hidden, labels, soft_cap=None)
    assert found.item() == pytest.approx(torchs(head, hidden, labels, None).item(), rel=1e-6)


def test_rows_taken_through_the_softmax_together_change_no_bit() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2 * module.ROWS + 5, 1000, generator=random)
    labels = torch.randint(1000, (len(logits), 1), generator=random)
    shifted = logits - logits.amax(dim=1, keepdim=True)
    sums = shifted.exp().sum(dim=1, keepdim=True)
    gradient = (shifted.exp() / sums).scatter_add(1, labels, torch.full(labels.shape, -1.0))
    loss = (sums.log() - shifted.gather(1, labels)).sum()
    own = logits.clone()
    assert torch.equal(module._losses(own, labels, gradient=True), loss)
    assert torch.equal(own, gradient)
