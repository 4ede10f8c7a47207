"""Keeps what is computed of weights alone, while they stay as they are.

In training a prompt's keys and values change with every step, and gradients flow through them. In
evaluation they are the same in each of thousands of passes, and at a token a pass they would be a
large part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import TypeVar

import torch

Kept = TypeVar("Kept")

_kept: ContextVar[dict[Hashable, object] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def weights_stay() -> Iterator[None]:
    """Says that no weight changes inside, so that what is computed of weights alone is kept.

    Inside of another one it shares what is kept.
    """
    token = _kept.set({} if _kept.get() is None else _kept.get())
    try:
        yield
    finally:
        _kept.reset(token)


def keep(key: Hashable, compute: Callable[[], Kept]) -> Kept:
    """What `compute` gives, computed once inside `weights_stay`; each time outside, and wherever
    gradients may flow or code is compiled.

    Args:
        key: names what is computed, and all that it depends on beside weights.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return compute()
    kept = _kept.get()
    if kept is None:
        return compute()
    if key not in kept:
        kept[key] = compute()
    return kept[key]  # type: ignore[return-value]  # a key belongs to one type
