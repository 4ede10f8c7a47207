"""What the host learns from the card: no number is there, so every answer is a stand-in.

A truth value is True, any other number 0. What is copied to the card and back keeps its value where
it is a single number. Where a shape depends on numbers, it is the largest possible one.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from tests.gpu_rehearsal.counting import op_name

if TYPE_CHECKING:
    from tests.gpu_rehearsal.card import Card

LARGE_HOST_COPY = 48 * 2**20
"""A copy to the host of more bytes stays fake: a 7B model's would fill this machine's memory."""
BY_NUMBERS = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive")
"""Operations whose result's shape depends on numbers."""


class StandIns:
    """Answers the operations that read numbers, and counts their waits."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._known: dict[int, tuple[Any, Any]] = {}

    def answer(self, func: Any, args: Any, kwargs: Any, site: str) -> tuple[bool, Any]:
        """Whether the operation is one of those, and what it gives."""
        name = op_name(func)
        if name == "_local_scalar_dense":
            self._card.counts.sync(site)
            return True, self._value(args[0], args[0].dtype)
        if name in ("_to_copy", "copy_"):
            return self._copy(func, name, args, kwargs, site)
        if name in BY_NUMBERS:
            self._card.counts.sync(site)
            return True, self._largest(name, args[0])
        if name in ("equal", "is_nonzero"):
            self._card.counts.sync(site)
            return True, True
        return False, None

    def without_masks(self, name: str, args: Any, site: str) -> Any:
        """The arguments with masks in an index replaced by as many places as they may have."""
        if name not in ("index", "index_put_", "index_put", "_unsafe_index"):
            return args
        indices: list[Any] = []
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self._card.counts.sync(site)
                indices += [self._card.empty((index.numel(),), torch.int64)] * index.dim()
            else:
                indices.append(index)
        return (args[0], indices, *args[2:])

    def _copy(self, func: Any, name: str, args: Any, kwargs: Any, site: str) -> tuple[bool, Any]:
        source = args[0] if name == "_to_copy" else args[1]
        target = kwargs.get("device") if name == "_to_copy" else args[0].device
        target = source.device if target is None else torch.device(target)
        if source.device.type == "cpu" and target.type == "cuda":
            waits = not (
                kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            )
            kind = "host to card, blocking" if waits else "host to card"
            self._card.counts.ops_by_name[kind] += 1
            if name == "copy_":
                return False, None
            with self._card.fake:
                result = func(*args, **kwargs)
            self._remember(source, result)
            return True, result
        if source.device.type != "cuda" or target.type != "cpu":
            return False, None
        self._card.counts.sync(site)
        if source.numel() * source.element_size() > LARGE_HOST_COPY:
            with self._card.fake:
                return True, func(*args, **kwargs)
        if name == "copy_":
            return True, args[0].fill_(_stand_in(args[0].dtype))
        dtype = kwargs.get("dtype") or source.dtype
        return True, torch.full(source.shape, self._value(source, dtype), dtype=dtype)

    def known(self, tensor: Any) -> Any:
        """The numbers of a tensor that was copied to the card: see `_remember`."""
        reference, value = self._known[id(tensor)]
        assert reference() is tensor
        return value

    def _remember(self, source: Any, result: Any) -> None:
        """Keeps single numbers, and int32 vectors: the bounds of documents."""
        if isinstance(source, FakeTensor):
            return
        if source.numel() == 1:
            self._known[id(result)] = (weakref.ref(result), source.item())
        elif source.dtype == torch.int32 and source.dim() == 1:
            self._known[id(result)] = (weakref.ref(result), source.tolist())

    def _value(self, tensor: Any, dtype: torch.dtype) -> Any:
        reference, value = self._known.get(id(tensor), (None, None))
        if reference is None or reference() is not tensor or isinstance(value, list):
            return _stand_in(dtype)
        return value

    def _largest(self, name: str, tensor: Any) -> Any:
        count, empty = tensor.numel(), self._card.empty
        if name == "nonzero":
            return empty((count, tensor.dim()), torch.int64)
        if name == "masked_select":
            return empty((count,), tensor.dtype)
        return (
            empty((count,), tensor.dtype),
            empty((count,), torch.int64),
            empty((count,), torch.int64),
        )


def _stand_in(dtype: torch.dtype) -> Any:
    return True if dtype == torch.bool else 0.0 if dtype.is_floating_point else 0
