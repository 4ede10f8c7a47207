"""The table of cards."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.estimate.cards import card_of_device, find_card, known_cards


def test_every_card_has_an_address_and_no_price() -> None:
    assert len(known_cards()) >= 9
    for name, card in known_cards().items():
        assert card.source.startswith("https://"), name
        assert card.price_per_hour is None, name


def test_an_unknown_card_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'h200'") as fault:
        find_card("h20")
    assert "\n" not in str(fault.value)


def test_names_of_drivers_are_found() -> None:
    found = card_of_device("NVIDIA H200")
    assert found is not None
    assert found[0] == "h200"
    assert card_of_device("NVIDIA H20") is None


def test_old_cards_run_in_fp32() -> None:
    card = find_card("V100-32")
    assert card.precision("auto") == "fp32"
    assert card.peak_flops("fp32") == 15.7e12
    assert card.peak_flops("fp16") == 125e12
    assert card.peak_flops("bf16") is None
    assert find_card("a100-80").precision("auto") == "bf16"
