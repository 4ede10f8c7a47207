"""Tries a faster way to run a model against its plain forward pass, before it is relied on.

Masks with one row per token, restarted positions, and keys and values computed before are more than
some models take: their numbers would be others, and nothing else would look wrong.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

from torch import nn

from harness.errors import plain_message
from harness.models.devices import is_out_of_memory

_PASSED: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()
"""By model: the trials that it passed, each under an attention implementation."""


class WrongResultError(Exception):
    """A model computes something else in the faster way, or fails in it; the message says how."""


def try_once(model: Any, kind: Hashable, compare: Callable[[], None]) -> None:
    """Tries a way to run a model, unless the model has passed this trial before.

    Args:
        kind: of trial: the way, and what of its input decides whether a model can take it.
        compare: runs the model both ways; raises WrongResultError where they differ.

    Raises:
        WrongResultError: the ways differ, or the model fails in the faster one.
    """
    kind = (model.config._attn_implementation, kind)
    passed = _PASSED.setdefault(model, set())
    if kind in passed:
        return
    try:
        compare()
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as fault:
        if is_out_of_memory(fault):
            raise
        raise WrongResultError(first_line(fault)) from fault
    passed.add(kind)


def first_line(fault: Exception) -> str:
    """An exception's message up to the first line break, as a user reads it."""
    return plain_message(Exception([*str(fault).strip().splitlines(), ""][0]))


def virtual_token_refusal(model: Any) -> str | None:
    """Why a PEFT model's keys and positions cannot be shared; None if they can."""
    adapter = getattr(model, "active_peft_config", None)
    if adapter is not None and adapter.is_prompt_learning:
        return f"{adapter.peft_type.value.lower()} adds virtual tokens to every row"
    return None


def attention_window(model: Any) -> int | None:
    """Returns the tokens that the shortest attention window of a model spans; None without one.

    Within its window such a layer is like any other.
    """
    config = model.config.get_text_config()
    if getattr(config, "use_sliding_window", True) is False:
        return None
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((int(window) for window in windows if window), default=None)
