"""What ran on the card: operations, launches, waits, floating-point operations and traffic."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import flop_registry

NO_LAUNCH = frozenset(
    {
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"),
        *("alias", "lift_fresh", "_local_scalar_dense", "is_same_size", "sym_size", "sym_stride"),
        *("set_", "resize_", "_fused_sdp_choice", "_has_same_storage_numel", "wait_tensor"),
        *("_unsafe_view", "record_stream"),
    }
)
"""Operations that run nothing, beside views: metadata, or memory that nobody writes."""

SEVERAL_LAUNCHES = {
    # The dot product of dO and O, the kernel, the conversion of dQ.
    "_scaled_dot_product_flash_attention_backward": 3,
    "_scaled_dot_product_efficient_attention_backward": 3,
    "_flash_attention_backward": 3,
    "_efficient_attention_backward": 3,
    "_varlen_attn_backward": 3,
    "_varlen_attn": 2,  # the kernel, and zeros in the place of a generator's state
    **dict.fromkeys(("sort", "topk", "nonzero", "_unique2"), 4),
    **dict.fromkeys(("embedding_dense_backward", "index_put_"), 4),
}

TENSORS_PER_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Tensors that one launch of a multi-tensor kernel takes, by the number of lists, and
`CHUNKS_PER_LAUNCH`: aten/src/ATen/native/cuda/MultiTensorApply.cuh."""
CHUNKS_PER_LAUNCH, CHUNK = 320, 65_536

PLACES = ("/harness/", "/transformers/", "/peft/", "/optim/")
"""Code that a call site is named in: zbench, transformers, PEFT, torch's optimizers."""


class AttentionCall(NamedTuple):
    """One call of `scaled_dot_product_attention`, or of the kernel with variable lengths."""

    kernel: str
    """flash, efficient, math or varlen."""
    query_shape: tuple[int, ...]
    num_keys: int
    dtype: str
    causal: bool
    mask: tuple[Any, str] | str | None
    """Shape and dtype of the mask; None without one; of `varlen` the number of documents."""


@dataclass
class Counts:
    """What ran on the card since it was reset."""

    ops: int = 0
    """Operations dispatched, views included: each costs CPU time."""
    launches: int = 0
    """Kernels started, estimated: operations that compute or copy."""
    syncs: int = 0
    """Times that the host would wait for the card."""
    flops: float = 0.0
    """Of matrix products and attention, by torch's own formulas."""
    bytes_moved: float = 0.0
    """Read and written by launches that multiply nothing: what the memory's bandwidth limits."""
    ops_by_name: Counter[str] = field(default_factory=Counter)
    bytes_by_name: Counter[str] = field(default_factory=Counter)
    ops_by_site: Counter[str] = field(default_factory=Counter)
    launches_by_site: Counter[str] = field(default_factory=Counter)
    bytes_by_site: Counter[str] = field(default_factory=Counter)
    syncs_by_site: Counter[str] = field(default_factory=Counter)
    attention: Counter[AttentionCall] = field(default_factory=Counter)

    @property
    def attention_kernels(self) -> list[str]:
        """The attention kernels that ran, each with its dtype: `flash bfloat16`."""
        return sorted({f"{call.kernel} {call.dtype}" for call in self.attention})

    def sync(self, site: str) -> None:
        """Counts a wait."""
        self.syncs += 1
        self.syncs_by_site[site] += 1

    def begin(self, name: str, site: str) -> None:
        """Counts an operation."""
        self.ops += 1
        self.ops_by_name[name] += 1
        self.ops_by_site[site] += 1

    def end(
        self,
        func: Any,
        args: Any,
        kwargs: dict[str, Any],
        result: Any,
        site: str,
        flops: float | None = None,
    ) -> None:
        """Counts an operation's launches, and its products or else its traffic.

        Args:
            flops: of the operation, where torch has no formula for it.
        """
        launches = num_launches(func, args)
        self.launches += launches
        self.launches_by_site[site] += launches
        formula = flop_registry.get(func._overloadpacket)
        if flops is not None:
            self.flops += flops
        elif formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        elif launches:
            tensors = tensors_in((args, kwargs, result))
            moved = sum(one.numel() * one.element_size() for one in tensors)
            self.bytes_moved += moved
            self.bytes_by_name[op_name(func)] += moved
            self.bytes_by_site[site] += moved

    def update(self, other: Counts) -> None:
        """Adds what another has counted."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


def tensors_in(values: Any) -> list[Any]:
    """The tensors in nested tuples, lists and dictionaries, three times faster than pytree."""
    found, left = [], [values]
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(value.values())
    return found


@functools.cache
def op_name(func: Any) -> str:
    """An operation's name without namespace and overload: `mm`."""
    return str(func._schema.name).split("::")[-1]


def num_launches(func: Any, args: Any) -> int:
    """Kernels that an operation starts; an estimate, as one operation may start several."""
    name = op_name(func)
    if name in NO_LAUNCH or func.is_view:
        return 0
    if name.startswith(("_foreach_", "_fused_ad", "_fused_sgd")):
        lists = [one for one in args if isinstance(one, (list, tuple)) and one]
        lists = [one for one in lists if isinstance(one[0], torch.Tensor)]
        if not lists:
            return 1
        chunks = sum(-(-tensor.numel() // CHUNK) for tensor in lists[0])
        per_launch = TENSORS_PER_LAUNCH[min(5, len(lists))]
        return max(-(-len(lists[0]) // per_launch), -(-chunks // CHUNKS_PER_LAUNCH))
    return SEVERAL_LAUNCHES.get(name, 1)


def call_site() -> str:
    """The nearest line of `PLACES` that the current operation comes from.

    Operations of the backward pass are named by the autograd node that runs them, or by the line of
    a `backward` written in Python.
    """
    node = torch._C._current_autograd_node()
    frame = sys._getframe(1)
    found = None
    while frame is not None:
        path = frame.f_code.co_filename
        if any(place in path for place in PLACES):
            short = path.split("site-packages/")[-1]
            short = short[short.find("harness/") :] if "/harness/" in path else short
            found = f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
            break
        frame = frame.f_back
    if node is not None:
        return f"backward: {found if found and 'backward' in found else node.name()}"
    return found or "elsewhere"
