"""Budgets: the default, and what is refused; which models are packed, and what may be shared."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
import torch

from harness.data.instructions import Example
from harness.errors import TrainingError
from harness.training.loss import packing_refusal, shares_prefixes
from harness.training.micro_batches import (
    PASS_COST,
    cheapest_cuts,
    fullest_cuts,
    number_sequences,
    resolve_budget,
)
from harness.training.spec import DEFAULT_TOKEN_BUDGET
from tests.fixtures.tiny import TRAINED, adapted, tiny_llama

CPU = torch.device("cpu")


def test_the_default_budget_is_the_devices_or_the_longest_sequence() -> None:
    short, long = Example((1,) * 9, 2), Example((1,) * 5000, 2)
    assert resolve_budget(None, [short], CPU) == DEFAULT_TOKEN_BUDGET["cpu"]
    assert resolve_budget(None, [short, long], CPU) == 5000
    assert resolve_budget(9, [short], CPU) == 9


def test_a_budget_below_the_longest_sequence_is_refused_in_one_line() -> None:
    examples = [Example((1,) * 9, 2), Example((1,) * 100, 100)]  # nothing is learned of the second
    with pytest.raises(TrainingError) as fault:
        resolve_budget(8, examples, CPU)
    assert str(fault.value) == (
        "train.token_budget is 8, but the longest sequence has 9 tokens and goes through the "
        "model whole; raise it to 9 or more, or lower max_length"
    )


def test_sequences_are_numbered_from_the_longest() -> None:
    examples = [Example((1,) * n, p) for n, p in ((3, 1), (5, 1), (9, 9), (5, 2), (4, 1))]
    numbered = number_sequences(examples)
    assert [(s.index, len(s.token_ids), s.num_prompt_tokens) for s in numbered] == [
        (0, 5, 1),
        (1, 5, 2),
        (2, 4, 1),
        (3, 3, 1),
    ]


@pytest.mark.parametrize("name", TRAINED)
def test_only_virtual_tokens_are_padded(name: str) -> None:
    refusal = packing_refusal(adapted(name))
    assert (refusal is not None) == (name in ("prefix-tuning", "prompt-tuning"))


def test_attention_with_dropout_is_padded() -> None:
    model = tiny_llama()
    model.config.attention_dropout = 0.1
    assert "dropout" in str(packing_refusal(model))


def test_nothing_is_shared_under_dropout() -> None:
    model = adapted("lora", dropout=0.1)
    assert shares_prefixes(model.eval())
    assert not shares_prefixes(model.train())
    assert shares_prefixes(adapted("lora", dropout=0.0).train())


def positions(lengths: Sequence[int], cuts: Iterable[slice]) -> list[int]:
    """The positions of each padded batch; all sequences are in them, in order."""
    found, sizes, end = [], [], 0
    for cut in cuts:
        assert cut.start == end < cut.stop
        found += lengths[cut]
        sizes.append((cut.stop - cut.start) * lengths[cut.start])
        end = cut.stop
    assert found == list(lengths)
    return sizes


@pytest.mark.parametrize("budget", [300, 1024, 8192])
def test_the_cheapest_batches_keep_the_budget_and_save_padding(budget: int) -> None:
    draw = random.Random(2)
    lengths = sorted((min(256, int(draw.lognormvariate(4, 0.6))) for _ in range(64)), reverse=True)
    full, cheap = (
        positions(lengths, cuts(lengths, budget)) for cuts in (fullest_cuts, cheapest_cuts)
    )
    assert max(full) <= budget
    assert max(cheap) <= budget
    assert sum(cheap) + PASS_COST * len(cheap) <= sum(full) + PASS_COST * len(full)
    if budget == 8192:
        assert len(full) < len(cheap)
        assert sum(cheap) < 0.75 * sum(full)


def test_sequences_of_one_length_are_one_batch_and_a_long_one_stands_alone() -> None:
    assert positions([7] * 20, cheapest_cuts([7] * 20, 140)) == [140]
    assert positions([50, 9], cheapest_cuts([50, 9], 40)) == [50, 9]
    assert positions([50, 9], fullest_cuts([50, 9], 40)) == [50, 9]
