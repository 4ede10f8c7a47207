"""The script of a submission, and the `sbatch` calls that submit it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.execution.site import Site
from harness.execution.slurm.words import Words

SCRIPT_FILE, JOB_FILE, IDS_FILE = "script.sh", "cells.json", "ids.txt"
MARK = "zbench:"
"""A job's comment begins so; its folder and the number of its array's first cell follow."""
SCRIPT = """\
#!/bin/bash
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@{warn_seconds}
# One cell of a grid for each element of the array; $1 is the first one's number in the cells' file.
# USR1 comes before the time limit: the cell writes a checkpoint, and the job queues again. On TERM
# (preempted, cancelled, out of time) it writes one too; Slurm alone brings back what it preempted.
{setup}{python} -m harness.execution.on_node {job_file} "$(($1 + SLURM_ARRAY_TASK_ID))" &
cell=$!
trap 'again=1; told=1; kill -TERM $cell 2>/dev/null' USR1
trap 'again=; told=1; kill -TERM $cell 2>/dev/null' TERM
while told=; wait $cell; code=$?; [ "$told" ]; do :; done
# 143: it was told to stop while Python was still starting.
if [ "$again" ] && [[ $code = 130 || $code = 143 ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
"""


def script_text(folder: Path, site: Site, python: str) -> str:
    """The script that lies in `folder` beside the cells' file.

    Lines of `setup` may set ZBENCH_PYTHON, words that run Python on a node (`apptainer exec ...`);
    else it is the `python` of the submitting command.
    """
    return SCRIPT.format(
        warn_seconds=site.warn_seconds,
        setup="".join(f"{line}\n" for line in site.setup),
        python=f"${{ZBENCH_PYTHON:-{shlex.quote(python)}}}",
        job_file=shlex.quote(str(folder / JOB_FILE)),
    )


@dataclass(frozen=True)
class Array:
    """Cells that one `sbatch` call submits; each has as many devices."""

    first: int
    """The number of its first cell in the cells' file."""
    size: int
    needed: int
    """Devices of each cell."""

    def split(self, size: int) -> tuple[Array, Array]:
        """The first `size` cells of it, and the others."""
        rest = Array(self.first + size, self.size - size, self.needed)
        return Array(self.first, size, self.needed), rest


def arrays_of(needed: Sequence[int], max_array: int) -> list[Array]:
    """Arrays of the cells with these numbers of devices, which are sorted."""
    found: list[Array] = []
    for number, devices in enumerate(needed):
        last = found[-1] if found else None
        if last is not None and last.needed == devices and last.size < max_array:
            found[-1] = Array(last.first, last.size + 1, devices)
        else:
            found.append(Array(number, 1, devices))
    return found


def sbatch_gpus(kind: str, number: int) -> str:
    """The word of sbatch for GPUs of a type, or of any for the empty name."""
    return f"--gpus-per-node={f'{kind}:' if kind else ''}{number}"


def sbatch_call(
    array: Array,
    folder: Path,
    words: Words,
    *,
    device: str,
    max_parallel: int | None = None,
    after: str | None = None,
) -> list[str]:
    """The call that submits an array, after the end of another job where one is named."""
    devices = []
    if device == "cuda":
        devices.append(sbatch_gpus(words.gpu_type, array.needed))
    elif not words.cpus:
        devices.append(f"--cpus-per-task={array.needed}")
    limit = "" if max_parallel is None else f"%{max_parallel}"
    return [
        "sbatch",
        "--parsable",
        *words.kept,
        *([] if words.job_name else ["--job-name=zbench"]),
        f"--array=0-{array.size - 1}{limit}",
        *devices,
        *([] if after is None else [f"--dependency=afterany:{after}"]),
        f"--comment={MARK}{folder}:{array.first}",
        f"--output={str(folder).replace('%', '%%')}/%A_%a.out",
        str(folder / SCRIPT_FILE),
        str(array.first),
    ]
