"""A hub on this machine, and the hub's client pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from harness.prepare import listing
from tests.fixtures.hub_server import Hub, serving
from tests.fixtures.hub_study import fill_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub; who asks has no token, and does not wait between tries."""
    with serving(fill_hub(tmp_path / "served")) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(listing, "FIRST_WAIT_SECONDS", 0.01)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "ZBENCH_DATA_ROOT"):
            monkeypatch.delenv(name, raising=False)
        yield served
