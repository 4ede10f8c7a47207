"""A model's next token without kept keys and values: for models that take none from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def plain_logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Returns the logits (B, V) of the token after each row.

    The rows have one length: there is no padding, which would change what virtual tokens see.
    """
    tokens_BT = torch.tensor([list(row) for row in rows], device=model.device)
    logits_BV: Tensor = model(input_ids=tokens_BT, use_cache=False, logits_to_keep=1).logits[:, -1]
    return logits_BV
