from __future__ import annotations

from importlib import import_module

import pytest

from harness.analysis.columns import COLUMNS
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.protocols import PROTOCOLS


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_names_its_scorer(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    module, _, function = protocol.scorer.partition(":")
    assert callable(getattr(import_module(module), function))


def test_a_borrowed_column_is_one_that_the_lender_fills() -> None:
    for protocol in PROTOCOLS.values():
        for column, lender in protocol.borrows.items():
            assert column in COLUMNS
            filled = {one.column for one in BENCHMARKS.values() if one.protocol.name == lender}
            assert column in filled
            assert column not in {
                one.column for one in BENCHMARKS.values() if one.protocol is protocol
            }


def test_marks_tell_protocols_apart() -> None:
    assert len({protocol.mark for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)
