"""How a failed command ends: one line, an exit code, and a file only where zbench is at fault."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import click
import pytest

from harness.commands import faults
from harness.commands.faults import UNEXPECTED, explain
from harness.errors import GridError, StorageError, plain_message


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["zbench", "plan", "x", "--tracking-uri", "http://u:pw9@h/"])


def raised(fault: Exception) -> Exception:
    """The fault, as if some code of zbench had raised it."""
    try:
        raise fault
    except Exception as caught:
        return caught


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert all(line.startswith("zbench: ") and line.isprintable() for line in lines)
    return lines


def test_a_fault_that_is_not_known_is_one_line_and_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(raised(TypeError("unhashable type: 'list' http://u:pw9@h/\x1b[31m"))) == 70
    (line,) = lines_of(capsys)
    (file,) = tmp_path.glob("zbench-fault-*.txt")
    assert line.startswith("zbench: unexpected fault in ")
    assert "unhashable type: 'list'" in line
    assert f"report it with {file}, which holds its traceback" in line
    assert "TypeError" not in line
    assert "pw9" not in line
    kept = file.read_text(encoding="utf-8")
    assert "TypeError: unhashable type" in kept
    assert "Traceback (most recent call last)" in kept
    assert "zbench 0." in kept
    assert "torch 2" in kept
    assert "pw9" not in kept
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_in_a_read_only_folder_the_file_lies_in_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))

    def gone() -> Path:
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr(faults.Path, "cwd", gone)
    assert explain(raised(KeyError("x"))) == UNEXPECTED
    (file,) = elsewhere.iterdir()
    (line,) = lines_of(capsys)
    assert str(file) in line
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert explain(raised(KeyError("x"))) == UNEXPECTED
    (line,) = lines_of(capsys)
    assert "no folder could be written for its traceback" in line


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (GridError(["g.yaml: a", "g.yaml: \x1b[31m"]), 2, ["g.yaml: a", "g.yaml: \\x1b[31m"]),
        (StorageError("x\x9b: full"), 1, ["x\\x9b: full"]),
        (MemoryError(), 1, ["out of memory; free the memory of other processes, or use a larger "
                            "machine"]),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1,
         ["/x/y: No space left on device; see to space and rights there, and run it again"]),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1,
         ["/x: Permission denied; see to space and rights there, and run it again"]),
    ],
)  # fmt: skip
def test_what_is_known_leaves_no_file(
    fault: Exception,
    code: int,
    said: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert explain(raised(fault)) == code
    assert lines_of(capsys) == [f"zbench: {line}" for line in said]
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_option_is_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(click.UsageError("No such option: --\x07")) == 2
    assert "No such option: --\\x07" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (TypeError("unhashable type: 'list'"), "unhashable type: 'list'"),
        (
            RuntimeError("pyarrow.lib.ArrowInvalid: ValueError: bad"),
            "pyarrow.lib.ArrowInvalid: bad",
        ),
        (ValueError(""), "no message"),
        (ValueError("OSError: ValueError: x"), "x"),
        (TypeError("<class 'int'> and <a.B object at 0x7f00>"), "int and a.B"),
        (KeyError("x"), "'x'"),
    ],
)
def test_a_message_names_no_classes_of_python(fault: Exception, said: str) -> None:
    assert plain_message(fault) == said
