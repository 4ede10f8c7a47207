"""Whether the nodes see the runs folder: a job reads a token there, and writes another one.

`python -m harness.execution.slurm.probe FILE` is what the job runs, so that it tells too whether
zbench starts on a node.
"""

from __future__ import annotations

import contextlib
import json
import platform
import secrets
import shlex
import shutil
import sys
import time
from pathlib import Path

from harness.errors import StorageError, UsageError
from harness.execution.site import Site
from harness.execution.slurm.cluster import SlurmRefused, slurm
from harness.execution.slurm.queue import SLURM_FOLDER
from harness.execution.slurm.words import Words
from harness.readers.files import Unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import write_text

PROBED_FILE = "seen-by.json"
"""In the runs folder's `slurm`: the partitions whose nodes were seen to see it."""
PROBE_SECONDS = 120.0
"""How long the job may wait and run; a queue that takes longer leaves the question open."""
NFS_SECONDS = 10.0
"""A file that a node has written may be seen here so much later."""


def is_probed(runs_dir: Path, key: str) -> bool:
    """Whether the nodes of a cluster's partition are known to see the folder."""
    with contextlib.suppress(Unreadable):
        return key in read_json_object(runs_dir / SLURM_FOLDER / PROBED_FILE)
    return False


def probe(runs_dir: Path, key: str, words: Words, site: Site) -> str | None:
    """Asks a job whether it sees the runs folder, and keeps the answer if it does.

    Returns:
        What the user should know where the job did not run in time; the question is open then.

    Raises:
        UsageError: it does not see the folder, or cannot run zbench.
    """
    folder = runs_dir.resolve() / SLURM_FOLDER / f".probe-{secrets.token_hex(4)}"
    token = secrets.token_hex(16)
    try:
        folder.mkdir(parents=True)
        write_text(folder / "token", token)
        write_text(folder / "probe.sh", _script(folder, site))
        return _ask(runs_dir, key, folder, token, words)
    except (OSError, StorageError) as fault:
        raise UsageError(f"{runs_dir}: cannot be written ({fault})") from fault
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _script(folder: Path, site: Site) -> str:
    python = f"${{ZBENCH_PYTHON:-{shlex.quote(sys.executable)}}}"
    setup = "".join(f"{line}\n" for line in site.setup)
    return (
        f"#!/bin/bash\n{setup}{python} -m harness.execution.slurm.probe "
        f'{shlex.quote(str(folder))} "$1"\n'
    )


def _ask(runs_dir: Path, key: str, folder: Path, token: str, words: Words) -> str | None:
    time_limit = [] if words.minutes is None else ["--time=5"]
    job = slurm(
        "sbatch", "--parsable", *words.at_once, *time_limit, "--job-name=zbench-probe", "--nodes=1",
        "--ntasks=1", "--no-requeue", f"--output={str(folder).replace('%', '%%')}/out",
        str(folder / "probe.sh"), token,
    ).partition(";")[0]  # fmt: skip
    end = time.monotonic() + PROBE_SECONDS
    try:
        while time.monotonic() < end:
            if (answer := _answer(folder, token)) is not None:
                keep(runs_dir, key, answer)
                return None
            if not _is_queued(job):
                _without_answer(runs_dir, key, folder, token, job)
                return None
            time.sleep(0.3)
    finally:
        with contextlib.suppress(UsageError):
            slurm("scancel", "--quiet", job)
    return (
        f"whether the nodes of {key} see {runs_dir} is not known: a job that was to tell did not "
        f"run within {PROBE_SECONDS:.0f} s. Where they do not, each job says so in its output"
    )


def _without_answer(runs_dir: Path, key: str, folder: Path, token: str, job: str) -> None:
    """Gives a job's files time to appear, and then says what its silence means."""
    end = time.monotonic() + NFS_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            list(folder.iterdir())  # some file systems look again only then
        if (answer := _answer(folder, token)) is not None:
            keep(runs_dir, key, answer)
            return
        said = _output(folder)
        if said:
            raise UsageError(
                f"a job on the nodes of {key} cannot run zbench: {said.splitlines()[-1][:300]}; "
                "see to `setup` in the site file, so that this Python starts there"
            )
        time.sleep(0.5)
    raise UsageError(
        f"{runs_dir}: the nodes of {key} do not see it: their job {job} has read and written "
        "nothing there; choose a folder on a disk that all of them share, with --runs-dir"
    )


def _answer(folder: Path, token: str) -> str | None:
    """The node that has read the token; None without an answer."""
    with contextlib.suppress(Unreadable):
        answer = read_json_object(folder / "answer")
        if answer.get("token") == token:
            return str(answer.get("host"))
    return None


def _output(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / "out").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _is_queued(job: str) -> bool:
    try:
        return bool(slurm("squeue", "-h", "-j", job, "-o", "%T"))
    except SlurmRefused:  # a job that is over and forgotten is an invalid one
        return False


def keep(runs_dir: Path, key: str, host: str) -> None:
    """Notes that the nodes of a partition see the folder."""
    path = runs_dir / SLURM_FOLDER / PROBED_FILE
    known: dict[str, object] = {}
    with contextlib.suppress(Unreadable):
        known = read_json_object(path)
    with contextlib.suppress(StorageError):  # it is asked once more
        write_text(path, json.dumps(known | {key: host}, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    """Answers from a node: reads the token, and writes it back beside it."""
    folder, expected = Path(arguments[0]), arguments[1]
    try:
        token = (folder / "token").read_text(encoding="utf-8")
        if token == expected:
            record = {"token": token, "host": platform.node()}
            write_text(folder / "answer", json.dumps(record))
        return 0 if token == expected else 1
    except (OSError, StorageError) as fault:
        print(f"{folder.parent.parent}: is not seen on {platform.node()} ({fault})")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
