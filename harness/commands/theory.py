"""`zbench theory`: simulates, prints the slopes, writes files and page, logs one MLflow run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import display
from harness.errors import TrackingError, UsageError
from harness.records.files import write_text
from harness.report.text import to_text
from harness.report.theory import slope_records, slope_table, write_study
from harness.theory.identity import show_identities
from harness.theory.statements import cautions, statements
from harness.theory.study import Errors, Plan, jobs_of, make_suite, run_jobs
from harness.theory.summary import Study, summarise

if TYPE_CHECKING:
    from rich.console import Console

FOLDER = "theory"
"""Inside the reports' folder; also the MLflow experiment."""
SEED = 0
MOST_WORKERS = 2
WITHOUT_LAYER = "quick"
"""The size that leaves out the layer of the demo model: loading torch takes half of its time."""


def chosen_size(*, quick: bool, full: bool) -> str:
    """The suite that the options ask for.

    Raises:
        UsageError: they ask for two.
    """
    if quick and full:
        raise UsageError("--quick and --full exclude each other; give one, or none for 'final'")
    return "quick" if quick else "full" if full else "final"


def theory_command(
    size: str,
    *,
    reports_dir: Path,
    runs_dir: Path,
    tracking_uri: str | None,
    as_json: bool,
    workers: int | None = None,
) -> int:
    """Runs a suite and returns the exit code.

    Args:
        size: `quick`, `final` or `full`.
        reports_dir: files go to its folder `theory`.
        tracking_uri: None for MLFLOW_TRACKING_URI, or the default store in `runs_dir`.
        as_json: prints the slopes as JSON, and all else on stderr.
        workers: processes; None for two, or one where there is one core.

    Raises:
        UsageError: an unknown size.
        StorageError: a file cannot be written.
    """
    plans = make_suite(size)
    console = display.console(quiet=as_json)
    say = partial(display.print_line, console)
    folder = reports_dir / FOLDER
    probe = folder / ".writable"
    write_text(probe, "")  # before the work, not after it
    probe.unlink()
    weak = [
        f"note: {plan.scenario.setting_title}: {line}"
        for plan in plans
        for line in plan.scenario.problem(plan.sizes[-1]).weaknesses
    ]
    for line in dict.fromkeys(weak):
        say(line)
    start = time.monotonic()
    workers = workers or min(MOST_WORKERS, os.cpu_count() or 1)
    study, found = run_study(plans, size=size, workers=workers, console=console)
    files = write_study(study, found, folder)
    seconds = time.monotonic() - start
    for line in outcome(study, width=console.width):
        say(line)
    say(f"\nPage:    {files[-1]}\nTables and figure: {folder}")
    say(_track(study, files, runs_dir, tracking_uri, seconds))
    say(f"{seconds:.1f} s, with MLflow {time.monotonic() - start:.1f} s")
    if as_json:
        display.print_json({"slopes": slope_records(study), "files": [str(path) for path in files]})
    return 0


def run_study(
    plans: Sequence[Plan], *, size: str, workers: int, console: Console
) -> tuple[Study, list[Errors]]:
    """A suite's study, and the errors of each of its fits, with a bar while it runs."""
    from rich.progress import Progress

    # The layer first: loading what it needs takes longer than any fit.
    layer = () if size == WITHOUT_LAYER else (show_identities,)
    jobs: list[Callable[[], object]] = [*layer, *jobs_of(plans, SEED)]
    if not console.is_terminal:
        console.print(f"{len(jobs)} jobs", highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        running = run_jobs(jobs, workers=workers)
        results = list(bar.track(running, total=len(jobs), description="fits"))
    found = [result for result in results if isinstance(result, Errors)]
    identities = results[0] if layer else ()
    assert isinstance(identities, tuple)
    return replace(summarise(found, size=size, seed=SEED), identities=identities), found


def outcome(study: Study, *, width: int) -> list[str]:
    """What is printed of a study: slopes, findings, cautions and the mixtures of experts."""
    lines = [to_text(slope_table(study), width)]
    lines += [f"- {line}" for line in statements(study)]
    lines += ["\nWhat may not be read from it:", *(f"- {line}" for line in cautions(study)), ""]
    for found in study.identities:
        lines.append(
            f"{found.method}, layer {found.layer} of the demo model as a mixture of experts: sum "
            f"{found.total:.6f}, model {found.output:.6f}; largest difference in the layer "
            f"{found.largest_difference:.1e}"
        )
    if not study.identities:
        what = "The layer of the demo model as a mixture of experts"
        lines.append(f"{what} is left out of '{study.size}'.")
    return lines


def _track(
    study: Study, files: Sequence[Path], runs_dir: Path, option: str | None, seconds: float
) -> str:
    """Logs one run; returns the line that says where, or why it could not be logged."""
    from harness.errors import mask_secrets
    from harness.tracking.address import resolve_uri
    from harness.tracking.study import log_study

    uri = resolve_uri(None, runs_dir, option)
    if uri is None:
        return "MLflow:  not logged (none)"
    metrics = {"seconds": seconds}
    for row in study.find():
        assert row.slope is not None
        head, slope = f"{row.scenario.name}/{row.quantity}", row.slope
        metrics |= {f"{head}/slope": slope.value, f"{head}/low": slope.low}
        metrics[f"{head}/high"] = slope.high
    params = {
        "size": study.size,
        "seed": study.seed,
        "n": ", ".join(map(str, study.sizes)),
        "repetitions": study.repetitions,
        "settings": len(study.efforts),
    }
    name = f"{FOLDER}-{study.size}"
    try:
        log_study(
            uri, runs_dir, experiment=FOLDER, name=name, params=params, metrics=metrics, files=files
        )
    except TrackingError as fault:
        return f"warning: {fault}; the files above are whole"
    return f"MLflow:  {mask_secrets(uri)}, experiment {FOLDER}"
