"""What weights and optimizer take of a GPU."""

from __future__ import annotations

import pytest

from harness.cell.memory import memory_bytes

SEVEN = 6_738_415_616
THIRTEEN = 13_015_864_320


def test_memory_is_two_bytes_a_frozen_and_sixteen_a_trained_parameter() -> None:
    assert memory_bytes(100, 0) == 200
    assert memory_bytes(100, 10) == 180 + 160
    assert memory_bytes(SEVEN, SEVEN) / 1e9 == pytest.approx(107.8, abs=0.1)


def test_full_fine_tuning_is_divided_among_the_devices() -> None:
    assert memory_bytes(SEVEN, SEVEN, num_devices=2) / 1e9 == pytest.approx(53.9, abs=0.1)
    assert memory_bytes(THIRTEEN, THIRTEEN, num_devices=4) / 1e9 == pytest.approx(52.1, abs=0.1)
    # Before they are divided, each device holds all weights in fp32.
    assert memory_bytes(SEVEN, SEVEN, num_devices=8) / 1e9 == pytest.approx(27.0, abs=0.1)


def test_adapters_and_their_frozen_base_are_not_divided() -> None:
    assert memory_bytes(100, 10, num_devices=4) == memory_bytes(100, 10)


def test_a_quantised_base_takes_less() -> None:
    assert memory_bytes(100, 10, quantization="int8") == 90 + 160
    assert memory_bytes(100, 10, quantization="nf4") == 45 + 160
