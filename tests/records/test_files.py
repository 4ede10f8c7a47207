"""What says that a local file is still the one that was used."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from harness.records import files as fingerprint
from harness.records.files import (
    known_sha256_of_file,
    known_sha256_of_files,
    sha256_of_file,
    sha256_of_files,
)


def test_one_file_is_its_own_sum_and_several_are_that_of_their_lines(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"x")
    second.write_bytes(b"y")
    one, two = hashlib.sha256(b"x").hexdigest(), hashlib.sha256(b"y").hexdigest()
    assert sha256_of_files([first]) == sha256_of_file(first) == one
    lines = f"{one}  a\n{two}  b\n".encode()
    assert sha256_of_files([first, second]) == hashlib.sha256(lines).hexdigest()


def test_a_changed_file_has_another_sum(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    before = sha256_of_file(file)
    file.write_bytes(b"y")
    os.utime(file, ns=(1, 1))
    assert sha256_of_file(file) != before


def test_a_large_file_is_read_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "LARGE_BYTES", 1)
    file = tmp_path / "large"
    file.write_bytes(b"large")
    assert known_sha256_of_file(file) is None
    content = sha256_of_file(file)
    fingerprint._sha256.cache_clear()
    assert known_sha256_of_file(file) == content
    assert known_sha256_of_files([file]) == content
    file.write_bytes(b"larger")
    assert known_sha256_of_file(file) is None


def test_a_file_that_is_not_there_is_not_known(tmp_path: Path) -> None:
    assert known_sha256_of_file(tmp_path / "none") is None
    assert known_sha256_of_files([]) is None
