"""Submits cells: a folder with the script and the cells' file, and as many arrays as it takes."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import StorageError, UsageError
from harness.execution.node_job import job_of, write_job
from harness.execution.plan import RunPlan
from harness.execution.scheduling import devices_needed
from harness.execution.site import Site
from harness.execution.slurm.cluster import SlurmRefused, slurm
from harness.execution.slurm.queue import SLURM_FOLDER
from harness.execution.slurm.script import (
    IDS_FILE,
    JOB_FILE,
    SCRIPT_FILE,
    Array,
    arrays_of,
    sbatch_call,
    script_text,
)
from harness.execution.slurm.words import Words
from harness.grid.locks import CellBusy, holder, locked
from harness.grid.status import CellState
from harness.records.files import unwritable, write_text

TURN_FOLDER, TURN_SECONDS = ".turn", 600.0
SUBMIT_SECONDS = 180.0
"""sbatch waits by itself while the controller is full."""
FULL = re.compile(
    r"accounting/QOS policy|submit limit|MaxSubmit|MaxJobCount|Invalid job array specification"
    r"|unable to accept job|Resource temporarily unavailable|limit (?:is )?reached",
    re.IGNORECASE,
)
"""What sbatch says where the site accepts no array of this size, now or ever."""


@contextlib.contextmanager
def turn(runs_dir: Path) -> Iterator[None]:
    """Lets one command at a time look at the queue and submit: of two, the second sees the jobs of
    the first. Where the lock is another account's, whose jobs this one does not see anyway, nobody
    is waited for.

    Raises:
        UsageError: the other one takes too long.
    """
    folder, end = runs_dir / SLURM_FOLDER / TURN_FOLDER, time.monotonic() + TURN_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except CellBusy as busy:
                if time.monotonic() > end:
                    raise UsageError(
                        f"{runs_dir}: {holder(folder)} submits cells of this folder; wait for it, "
                        "then run the same command again"
                    ) from busy
                time.sleep(0.5)
            except StorageError:
                break
        yield


def is_full(fault: SlurmRefused) -> bool:
    """Whether a refusal is one of how many jobs there are, and not of what they are."""
    return FULL.search(str(fault)) is not None


@dataclass
class Submission:
    """Cells that are submitted together.

    Args:
        states: of the cells, in the order in which they should start.
        max_array: indices of an array are below it.
    """

    states: Sequence[CellState]
    plan: RunPlan
    words: Words
    max_array: int
    refused: str | None = None
    """Why Slurm accepts no more; set once it has said so."""
    left: int = 0
    """Cells that it did not accept."""
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        # Stable: of the cells with as many devices, the untrained base models stay first.
        self.states = sorted(self.states, key=devices_needed)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self.folder = self.plan.settings.runs_dir.resolve() / SLURM_FOLDER / name

    @property
    def arrays(self) -> list[Array]:
        """The arrays, as long as the cluster's own limit allows."""
        return arrays_of([devices_needed(state) for state in self.states], self.max_array)

    def call(self, array: Array, after: str | None = None) -> list[str]:
        """The call of sbatch for an array."""
        place = self.plan.place
        limit = place.site.max_parallel
        return sbatch_call(
            array, self.folder, self.words, device=place.device, max_parallel=limit, after=after
        )

    def script(self) -> str:
        """The script of all arrays."""
        return script_text(self.folder, self.plan.place.site, sys.executable)

    def shown(self) -> str:
        """The script and the calls, as a user could make them."""
        lines = [f"{self.folder / SCRIPT_FILE}:", "", self.script()]
        after = None
        for number, array in enumerate(self.arrays, start=1):
            lines.append(shlex.join(self.call(array, after)))
            after = f"<job of call {number}>" if self.plan.place.site.max_parallel else None
        return "\n".join(lines)

    def submit(self) -> Iterator[tuple[CellState, str]]:
        """Submits what the site accepts; yields each cell with its job.

        Raises:
            StorageError: the folder cannot be written.
            UsageError: Slurm refuses the cells, and not for their number.
        """
        waiting, accepted, after = self.arrays, False, None
        self._write()
        self.left = len(self.states)
        while waiting:
            array, *waiting = waiting
            try:
                told = slurm(*self.call(array, after), seconds=SUBMIT_SECONDS)
            except SlurmRefused as fault:
                if not is_full(fault):
                    if not accepted:  # else, or where no answer came, jobs may read it
                        shutil.rmtree(self.folder, ignore_errors=True)
                    raise
                if array.size > 1:
                    waiting = [*array.split(array.size // 2), *waiting]
                    continue
                self.refused = str(fault)
                break
            job, accepted = told.partition(";")[0], True
            after = job if self.plan.place.site.max_parallel else None
            self.left -= array.size
            for element in range(array.size):
                yield self.states[array.first + element], f"{job}_{element}"
        if not accepted:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        """Writes the folder: the cells, the script, and the site's keys as they were."""
        cells = [state.cell for state in self.states]
        job = job_of(cells, self.plan, self.plan.grid, logs=not self.plan.place.follow)
        write_job(self.folder / JOB_FILE, job)
        listed = "".join(f"{cell.id} {cell.label}\n" for cell in cells)
        write_text(self.folder / IDS_FILE, listed)
        write_text(self.folder / SCRIPT_FILE, self.script())
        write_text(self.folder / "site.yaml", site_text(self.plan.place.site))
        try:
            # A server's password, or tokens that `setup` sets, are their user's alone.
            for name in (JOB_FILE, SCRIPT_FILE, "site.yaml"):
                (self.folder / name).chmod(0o600)
            (self.folder / "starts").mkdir(exist_ok=True)
        except OSError as fault:
            raise unwritable(self.folder, fault) from fault


def site_text(site: Site) -> str:
    """A site file with the keys of a site, the words of the command line among them."""
    import yaml

    keys = site.model_dump(mode="json", exclude_defaults=True)
    return "# The site, as this submission saw it.\n" + yaml.safe_dump(keys, sort_keys=False)
