"""What both protocols' model classes share: lm-eval's `HFLM` over a model object."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Batching:
    """How requests were run together; in half precision it moves the low bits of scores."""

    setting: int
    """Tokens of a forward pass, padding included; or responses side by side."""
    effective: int
    """What fitted in memory: the setting, or less where it was halved."""
    fallback: str | None = None
    """Why requests were run the plain way; None where none were."""


class ModelObject(HFLM):
    """A causal language model on its device, with its tokenizer.

    Args:
        autocast_dtype: torch's name of what the model computes in; None for its own dtype.
        batch_setting: see `Batching`.
        on_progress: called with (requests done, requests in all).

    Attributes:
        truncated: number of requests that lost their beginning to the model's length, by task.
        batching: how the requests so far were run.
    """

    unit: str
    """Of the batch setting."""
    plainly: str
    """How the plain way is called in a note."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        autocast_dtype: str | None,
        batch_setting: int,
        on_progress: OnProgress | None,
        **hflm: Any,
    ) -> None:
        super().__init__(
            pretrained=model, tokenizer=tokenizer, mixed_precision_dtype=autocast_dtype, **hflm
        )
        self.truncated: Counter[str] = Counter()
        self.batching = Batching(batch_setting, batch_setting)
        self._on_progress = on_progress
        self._num_done = 0

    @property
    def room(self) -> str:
        """What requests that lost their beginning are longer than."""
        return f"the model's {self.max_length} positions"

    def count_done(self, num_requests: int) -> None:
        """Tells of one more request that is done, of so many in all."""
        self._num_done += 1
        if self._on_progress is not None:
            self._on_progress(self._num_done, num_requests)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context of a forward pass."""
        return torch.autocast(
            device_type=self.device.type,
            dtype=self.mixed_precision_dtype,
            enabled=self.mixed_precision_dtype is not None,
        )
