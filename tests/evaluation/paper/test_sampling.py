"""The next token: drawn from the nucleus, by the response's own random numbers."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch

from harness.evaluation.benchmark import Decoding
from harness.evaluation.paper import sampling
from harness.evaluation.paper.sampling import NOT_A_NUMBER, choose_tokens, random_stream


def decoding(temperature: float = 0.1, top_p: float = 0.75) -> Decoding:
    return Decoding(temperature=temperature, top_p=top_p, max_new_tokens=8, seed=1)


def nucleus(logits: np.ndarray, temperature: float, top_p: float) -> dict[int, float]:
    """The definition, one row, in double precision: token -> probability."""
    weights = np.exp((logits - logits.max()) / temperature)
    weights /= weights.sum()
    kept: dict[int, float] = {}
    for token in sorted(range(len(weights)), key=lambda token: (-weights[token], token)):
        if sum(kept.values()) >= top_p:
            break
        kept[token] = weights[token]
    total = sum(kept.values())
    return {token: weight / total for token, weight in kept.items()}


@pytest.mark.parametrize("size", [40, 300])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.1, 0.75), (1.0, 0.75), (2.0, 0.99)])
def test_draws_follow_the_nucleus(size: int, temperature: float, top_p: float) -> None:
    """Of 300 tokens at temperature 2 the 64 likeliest do not hold it: the slow way is taken."""
    torch.manual_seed(size)
    logits = torch.randn(size)
    expected = nucleus(logits.double().numpy(), temperature, top_p)
    draws = (np.arange(4000) + 0.5) / 4000
    chosen = choose_tokens(logits.expand(4000, -1), decoding(temperature, top_p), list(draws))
    counts = Counter(chosen)
    assert set(counts) <= set(expected)
    for token, probability in expected.items():
        assert counts[token] == pytest.approx(4000 * probability, abs=1.01)


def test_both_ways_draw_the_same_token(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, draws = torch.randn(200, 500), [random.Random(5).random() for _ in range(200)]
    fast = choose_tokens(logits, decoding(0.5), draws)
    monkeypatch.setattr(sampling, "NUM_CANDIDATES", 1)
    assert choose_tokens(logits, decoding(0.5), draws) == fast


def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(1)
    logits, draws = torch.randn(50, 300), [(7 * n % 50 + 0.5) / 50 for n in range(50)]
    together = choose_tokens(logits, decoding(1.0), draws)
    alone = [choose_tokens(logits[n : n + 1], decoding(1.0), [draws[n]])[0] for n in range(50)]
    assert together == alone


def test_of_equally_likely_tokens_the_lower_numbers_make_the_nucleus() -> None:
    logits = torch.zeros(400, 200)
    draws = [(n + 0.5) / 400 for n in range(400)]
    assert set(choose_tokens(logits, decoding(1.0, 0.4975), draws)) == set(range(100))


def test_two_tokens_that_change_places_do_not_change_the_choice() -> None:
    base = torch.tensor([1.0, 1.0, 0.5, 0.2])
    moved = base + torch.tensor([0.0, 1e-6, 0.0, 0.0])
    for draw in np.linspace(0.01, 0.99, 37):
        one, other = (choose_tokens(row[None], decoding(1.0), [draw]) for row in (base, moved))
        assert one == other


def test_temperature_0_takes_the_first_of_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0], [1.0, 0.0, -1.0]])
    assert choose_tokens(logits, decoding(0.0), [0.99, 0.99]) == [1, 0]


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_logits_that_are_no_numbers_are_told(temperature: float) -> None:
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0]])
    assert choose_tokens(logits, decoding(temperature), [0.5, 0.5]) == [NOT_A_NUMBER, 1]


def test_tokens_are_those_of_earlier_versions() -> None:
    """Of 500 tokens at temperature 2 the candidates hold no nucleus: the slow way is taken."""
    torch.manual_seed(3)
    logits, draws = 3 * torch.randn(12, 500), [(n + 0.5) / 12 for n in range(12)]
    assert choose_tokens(logits, decoding(0.1), draws) == FEW
    assert choose_tokens(logits, decoding(2.0, 0.99), draws) == MANY


def test_candidates_reach_the_host_as_they_are() -> None:
    torch.manual_seed(4)
    scores, ids = (100 * torch.randn(5, 300000)).topk(64, dim=-1)
    given = scores, ids, torch.rand(5, 1), torch.full((5, 1), float("nan"))
    for one, other in zip(given, sampling._to_host(*given), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(other, one, rtol=0, atol=0, equal_nan=True)


def test_random_numbers_belong_to_seed_and_prompt() -> None:
    first = [random_stream(1, "a prompt").random() for _ in range(2)]
    assert first[0] == first[1] != random_stream(2, "a prompt").random()
    assert first[0] != random_stream(1, "another").random()
    # The same in every version of everything.
    assert first[0] == pytest.approx(GOLDEN, abs=1e-15)


GOLDEN = 0.16427510458902073
FEW: list[int] = [159, 188, 264, 418, 130, 4, 30, 303, 429, 421, 135, 370]
MANY: list[int] = [25, 63, 121, 148, 169, 233, 224, 303, 360, 421, 434, 474]
"""Drawn by the code as it was before the likeliest tokens came to the host."""
