"""Fixtures that several folders of tests use."""

from __future__ import annotations

pytest_plugins = ["tests.fixtures.results", "tests.fixtures.studies"]
