"""The disks of the runs folder and of the data: rights, speed, locks, room, and their clock."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.errors import UsageError, one_line
from harness.estimate.compute import disk_needs
from harness.estimate.needs import find_needs
from harness.evaluation.tasks import lm_eval_version
from harness.grid.locks import check_locks
from harness.grid.shared_folder import file_system, lock_reach
from harness.prepare.doctor.finding import Context, Finding, size
from harness.prepare.doctor.hardware import to_do
from harness.prepare.prefetch import manifest_of
from harness.records.prefetched import is_prefetched

WRITTEN_BYTES, FLUSHES = 32 * 2**20, 10
SLOW_FLUSH_SECONDS, SLOW_BYTES_PER_SECOND = 0.25, 20e6
FILES_PER_CELL = 100
MOST_CLOCK_SECONDS = 2.0
REACH = {
    "machines": ("ok", "locks hold on every machine that sees it", ""),
    "node": ("warning", "locks reach one machine alone, so cells are guarded by a lease", ""),
    "unknown": (
        "unknown",
        "nobody has tried yet how far its locks reach",
        "`zbench doctor --as-job` tries it from a node; a run on a cluster does so by itself",
    ),
    "none": (
        "warning",
        "it has no file locks, so cells are guarded by a lease",
        "mount it with locks (Lustre: -o flock), or choose another disk with --runs-dir",
    ),
}
"""What is known of locks -> status, what is so, what to do."""


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above that is there."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())


def check_runs_folder(context: Context) -> Iterator[Finding]:
    """Whether files can be written, renamed and flushed in the runs folder, and how fast."""
    folder = nearest_folder(context.runs_dir)
    places = (context.runs_dir, *context.runs_dir.parents)
    there = next(place for place in places if os.path.lexists(place))
    if not there.is_dir():
        advice = "choose another folder with --runs-dir"
        yield Finding("runs folder", "error", f"{there}: is no folder", advice)
        return
    where = f"{context.runs_dir} ({file_system(folder)})"
    try:
        speed, flush = _write_speed(folder)
    except OSError as fault:
        said = f"{where}: cannot be written ({one_line(fault.strerror or fault)})"
        yield Finding("runs folder", "error", said, "choose another folder with --runs-dir")
        return
    said = f"{where}: writes {size(speed)}/s, flushes a small file in {flush * 1e3:,.0f} ms"
    if flush > SLOW_FLUSH_SECONDS or speed < SLOW_BYTES_PER_SECOND:
        advice = "checkpoints will be slow; a faster disk, or a larger train.checkpoint_minutes"
        yield Finding("runs folder", "warning", said, advice)
    else:
        yield Finding("runs folder", "ok", said)


def _write_speed(folder: Path) -> tuple[float, float]:
    """Bytes in a second of one flushed file, and the seconds of a small one, then renamed."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as temporary:
        place, chunk = Path(temporary), os.urandom(2**20)
        start = time.monotonic()
        with (place / "large").open("wb") as file:
            for _ in range(WRITTEN_BYTES // len(chunk)):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        speed = WRITTEN_BYTES / max(time.monotonic() - start, 1e-6)
        times = []
        for _ in range(FLUSHES):
            start = time.monotonic()
            with (place / "new").open("wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            (place / "new").replace(place / "small")
            times.append(time.monotonic() - start)
    return speed, statistics.median(times)


def check_lock_reach(context: Context) -> Iterator[Finding]:
    """How far file locks of the runs folder reach, as it is known."""
    folder = nearest_folder(context.runs_dir)
    reach = lock_reach(context.runs_dir)
    if reach != "none":
        try:
            check_locks(folder)
        except UsageError as fault:
            yield Finding("locks", "warning", one_line(fault), REACH["none"][2])
            return
    status, said, advice = REACH[reach]
    yield Finding("locks", status, f"{file_system(folder)}: {said}", advice)  # type: ignore[arg-type]


def check_disks(context: Context) -> Iterator[Finding]:
    """Free room and free names on the disks, against what the grid's cells write and fetch."""
    states, folder = to_do(context), nearest_folder(context.runs_dir)
    free, needed, said = float(shutil.disk_usage(folder).free), 0.0, ""
    if states:
        gpus = max(1, len(context.gpus))
        disk = disk_needs(states, find_needs(states, context.data_root), folder, gpus)
        needed = disk.results + disk.checkpoints
        said = f"; the grid writes {size(disk.results)} and checkpoints of {size(disk.checkpoints)}"
        yield from _downloads(context, disk.downloads)
    said = f"{size(free)} free{said}"
    if needed > free:
        yield Finding("disk", "error", said, "free space, or another disk with --runs-dir")
    elif free < 2 * needed or free < 1e9:
        yield Finding("disk", "warning", said, "free space before it is full")
    else:
        yield Finding("disk", "ok", said)
    found = os.statvfs(folder)
    if found.f_files and found.f_favail < FILES_PER_CELL * max(10, len(states)):
        said = f"{found.f_favail:,} more files can be made"
        yield Finding("inodes", "warning", said, "remove files, or ask for a larger quota")
    elif found.f_files:
        yield Finding("inodes", "ok", f"{found.f_favail:,} more files can be made")


def _downloads(context: Context, needed: float) -> Iterator[Finding]:
    """Room for what is fetched from the hub, where it will be kept."""
    from huggingface_hub import constants

    if not needed:
        return
    place = nearest_folder(Path(constants.HF_HUB_CACHE))
    free = float(shutil.disk_usage(place).free)
    said = f"{size(free)} free at {place}; about {size(needed)} are to be fetched"
    if needed > free:
        yield Finding("disk of the hub's cache", "error", said, "set HF_HOME to a larger disk")
    else:
        yield Finding("disk of the hub's cache", "ok", said)


def check_data_root(context: Context) -> Iterator[Finding]:
    """The data root: whether it can be read, and where it lies."""
    if context.data_root is None:
        return
    try:
        names = os.listdir(context.data_root)
    except OSError as fault:
        said = f"{context.data_root}: cannot be listed ({one_line(fault.strerror or fault)})"
        yield Finding("data root", "error", said, "give yourself the right to read it")
        return
    said = f"{context.data_root} ({file_system(context.data_root)}): {len(names)} entries"
    if not is_prefetched(context.data_root):
        yield Finding("data root", "ok", said)
        return
    manifest = manifest_of(context.data_root)
    known, here = manifest.get("lm_eval"), lm_eval_version()
    whole = [one["complete"] for one in manifest["repositories"].values()]
    said += f", prefetched: {sum(whole)} of {len(whole)} repositories are whole"
    if known != here:
        said += f"; loaded then by lm-eval {known}, here is {here}"
        yield Finding("data root", "warning", said, "install the same version, or prefetch again")
    else:
        yield Finding("data root", "ok", said)


def check_file_clock(context: Context) -> Iterator[Finding]:
    """The clock of the machine that keeps the runs folder, against this one's."""
    folder = nearest_folder(context.runs_dir)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            before = time.time()
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            changed, after = os.stat(file.name).st_mtime, time.time()
    except OSError:
        return  # told by the check of the runs folder
    ahead = max(before - changed, changed - after, 0.0)
    if ahead > MOST_CLOCK_SECONDS:
        said = f"the file server's clock differs from this machine's by {ahead:,.0f} s"
        yield Finding("clock", "warning", said, "have both set by NTP: leases and logs rest on it")
    else:
        yield Finding("clock", "ok", "the runs folder's clock agrees with this machine's")
