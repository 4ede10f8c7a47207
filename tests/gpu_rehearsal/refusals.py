"""What a card would refuse and fake tensors do not, with torch's own messages."""

from __future__ import annotations

from typing import Any

import torch

from tests.gpu_rehearsal.cards import CardSpec
from tests.gpu_rehearsal.counting import tensors_in

NOT_DETERMINISTIC = frozenset(
    {
        *("histc", "put_", "kthvalue", "median", "nll_loss2d_forward"),
        *("adaptive_max_pool2d", "grid_sampler_2d_backward"),
    }
)
"""Raise on CUDA in deterministic mode, beside `cumsum` of floats: the list in the documentation of
`torch.use_deterministic_algorithms`, as far as zbench may come near it."""
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")


class NotOnThisCard(RuntimeError):
    """What torch would run on this card, but so slowly that it counts as a fault."""


def refuse(spec: CardSpec, name: str, args: Any) -> None:
    """Raises where a card would.

    Raises:
        NotOnThisCard: a product in bfloat16, on a card that emulates it.
        RuntimeError: as torch raises it.
    """
    listed = name.startswith(("_foreach_", "_fused_"))
    if not (listed or name in PRODUCTS or torch.are_deterministic_algorithms_enabled()):
        return
    tensors = tensors_in(args)
    if torch.are_deterministic_algorithms_enabled():
        _refuse_in_deterministic_mode(name, tensors)
    if listed:  # of lists, fake tensors compare no devices
        fused = name.startswith("_fused_")
        if any(one.device.type == "cpu" and (one.dim() or fused) for one in tensors):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"cuda:0 and cpu! (rehearsed, in {name})"
            )
    if name in PRODUCTS:
        dtypes = {one.dtype for one in tensors}
        if len(dtypes) > 1:
            one, two = sorted(map(str, dtypes))[:2]
            raise RuntimeError(
                f"expected mat1 and mat2 to have the same dtype, but got: {one} != {two}"
            )
        if torch.bfloat16 in dtypes and spec.capability < (8, 0):
            raise NotOnThisCard(f"{name} in bfloat16: {spec.name} only emulates it")


def _refuse_in_deterministic_mode(name: str, tensors: list[Any]) -> None:
    of_floats = bool(tensors) and tensors[-1].is_floating_point()
    if name in NOT_DETERMINISTIC or (name in ("cumsum", "cumsum_") and of_floats):
        raise RuntimeError(
            f"{name}_cuda_kernel does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. (rehearsed)"
        )
