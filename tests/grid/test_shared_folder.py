"""How far the locks of a runs folder reach is found out by two processes, and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.grid.shared_folder import (
    REACH_FILE,
    FolderProbe,
    answer_probe,
    begin_probe,
    end_probe,
    file_system,
    keep_reach,
    lock_reach,
    mount_of,
)
from tests.fixtures.machines import as_machine


def ask(probe: FolderProbe, path: Path, environment: dict[str, str]) -> None:
    """Has a process answer, which sees the probe file as `path`."""
    subprocess.run(
        [sys.executable, "-m", "harness.grid.shared_folder", str(path)],
        env={**os.environ, **environment},
        check=True,
    )


def test_a_lock_that_another_machine_sees_reaches_machines(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with begin_probe(runs) as probe:
        ask(probe, probe.path, as_machine(tmp_path, "node7"))
        assert end_probe(probe) == "machines"
    kind = mount_of(runs)[0]
    assert (runs / REACH_FILE).read_text() == f'{{\n "{kind}": "machines"\n}}\n'
    assert [path.name for path in (runs / "cells").iterdir()] == []
    assert lock_reach(runs) == "machines"


def test_this_machine_s_own_answer_says_nothing_new(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with begin_probe(runs) as probe:
        answer_probe(probe.path)
        assert end_probe(probe) == lock_reach(runs)
    assert not (runs / REACH_FILE).exists()


def test_a_lock_that_another_mount_does_not_see_is_of_one_machine(
    mounts: tuple[Path, Path],
) -> None:
    one, other = mounts
    assert lock_reach(one / "runs") == "unknown"
    with begin_probe(one / "runs") as probe:
        ask(probe, other / "runs" / "cells" / probe.path.name, {})
        assert end_probe(probe) == "node"
    assert lock_reach(one / "runs") == lock_reach(other / "runs") == "node"


def test_a_folder_without_locks_is_told(tmp_path: Path, without_locks: dict[str, str]) -> None:
    with begin_probe(tmp_path) as probe:
        ask(probe, probe.path, without_locks)
        assert end_probe(probe) == "none"
    assert lock_reach(tmp_path) == "none"


def test_a_folder_that_the_other_machine_does_not_see_is_refused(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with begin_probe(runs) as probe:
        with pytest.raises(UsageError, match=r"nowhere/cells: not seen from .*choose a shared"):
            answer_probe(tmp_path / "nowhere" / "cells" / probe.path.name)
        with pytest.raises(UsageError, match="do not see it .*--runs-dir"):
            end_probe(probe, patience_seconds=0.1)
    assert not list((runs / "cells").iterdir())


def test_the_answer_for_another_probe_is_none(tmp_path: Path) -> None:
    with begin_probe(tmp_path) as probe:
        answer_probe(probe.path)
        answer = probe.path.with_name(f"{probe.path.name}.answer")
        answer.write_text(answer.read_text().replace(probe.token, "other"))
        with pytest.raises(UsageError, match="do not see it"):
            end_probe(probe, patience_seconds=0.1)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="cannot be written .*--runs-dir"),
        begin_probe(tmp_path / "file" / "runs"),
    ):
        pass


def test_what_was_kept_is_read_whatever_else_is_there(tmp_path: Path) -> None:
    for content in ("", "[]", '{"ext4": 3}', "\0"):
        (tmp_path / REACH_FILE).write_text(content)
        keep_reach(tmp_path, "node")
        assert lock_reach(tmp_path) == "node"


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"a / ext4 rw 0 0\nb {tmp_path} lustre rw 0 0\nc {tmp_path}x nfs rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: table)
    assert file_system(tmp_path / "runs") == f"lustre at {tmp_path}"
    assert file_system(Path("/")) == "ext4 at /"
    assert lock_reach(tmp_path / "runs") == "unknown"
    assert lock_reach(Path("/runs")) == "machines"
