"""A run is found by its id or name; what is looked for elsewhere is tests/test_compare.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import TrackingError
from harness.tracking.address import default_uri
from harness.tracking.lookup import RunLookup
from tests.tracking.test_runs import empty_store

__all__ = ["empty_store"]


def test_looking_makes_no_store(tmp_path: Path) -> None:
    assert not RunLookup(default_uri(tmp_path), tmp_path).exists()
    assert list(tmp_path.iterdir()) == []
    assert RunLookup("http://127.0.0.1:9", Path()).exists()  # only asking it would tell


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_store_without_cells_has_no_names(empty_store: Path) -> None:
    lookup = RunLookup(default_uri(empty_store.parent), empty_store.parent)
    assert lookup.exists()
    assert lookup.names() == []
    assert lookup.find("a/base") is None


def test_a_server_that_does_not_answer_is_told() -> None:
    with pytest.raises(TrackingError, match="no answer"):
        RunLookup("http://127.0.0.1:9", Path()).names()
