"""Paths and files from outside: every cause is told, and its advice cures it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import UsageError, one_line, printable
from harness.readers.files import ADVICE, Unreadable, check_file, read_text, user_path
from harness.readers.json_files import read_json, read_json_object


def cause_of(path: Path, max_bytes: int | None = None) -> str:
    with pytest.raises(Unreadable) as caught:
        check_file(path, max_bytes=max_bytes)
    assert str(path) in str(caught.value)
    assert ADVICE[caught.value.cause] in str(caught.value)
    return caught.value.cause


def test_every_cause_is_told_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * 100)
    (tmp_path / "pointer").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )
    os.mkfifo(tmp_path / "pipe")
    assert cause_of(tmp_path / "none") == "missing"
    assert cause_of(tmp_path / "empty" / "below") == "missing"
    assert cause_of(tmp_path) == "folder"
    assert cause_of(tmp_path / "pipe") == "special"
    assert cause_of(tmp_path / "empty") == "empty"
    assert cause_of(tmp_path / "pointer") == "lfs pointer"
    assert cause_of(tmp_path / "large", max_bytes=99) == "too large"
    assert cause_of(tmp_path / ("x" * 300)) == "unreadable"
    assert check_file(tmp_path / "large", max_bytes=100) == 100


def test_text_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    (tmp_path / "mark").write_bytes(b"\xef\xbb\xbfa: 1")
    (tmp_path / "latin").write_bytes("a\ngr\u00f6\u00dfe".encode("latin-1"))
    assert read_text(tmp_path / "mark") == "a: 1"
    with pytest.raises(Unreadable, match=r"no UTF-8 text \(byte 0xf6 in line 2\)"):
        read_text(tmp_path / "latin")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("x\0y", r"'x\\x00y' is no path"),
        ("a\x1b[31m", "control characters"),
        ("\ud800", "no valid Unicode"),
        ("~nobody-of-this-name/x", "there is no user ~nobody-of-this-name"),
        ("x" * 300, r"\(300 characters\): is no path"),
        (" ", "is no path"),
    ],
)
def test_what_no_file_can_be_called_is_refused(raw: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        user_path(raw)
    assert printable(str(caught.value)) == str(caught.value)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs") == tmp_path / "runs"
    assert user_path("a/~b") == Path("a/~b")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[" * 100_000, "too deep"),
        ('{"a": [1, 2', "cut off"),
        ("{'a': 1}", "content"),
        ("9" * 5000, "content"),
    ],
)
def test_json_that_is_none_is_told(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(Unreadable) as caught:
        read_json(tmp_path / "a.json")
    assert caught.value.cause == cause


def test_json_of_many_brackets_side_by_side_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" + ", ".join(['["[[[", []]'] * 500) + "]")
    assert read_json(tmp_path / "a.json") == [["[[[", []]] * 500
    with pytest.raises(Unreadable, match="holds a list, where a JSON object is due"):
        read_json_object(tmp_path / "a.json")


def test_what_could_steer_a_terminal_is_escaped() -> None:
    assert printable("\x1b[31m\u009b \ud800 \u202e ä\n\t–\u00a0") == (
        "\\x1b[31m\\x9b \\ud800 \\u202e ä\n\t–\u00a0"
    )
    assert one_line("a\n\x07b") == "a \\x07b"
