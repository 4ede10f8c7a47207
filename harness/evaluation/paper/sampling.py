"""Chooses the next token of each response, by random numbers that belong to the response alone.

Shapes: B responses, V vocabulary, k candidates.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.evaluation.benchmark import Decoding

NUM_CANDIDATES = 64
"""Likeliest tokens that are looked at first; where they do not hold the nucleus, all are."""
NOT_A_NUMBER = -1
"""Stands for a token where the logits are not numbers."""


def random_stream(seed: int, prompt: str) -> random.Random:
    """Returns the random numbers of a prompt's response: one in [0, 1) for each of its tokens.

    They depend on nothing else, and are the same in every version of everything.
    """
    digest = hashlib.sha256(f"{seed}/{prompt}".encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))


def only_likeliest(logits_BV: Tensor, top_k: int) -> Tensor:
    """The logits of the likeliest tokens, and those as likely as the last of them; minus infinity
    in the place of others.
    """
    if top_k >= logits_BV.shape[1]:
        return logits_BV
    least_B1 = logits_BV.topk(top_k, dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)


def choose_tokens(logits_BV: Tensor, decoding: Decoding, draws: Sequence[float]) -> list[int]:
    """The next token of each row; NOT_A_NUMBER where its logits are none.

    The likeliest tokens come to the host in one copy, and are drawn from there: a device waits
    once, and torch's sums over fp64 on CUDA are not deterministic.

    `draws` has a random number in [0, 1) for each row, not used at temperature 0.
    """
    highest_B, tokens_B = logits_BV.max(dim=-1)
    if decoding.temperature > 0:
        below_BV = logits_BV.float() - highest_B.float()[:, None]
        scores_BV = below_BV / decoding.temperature
        return _sample(scores_BV, highest_B, decoding.top_p, draws)
    return tokens_B.masked_fill(highest_B.isnan(), NOT_A_NUMBER).tolist()


def _sample(
    scores_BV: Tensor, highest_B: Tensor, top_p: float, draws: Sequence[float]
) -> list[int]:
    """Returns a token of each row; scores are 0 or less, and 0 for the likeliest token."""
    vocabulary = scores_BV.shape[1]
    k = min(NUM_CANDIDATES, vocabulary)
    scores_Bk, ids_Bk = scores_BV.topk(k, dim=-1)
    totals_B1, highest_B1 = scores_BV.exp().sum(dim=-1, keepdim=True), highest_B.float()[:, None]
    if scores_BV.device.type != "cpu":
        scores_Bk, ids_Bk, totals_B1, highest_B1 = _to_host(
            scores_Bk, ids_Bk, totals_B1, highest_B1
        )
    draws_B = torch.tensor(draws, dtype=torch.float64)
    probabilities_Bk = (scores_Bk.exp() / totals_B1).double()
    tokens_B = _draw(probabilities_Bk, ids_Bk, top_p, draws_B)
    if k < vocabulary:
        # Tokens as likely as the last candidate may stand outside: they must not be needed.
        surer_Bk = scores_Bk > scores_Bk[:, -1:]
        rows = ((probabilities_Bk * surer_Bk).sum(-1) < top_p).nonzero().flatten()
        if len(rows):
            ids_RV = torch.arange(vocabulary).expand(len(rows), -1)
            scores_RV = scores_BV[rows.to(scores_BV.device)].cpu()
            probabilities_RV = (scores_RV.exp() / totals_B1[rows]).double()
            tokens_B[rows] = _draw(probabilities_RV, ids_RV, top_p, draws_B[rows])
    return tokens_B.masked_fill(highest_B1[:, 0].isnan(), NOT_A_NUMBER).tolist()


def _to_host(
    scores_Bk: Tensor, ids_Bk: Tensor, totals_B1: Tensor, highest_B1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same on the CPU, by one copy: the bits of numbers in fp32, and of ids as int32."""
    packed = torch.cat([scores_Bk, totals_B1, highest_B1, ids_Bk.int().view(torch.float32)], dim=1)
    k = scores_Bk.shape[1]
    scores_Bk, totals_B1, highest_B1, ids_Bk = packed.cpu().split([k, 1, 1, k], dim=1)
    return scores_Bk, ids_Bk.contiguous().view(torch.int32).long(), totals_B1, highest_B1


def _draw(probabilities_Bk: Tensor, ids_Bk: Tensor, top_p: float, draws_B: Tensor) -> Tensor:
    """Returns a token of the nucleus: the likeliest ones, until their probability reaches top_p.

    Of equally likely tokens the lower number comes first. The random number walks over the nucleus
    in the order of token numbers, so that two tokens whose probabilities nearly tie may change
    ranks without changing the choice.
    """
    ids_Bk, order_Bk = ids_Bk.sort(dim=-1)
    weights_Bk = probabilities_Bk.gather(-1, order_Bk)
    sorted_Bk, ranks_Bk = weights_Bk.sort(dim=-1, descending=True, stable=True)
    before_Bk = sorted_Bk.cumsum(-1) - sorted_Bk
    sorted_Bk = sorted_Bk.masked_fill(before_Bk >= top_p, 0.0)
    sorted_Bk[:, 0] = sorted_Bk[:, 0].clamp(min=torch.finfo(torch.float64).tiny)
    weights_Bk = torch.zeros_like(sorted_Bk).scatter(-1, ranks_Bk, sorted_Bk)
    reached_Bk = weights_Bk.cumsum(-1)
    # Rounding must not carry the mark to the end, beyond the last weight.
    marks_B1 = draws_B.clamp(max=1 - 2**-50)[:, None] * reached_Bk[:, -1:]
    indices_B1 = (reached_Bk <= marks_B1).sum(-1, keepdim=True)
    return ids_Bk.gather(-1, indices_B1.clamp(max=ids_Bk.shape[1] - 1)).squeeze(-1)
