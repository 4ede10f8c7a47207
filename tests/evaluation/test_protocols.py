from __future__ import annotations

from importlib import import_module

import pytest

from harness.evaluation.protocols import PROTOCOLS


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_names_its_scorer(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    module, _, function = protocol.scorer.partition(":")
    assert callable(getattr(import_module(module), function))


def test_marks_tell_protocols_apart() -> None:
    assert len({protocol.mark for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)
