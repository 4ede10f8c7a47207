"""A process is known by more than its number: another one may have the same, or none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records import process
from harness.records.process import is_alive, process_identity

ASK = "from harness.records.process import *; import sys; print(process_identity(), flush=True); "


def changed(identity: str, **parts: str) -> str:
    names = ("host", "number", "start", "boot", "namespace", "machine")
    known = dict(zip(names, identity.rsplit(":", 5), strict=True))
    assert known.keys() >= parts.keys()
    return ":".join((known | parts).values())


def test_this_process_lives() -> None:
    assert is_alive(process_identity()) is True


def test_a_process_is_alive_until_it_ends_even_if_nobody_waited_for_it() -> None:
    command = [sys.executable, "-c", ASK + "sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        identity = one.stdout.readline().strip()
        assert is_alive(identity) is True
        one.kill()
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        assert is_alive(identity) is False  # a zombie
    assert is_alive(identity) is False


def test_a_number_that_is_used_again_is_another_process() -> None:
    assert is_alive(changed(process_identity(), start="1")) is False


@pytest.mark.parametrize(
    ("parts", "alive"),
    [
        ({"host": "elsewhere"}, None),
        ({"host": "a:b"}, None),
        ({"namespace": "1"}, None),
        ({"boot": "before", "machine": "another of the same name"}, None),
        ({"boot": "before", "machine": ""}, None),
        ({"number": "4194305"}, False),
        ({"number": "9" * 30}, None),
        ({"number": "x"}, None),
        ({"start": ""}, None),
    ],
)
def test_what_cannot_be_known_is_said_to_be_unknown(
    parts: dict[str, str], alive: bool | None
) -> None:
    assert is_alive(changed(process_identity(), **parts)) is alive


def test_a_machine_that_was_started_again_runs_nothing_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = process._Kernel("node", "machine", "boot", "1")
    monkeypatch.setattr(process, "_kernel", lambda: kernel)
    assert is_alive(changed(process_identity(), boot="before")) is False


def test_a_record_of_an_older_version_tells_an_end_alone() -> None:
    host = process_identity().rsplit(":", 5)[0]
    assert is_alive(f"{host}:4194305") is False
    assert is_alive(f"{host}:{os.getpid()}") is None
    assert is_alive("") is None


def test_a_system_without_proc_tells_an_end_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "PROC", tmp_path)
    assert is_alive(process_identity()) is None
    assert is_alive(changed(process_identity(), number="4194305")) is False
