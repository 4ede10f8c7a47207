"""Decides whether a model can generate in a pool, by trying it against its plain forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.evaluation.memory import halve_until_it_fits
from harness.evaluation.paper.pool import (
    Pool,
    Prefix,
    common_prefix,
    compute_prefix,
    prefill_prompts,
)
from harness.evaluation.prefix_trie.forward import PicturesOf, no_pictures
from harness.evaluation.trial import (
    WrongResultError,
    attention_window,
    try_once,
    virtual_token_refusal,
)
from harness.models.pictures import PassPictures, using_pictures
from harness.models.positions import pass_dependence

NUM_STEPS = 3
"""Tokens behind the prompts at which both ways are compared."""
MAX_ERROR = 1e-3
"""Largest difference of a log-probability in fp32, in nats; a wrong mask gives far more."""
MAX_ERROR_IN_HALF = 0.3
"""The same in half precision."""

_Shown = tuple[tuple[int, ...], str | None]
"""A prompt, and its picture."""


def reason_against_cache(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    autocast_dtype: torch.dtype | None,
    *,
    max_new_tokens: int = 0,
    pictures: Sequence[str | None] | None = None,
    pictures_of: PicturesOf = no_pictures,
) -> str | None:
    """Why a model is to generate without kept keys and values; None where it may keep them.

    It is in evaluation mode, under the precision it is to run in: `autocast_dtype`, or its own
    dtype. The longest and the shortest of the prompts are tried; where memory runs out, one. Those
    with a picture are tried besides.

    Args:
        max_new_tokens: what may follow each prompt.
        pictures: each prompt's; None where none has any.
        pictures_of: the pictures of a pass.

    Raises:
        EvaluationError: the memory is too small for one prompt.
    """
    if reason := virtual_token_refusal(model):
        return reason
    dependence, longest = pass_dependence(model), max(map(len, prompts)) + max_new_tokens
    if dependence is not None and longest > dependence.span:
        kinds = ", ".join(dependence.types)
        return f"its rotary frequencies ({kinds}) change beyond {dependence.span} tokens"
    of_prompts = [None] * len(prompts) if pictures is None else pictures
    shown = sorted(zip(prompts, of_prompts, strict=True), key=lambda one: len(one[0]))
    for pictured in (False, True):
        chosen = [one for one in shown if (one[1] is not None) == pictured]
        if chosen and (reason := _try(model, chosen, autocast_dtype, pictures_of)):
            return reason
    return None


def _try(
    model: Any,
    ordered: Sequence[_Shown],
    autocast_dtype: torch.dtype | None,
    pictures_of: PicturesOf,
) -> str | None:
    """Why a model cannot keep keys and values behind prompts, which come by length."""
    half = (autocast_dtype or model.dtype) != torch.float32
    limit = MAX_ERROR_IN_HALF if half else MAX_ERROR
    window, pictured = attention_window(model), ordered[0][1] is not None
    beyond_window = window is not None and len(ordered[-1][0]) >= window

    def compare(num_prompts: int) -> None:
        kind = ("pool", autocast_dtype, beyond_window, num_prompts, pictured)
        chosen = [ordered[0], ordered[-1]][:num_prompts]
        try_once(model, kind, lambda: _compare(model, chosen, limit, pictures_of))

    try:
        halve_until_it_fits(
            compare, 2, device=str(model.device), unit="prompts", one="try one prompt"
        )
    except WrongResultError as fault:
        return str(fault)
    return None


def _compare(
    model: Any,
    shown: Sequence[_Shown],
    limit: float,
    pictures_of: PicturesOf,
) -> None:
    prompts, pictures = [tokens for tokens, _ in shown], [picture for _, picture in shown]
    prefix = Prefix((), [])
    if len(set(pictures)) == 1:
        prefix = compute_prefix(model, common_prefix(prompts), pictures_of(pictures[:1]))
    prefilled = prefill_prompts(model, prompts, prefix, pictures, pictures_of)
    rows, logits_BV = [list(prompt) for prompt in prompts], prefilled.logits_BV
    pool = Pool(model, pictures_of)
    pool.arrange([], [(prefilled, range(len(rows)))])
    for _ in range(NUM_STEPS):
        alone = zip(rows, pictures, strict=True)
        expected_BV = torch.cat(
            [plain_logits(model, [row], pictures_of([picture])) for row, picture in alone]
        )
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
def plain_logits(
    model: Any, rows: Sequence[Sequence[int]], pictures: PassPictures | None = None
) -> Tensor:
    """The logits (B, V) of the token after each row.

    The rows have one length: there is no padding, which would change what virtual tokens see.
    """
    tokens_BT = torch.tensor([list(row) for row in rows], device=model.device)
    with using_pictures(pictures):
        found = model(input_ids=tokens_BT, use_cache=False, logits_to_keep=1)
    logits_BV: Tensor = found.logits[:, -1]
    return logits_BV
