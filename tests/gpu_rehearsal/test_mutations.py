"""Breakages that only a card shows are caught, each in a copy of zbench."""

from __future__ import annotations

import pytest

from tests.gpu_rehearsal.conftest import Run
from tests.gpu_rehearsal.mutations import MUTATIONS, broken_text

NAMED = [pytest.param(number, id=one.title) for number, one in enumerate(MUTATIONS, 1)]


@pytest.mark.rehearsal
@pytest.mark.parametrize("number", NAMED)
def test_a_breakage_is_caught(run: Run, number: int) -> None:
    done = run("-m", "tests.gpu_rehearsal.mutations", str(number))
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def test_every_breakage_can_be_made() -> None:
    changed = [one.title for one in MUTATIONS if broken_text(one) is None]
    assert not changed, "zbench's text has changed: adapt tests/gpu_rehearsal/mutations.py"
