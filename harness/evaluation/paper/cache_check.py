"""Decides whether a model can generate in a pool, by trying it against its plain forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.evaluation.memory import halve_until_it_fits
from harness.evaluation.paper.pool import Pool, common_prefix, compute_prefix, prefill_prompts
from harness.evaluation.trial import (
    WrongResultError,
    attention_window,
    try_once,
    virtual_token_refusal,
)
from harness.models.positions import pass_dependence

NUM_STEPS = 3
"""Tokens behind the prompts at which both ways are compared."""
MAX_ERROR = 1e-3
"""Largest difference of a log-probability in fp32, in nats; a wrong mask gives far more."""
MAX_ERROR_IN_HALF = 0.3
"""The same in half precision."""


def reason_against_cache(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    autocast_dtype: torch.dtype | None,
    *,
    max_new_tokens: int = 0,
) -> str | None:
    """Why a model is to generate without kept keys and values; None where it may keep them.

    It is in evaluation mode, under the precision it is to run in: `autocast_dtype`, or its own
    dtype. The longest and the shortest of the prompts are tried; where memory runs out, one.

    Args:
        max_new_tokens: what may follow each prompt.

    Raises:
        EvaluationError: the memory is too small for one prompt.
    """
    if reason := virtual_token_refusal(model):
        return reason
    dependence, longest = pass_dependence(model), max(map(len, prompts)) + max_new_tokens
    if dependence is not None and longest > dependence.span:
        kinds = ", ".join(dependence.types)
        return f"its rotary frequencies ({kinds}) change beyond {dependence.span} tokens"
    half = (autocast_dtype or model.dtype) != torch.float32
    limit = MAX_ERROR_IN_HALF if half else MAX_ERROR
    ordered, window = sorted(prompts, key=len), attention_window(model)
    beyond_window = window is not None and len(ordered[-1]) >= window

    def compare(num_prompts: int) -> None:
        kind = ("pool", autocast_dtype, beyond_window, num_prompts)
        chosen = [ordered[0], ordered[-1]][:num_prompts]
        try_once(model, kind, lambda: _compare(model, chosen, limit))

    try:
        halve_until_it_fits(
            compare, 2, device=str(model.device), unit="prompts", one="try one prompt"
        )
    except WrongResultError as fault:
        return str(fault)
    return None


def _compare(model: Any, prompts: list[tuple[int, ...]], limit: float) -> None:
    prefix = compute_prefix(model, common_prefix(prompts))
    prefilled = prefill_prompts(model, prompts, prefix)
    rows, logits_BV, pool = [list(prompt) for prompt in prompts], prefilled.logits_BV, Pool(model)
    pool.arrange([], [(prefilled, range(len(rows)))])
    for _ in range(NUM_STEPS):
        expected_BV = torch.cat([plain_logits(model, [row]) for row in rows])
        error = _difference(logits_BV, expected_BV)
        if error > limit:  # what is not a number is reported as such, later
            raise WrongResultError(
                f"kept keys and values move a log-probability by {error:.1e} nats with this model"
            )
        tokens = expected_BV.argmax(-1).tolist()
        logits_BV = pool.step(tokens)
        for row, token in zip(rows, tokens, strict=True):
            row.append(token)


def _difference(found_BV: Tensor, expected_BV: Tensor) -> float:
    """The largest difference of the likeliest tokens' log-probabilities, in nats."""
    expected_BV, found_BV = (logits.float().log_softmax(-1) for logits in (expected_BV, found_BV))
    best_B1 = expected_BV.argmax(-1, keepdim=True)
    return float((found_BV.gather(-1, best_B1) - expected_BV.gather(-1, best_B1)).abs().max())


@torch.no_grad()
def plain_logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """The logits (B, V) of the token after each row.

    The rows have one length: there is no padding, which would change what virtual tokens see.
    """
    tokens_BT = torch.tensor([list(row) for row in rows], device=model.device)
    logits_BV: Tensor = model(input_ids=tokens_BT, use_cache=False, logits_to_keep=1).logits[:, -1]
    return logits_BV
