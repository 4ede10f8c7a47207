"""The words that a user gives to `sbatch`: what is read of them, and which are zbench's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError, shortened

SHORT = {
    "-a": "--array", "-o": "--output", "-e": "--error", "-p": "--partition", "-t": "--time",
    "-N": "--nodes", "-n": "--ntasks", "-c": "--cpus-per-task", "-G": "--gpus", "-W": "--wait",
    "-J": "--job-name", "-H": "--hold", "-b": "--begin", "-d": "--dependency",
}  # fmt: skip
ALONE = ("--wait", "--no-requeue", "--requeue", "--test-only", "--parsable", "--hold")
"""Options that take no value."""
LATER = ("--hold", "--begin", "--dependency", "--mail-type", "--mail-user", "--deadline")
"""Options that say when a job starts, and who hears of it; a probe is to run at once."""
OWN = {
    "--array": "zbench makes the arrays; choose cells with --only, and how many run with "
    "max_parallel in the site file",
    "--output": "a lost job is looked for in its output file, which zbench names",
    "--error": "a job's errors are in its output file",
    "--comment": "it says which cells a job runs",
    "--wrap": "zbench writes the script; its first lines are `setup` in the site file",
    "--signal": "write warn_seconds in the site file",
    "--open-mode": "a requeued job appends to its output file",
    "--no-requeue": "a job that is preempted or loses its node resumes from its checkpoint",
    "--test-only": "give --dry-run",
    "--parsable": "zbench reads what sbatch answers",
    "--wait": "give --follow",
    "--gpus": "give a type of GPU as `--gpus-per-node TYPE`; their number is the grid's "
    "gpus_per_cell",
    "--gpus-per-task": "their number is the grid's gpus_per_cell; give a type as "
    "`--gpus-per-node TYPE`",
}
"""Options that zbench sets, and what to do in their place."""


@dataclass(frozen=True)
class Words:
    """Words of `sbatch`, without those of GPUs."""

    kept: tuple[str, ...] = ()
    at_once: tuple[str, ...] = ()
    """Those that say where a job runs, without those that make it wait."""
    partition: str | None = None
    gpu_type: str = ""
    """The type of GPU that was asked for, such as `a100`."""
    minutes: float | None = None
    """The time limit; None for the partition's own."""
    cpus: bool = False
    """Whether they say how many CPUs a job has."""
    job_name: bool = False
    """Whether they name the jobs."""


def read_words(words: Sequence[str], place: str) -> Words:
    """What words of `sbatch` say; `place` is where the user gave them.

    Raises:
        UsageError: an option is zbench's own, or asks for several nodes.
    """
    kept: list[str] = []
    at_once: list[str] = []
    seen: dict[str, str] = {}
    gpu_type, index = "", 0
    while index < len(words):
        name, value, used = _option(words, index)
        here = list(words[index : index + used])
        index += used
        if not name.startswith("-"):
            raise UsageError(f"{place}: {shortened(name)}: is no option of sbatch; zbench writes "
                             "the script that it submits")  # fmt: skip
        if name in OWN:
            raise UsageError(f"{place}: {name}: {OWN[name]}")
        if name in ("--nodes", "--ntasks") and value != "1":
            raise UsageError(f"{place}: {name} {value}: a cell runs on one node, as one task")
        if name == "--gpus-per-node" or (name == "--gres" and value.startswith("gpu")):
            gpu_type = _gpu_type(value.removeprefix("gpu:").removeprefix("gpu"))
            continue
        seen[name] = value
        kept += here
        at_once += [] if name in LATER else here
    time = seen.get("--time")
    return Words(
        kept=tuple(kept),
        at_once=tuple(at_once),
        partition=seen.get("--partition"),
        gpu_type=gpu_type,
        minutes=None if time is None else minutes_of(time),
        cpus=any(name in seen for name in ("--cpus-per-task", "--cpus-per-gpu", "--exclusive")),
        job_name="--job-name" in seen,
    )


def _option(words: Sequence[str], index: int) -> tuple[str, str, int]:
    """The long name of the option at a place, its value, and how many words they are."""
    word = words[index]
    name, equals, value = word.partition("=")
    if word.startswith("--"):
        alone = name in ALONE or bool(equals)
    else:
        name, value = SHORT.get(word[:2], word[:2]), word[2:]
        alone = bool(value) or name in ALONE
    following = words[index + 1] if index + 1 < len(words) else "-"
    if alone or following.startswith("-"):
        return name, value, 1
    return name, following, 2


def _gpu_type(value: str) -> str:
    """The type in `a100:2`, `a100`, `2`."""
    kind = value.split(":")[0]
    return "" if kind.isdigit() else kind


def minutes_of(text: str) -> float | None:
    """A time limit as sbatch writes it, in minutes; None where it is none, or has no end.

    `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None:
        return None
    days, *parts = (None if part is None else int(part) for part in found.groups())
    numbers = [part for part in parts if part is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    return ((days or 0) * 24 + hours) * 60 + minutes + seconds / 60
