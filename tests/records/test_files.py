"""Files and folders are written whole or not at all; SHA-256 says whether one is still the same."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.errors import StorageError
from harness.records import files as fingerprint
from harness.records.files import (
    atomic_file,
    atomic_folder,
    fresh_sha256_of_file,
    known_sha256_of_file,
    known_sha256_of_files,
    save_tensors,
    sha256_of_file,
    sha256_of_files,
    sha256_of_json,
    write_bytes,
)


class Stopped(BaseException):
    """What a signal raises."""


def content_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_file_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"x")
        assert not path.exists()
    assert content_of(tmp_path) == {"new/a.bin": b"x"}
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("fault", [Stopped(), ValueError("no")])
def test_a_block_that_raises_leaves_all_as_it_was(tmp_path: Path, fault: BaseException) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"old")

    def write_half(path: Path) -> None:
        path.write_bytes(b"new")
        raise fault

    with pytest.raises(type(fault)), atomic_file(tmp_path / "a") as temporary:
        write_half(temporary)
    with pytest.raises(type(fault)), atomic_folder(tmp_path / "b", replace=True) as temporary:
        write_half(temporary / "c")
    assert content_of(tmp_path) == {"a": b"old", "b/c": b"old"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "b"
    with atomic_folder(path) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "c").write_bytes(b"x")
        assert not path.exists()
    assert content_of(tmp_path) == {"new/b/deep/c": b"x"}
    assert path.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == ["b"]


def test_a_folder_that_holds_something_is_replaced_only_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.mkdir()
    (path / "old").write_bytes(b"x")
    with (
        pytest.raises(StorageError, match=r"b: cannot be written .*remove what lies in its place"),
        atomic_folder(path) as temporary,
    ):
        (temporary / "new").write_bytes(b"y")
    assert content_of(tmp_path) == {"b/old": b"x"}
    with atomic_folder(path, replace=True) as temporary:
        (temporary / "new").write_bytes(b"y")
    assert content_of(tmp_path) == {"b/new": b"y"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space or choose another folder"),
        (errno.EDQUOT, "free space or choose another folder"),
        (errno.EROFS, "give yourself the right to write there"),
        (errno.EISDIR, "remove what lies in its place"),
        (errno.EIO, "see that its disk is mounted"),
    ],
)
def test_what_cures_a_write_that_failed_depends_on_why(
    tmp_path: Path, number: int, advice: str
) -> None:
    with (
        pytest.raises(StorageError, match=f"a: cannot be written .*; {advice}"),
        atomic_file(tmp_path / "a"),
    ):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_file_is_gone_once_it_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match="remove what lies in its place"):
        write_bytes(tmp_path / "a", b"x")
    (tmp_path / "a").rmdir()
    write_bytes(tmp_path / "a", b"x")


def test_tensors_that_cannot_be_written_are_a_storage_error(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"t: cannot be written"),
        atomic_folder(tmp_path / "t") as temporary,
    ):
        save_tensors(temporary / "missing" / "a.safetensors", {"a": torch.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_plain_values_knows_no_order_of_keys() -> None:
    text = b'{"a":[1,2.5,null],"b":"x"}'
    assert sha256_of_json({"b": "x", "a": [1, 2.5, None]}) == hashlib.sha256(text).hexdigest()


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


def test_damage_that_keeps_size_and_time_shows_in_a_fresh_reading_alone(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    os.utime(file, ns=(1, 1))
    known = sha256_of_file(file)
    file.write_bytes(b"y")
    os.utime(file, ns=(1, 1))
    assert sha256_of_file(file) == known
    assert fresh_sha256_of_file(file) == hashlib.sha256(b"y").hexdigest()


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


@pytest.mark.parametrize("read", [sha256_of_file, fresh_sha256_of_file])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, read: Callable[[Path], str]
) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(OSError, match="no regular file"):
        read(tmp_path / "a")
    assert known_sha256_of_file(tmp_path / "a") is None


def test_a_file_that_is_not_there_is_not_known(tmp_path: Path) -> None:
    assert known_sha256_of_file(tmp_path / "none") is None
    assert known_sha256_of_files([]) is None
