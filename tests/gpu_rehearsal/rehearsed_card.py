"""Laws of the card itself; `test_card.py` runs them in a process where it comes before torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from harness.models.grouped_heads import attend
from tests.gpu_rehearsal.attention import choose_kernel
from tests.gpu_rehearsal.card import Card, rehearsal
from tests.gpu_rehearsal.cards import CARDS
from tests.gpu_rehearsal.refusals import NotOnThisCard

SDPA = torch.nn.functional.scaled_dot_product_attention


@pytest.fixture
def card() -> Iterator[Card]:
    with rehearsal("h200") as card:
        yield card


def test_labels_on_the_cpu_raise_torchs_own_error(card: Card) -> None:
    logits = torch.zeros(4, 32, device="cuda", requires_grad=True)
    with pytest.raises(RuntimeError, match=r"(?i)device"):
        torch.nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long))


def test_tensors_on_the_cpu_stay_real(card: Card) -> None:
    assert (torch.arange(4) * 2).tolist() == [0, 2, 4, 6]
    assert card.counts.ops == 0


def test_optimizer_state_on_the_cpu_raises(card: Card) -> None:
    weight = torch.nn.Parameter(torch.zeros(8, device="cuda"))
    optimizer = torch.optim.AdamW([weight], fused=True)
    weight.sum().backward()
    optimizer.step()
    optimizer.state[weight]["exp_avg"] = torch.zeros(8)
    weight.sum().backward()
    with pytest.raises(RuntimeError, match="same device"):
        optimizer.step()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.cuda.synchronize(),
    ],
    ids=["item", "cpu", "tolist", "bool", "mask", "nonzero", "unique", "synchronize"],
)
def test_what_waits_for_the_card_is_counted_once(card: Card, wait: object) -> None:
    x = torch.zeros(8, device="cuda")
    assert callable(wait)
    wait(x)
    assert card.counts.syncs == 1


def test_copies_to_the_card_and_work_on_it_wait_for_nothing(card: Card) -> None:
    x = torch.ones(8, 8).to("cuda", non_blocking=True)
    (x @ x).softmax(-1)
    assert card.counts.syncs == 0


def test_products_are_counted_in_flops_and_other_launches_in_bytes(card: Card) -> None:
    x = torch.empty(64, 32, device="cuda")
    y = torch.empty(32, 16, device="cuda")
    card.reset()
    x @ y
    assert (card.counts.ops, card.counts.launches) == (1, 1)
    assert (card.counts.flops, card.counts.bytes_moved) == (2 * 64 * 32 * 16, 0)
    card.reset()
    x + 1
    assert (card.counts.launches, card.counts.bytes_moved) == (1, 2 * 64 * 32 * 4)
    card.reset()
    x.t().view(-1, 64)
    assert (card.counts.ops, card.counts.launches) == (2, 0)


def test_memory_is_freed_with_the_last_tensor_that_shows_it(card: Card) -> None:
    x = torch.empty(1024, device="cuda")
    part = x[:1]
    assert card.live == 4096
    del x
    gc.collect()
    assert card.live == 4096
    del part
    gc.collect()
    assert (card.live, card.peak) == (0, 4096)


def test_memory_is_rounded_up_to_the_allocators_blocks(card: Card) -> None:
    x = torch.empty(1, device="cuda")
    assert x.numel() == 1
    assert card.live == 512


def test_above_the_limit_memory_is_out() -> None:
    with rehearsal("h200", limit_bytes=5000) as card:
        kept = torch.empty(1024, device="cuda")
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            torch.empty(1024, device="cuda")
        assert card.live == kept.numel() * 4


def test_deterministic_mode_refuses_what_torch_lists(card: Card) -> None:
    x = torch.zeros(8, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        x.long().cumsum(0)
        with pytest.raises(RuntimeError, match="deterministic"):
            x.cumsum(0)
    finally:
        torch.use_deterministic_algorithms(False)


def test_unlike_dtypes_do_not_multiply(card: Card) -> None:
    x = torch.zeros(4, 4, device="cuda")
    with pytest.raises(RuntimeError, match="dtype"):
        x @ x.half()


def test_an_old_card_has_no_bfloat16() -> None:
    with rehearsal("v100-32"):
        assert not torch.cuda.is_bf16_supported(including_emulation=False)
        x = torch.zeros(4, 4, device="cuda", dtype=torch.bfloat16)
        with pytest.raises(NotOnThisCard, match="V100"):
            x @ x


def heads(queries: int = 8, keys: int = 8, *, kv_heads: int = 4, dtype: str = "bfloat16") -> tuple:
    kind = getattr(torch, dtype)
    query = torch.empty(2, 4, queries, 64, dtype=kind, device="meta")
    key = torch.empty(2, kv_heads, keys, 64, dtype=kind, device="meta")
    return query, key, key


MASK = torch.empty(2, 1, 8, 8, dtype=torch.bool, device="meta")


@pytest.mark.parametrize(
    ("name", "tensors", "mask", "causal", "kernel"),
    [
        ("h200", heads(), None, True, "flash"),
        ("a100-80", heads(dtype="float16"), None, False, "flash"),
        ("h200", heads(), MASK, False, "efficient"),
        ("h200", heads(dtype="float32"), None, True, "efficient"),
        ("v100-32", heads(dtype="float16"), None, True, "efficient"),
        ("v100-32", heads(), None, True, "math"),
        ("h200", heads(queries=4), None, True, "math"),
        ("h200", heads(kv_heads=2), None, True, "flash"),
        ("a100-80", heads(kv_heads=2, dtype="float32"), None, True, "math"),
    ],
)
def test_the_attention_kernel_follows_torchs_rule(
    name: str, tensors: tuple, mask: torch.Tensor | None, causal: bool, kernel: str
) -> None:
    assert choose_kernel(CARDS[name], *tensors, mask, causal) == kernel


@pytest.mark.parametrize(
    ("name", "dtype", "kernel"),
    [
        ("a100-80", torch.float32, "efficient float32"),
        ("v100-32", torch.float16, "efficient float16"),
        ("a100-80", torch.bfloat16, "flash bfloat16"),
    ],
)
def test_grouped_heads_never_take_the_math_kernel(
    name: str, dtype: torch.dtype, kernel: str
) -> None:
    layer = SimpleNamespace(num_key_value_groups=4, is_causal=True)
    with rehearsal(name) as card:
        query = torch.zeros(2, 8, 16, 64, device="cuda", dtype=dtype)
        key = torch.zeros(2, 2, 16, 64, device="cuda", dtype=dtype)
        output, _ = attend(layer, query, key, key, None)
        assert output.shape == (2, 16, 8, 64)
        assert card.counts.attention_kernels == [kernel]


def test_attention_obeys_autocast_as_torchs_function_does(card: Card) -> None:
    query = torch.zeros(1, 2, 8, 64, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert SDPA is not torch.nn.functional.scaled_dot_product_attention
        output = torch.nn.functional.scaled_dot_product_attention(query, query, query)
    assert output.dtype == torch.bfloat16
    assert card.counts.attention_kernels == ["flash bfloat16"]


def test_everything_is_put_back() -> None:
    with rehearsal("h200"):
        assert torch.cuda.get_device_name() == "NVIDIA H200"
    assert torch.nn.functional.scaled_dot_product_attention is SDPA
    assert not torch.cuda.is_available()
