"""Dropout's kernel for CUDA: under Triton's interpreter, through its compiler, and without it."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from harness.methods import dropout_kernel
from harness.methods.dropout_bits import DropoutKey, drop, mask_of
from harness.methods.row_dropout import RowDropout, dropout_rng

KERNEL = "harness.methods.dropout_triton"
PACKED = DropoutKey(2**62 + 99, torch.tensor([[7, 7, 9] * 7]), torch.arange(21)[None] % 5)
ROWS = DropoutKey(5, torch.tensor([3, 0]))


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Forgets the kernel, which Triton makes for its interpreter or its compiler when imported."""
    pytest.importorskip("triton", reason="Triton, which torch's CUDA builds bring, is not here")
    monkeypatch.delitem(sys.modules, KERNEL, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return monkeypatch


@pytest.mark.parametrize("dtype", dropout_kernel.DTYPES)
@pytest.mark.parametrize("key", [PACKED, ROWS], ids=["packed", "rows"])
def test_kernel_gives_the_bits_of_torch(
    afresh: pytest.MonkeyPatch, dtype: torch.dtype, key: DropoutKey
) -> None:
    afresh.setenv("TRITON_INTERPRET", "1")
    random = torch.Generator().manual_seed(0)
    # Neither side is a multiple of the kernel's blocks.
    x = torch.randn(1 if key is PACKED else 2, 21, 300, generator=random).to(dtype)
    for p in (0.05, 0.9):
        mask = mask_of(key, 17, p)
        found, (expected, keep) = dropout_kernel.launch(x, mask), drop(x, mask)
        if dtype == torch.bfloat16:
            # The interpreter, unlike a GPU, rounds to bf16 towards zero.
            exact = (x * keep).float() / (1 - p)
            expected = (exact.view(torch.int32) & -(2**16)).view(torch.float32).to(dtype)
        integers = torch.int32 if dtype == torch.float32 else torch.int16
        assert torch.equal(found.view(integers), expected.view(integers))


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize(("capability", "dtype"), [(70, "fp16"), (80, "bf16"), (90, "fp32")])
def test_kernel_compiles_and_divides_as_ieee(capability: int, dtype: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from harness.methods.dropout_triton import kernel

    names = ("rows", "tokens_N", "num_tokens", "length", "features", "seed", "threshold", "kept")
    types = ("*i64", "*i64", "i32", "i32", "i32", "i64", "i32", "fp32")
    signature = {"x_ND": f"*{dtype}", "out_ND": f"*{dtype}", **dict(zip(names, types, strict=True))}
    sizes = {"SIZE": dropout_kernel.BLOCK_TOKENS, "WIDTH": dropout_kernel.BLOCK_FEATURES}
    source = ASTSource(kernel, signature | dict.fromkeys(sizes, "constexpr"), constexprs=sizes)
    built = compile(source, target=GPUTarget("cuda", capability, 32))
    assert len(built.asm["cubin"]) > 0
    assert "div.rn.f32" in built.asm["ptx"]
    assert "div.full" not in built.asm["ptx"]


def test_what_the_kernel_cannot_do_torch_does_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dropout_kernel, "_faults", [])
    monkeypatch.setitem(sys.modules, KERNEL, None)  # its import fails
    x, mask = torch.ones(1, 21, 64), mask_of(PACKED, 0, 0.5)
    with caplog.at_level(logging.WARNING):
        results = [dropout_kernel.run(x, *mask) for _ in range(2)]
    assert all(torch.equal(result, drop(x, mask)[0]) for result in results)
    assert [record.message[:42] for record in caplog.records] == [
        "dropout runs without its kernel, more slow"
    ]


def test_a_kernel_that_fails_in_a_layer_that_is_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dropout_kernel, "_faults", [])
    monkeypatch.setitem(sys.modules, KERNEL, None)  # its import fails
    monkeypatch.setattr(dropout_kernel, "fits", lambda x: not dropout_kernel._faults)
    monkeypatch.setattr(dropout_kernel, "row_dropout", dropout_kernel.run)
    layer = torch.nn.Sequential(RowDropout(0.5, 0), torch.nn.Sigmoid()).train()
    found = []
    for again in (True, False):
        x = torch.ones(1, 21, 64, requires_grad=True)
        with dropout_rng(PACKED):
            y = checkpoint(layer, x, use_reentrant=False) if again else layer(x)
            y.sum().backward()
        found.append((y.detach(), x.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert dropout_kernel._faults


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_drops_what_a_cpu_drops() -> None:
    random = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(1, 21, 300, generator=random).to(dtype)
        found = []
        for device in ("cpu", "cuda"):
            assert PACKED.tokens is not None
            key = DropoutKey(PACKED.key, PACKED.rows.to(device), PACKED.tokens.to(device))
            own = x.to(device).requires_grad_()
            with dropout_rng(key):
                y = RowDropout(0.05, 17).train()(own)
            y.backward(torch.ones_like(y))
            assert own.grad is not None
            found.append((y.detach().cpu(), own.grad.cpu()))
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
        assert not dropout_kernel._faults
