"""`zbench theory`: simulate, show the slopes, write files and page, log one MLflow run."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import display
from harness.errors import TrackingError, UsageError
from harness.records.files import write_text
from harness.report.theory_files import slope_records, write_study
from harness.theory.identity import show_identities
from harness.theory.statements import (
    cautions,
    exponent_text,
    number_text,
    slope_text,
    statements,
    verdict,
)
from harness.theory.study import Errors, run_jobs, run_task, tasks_of
from harness.theory.suites import Plan, make_suite
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
    """Returns the suite that the options ask for.

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
        runs_dir: holds the default MLflow store.
        tracking_uri: another store; None for MLFLOW_TRACKING_URI or the default.
        as_json: prints the slopes as JSON, and all else on stderr.
        workers: processes; None for two, or one where there is one core.

    Raises:
        UsageError: an unknown size.
        StorageError: a file cannot be written.
    """
    plans = make_suite(size)
    console = display.console(quiet=as_json)
    if workers is None:
        workers = min(MOST_WORKERS, os.cpu_count() or 1)
    elif workers < 1:
        raise UsageError(f"--workers must be at least 1 (got {workers})")
    folder = reports_dir / FOLDER
    probe = folder / ".writable"
    write_text(probe, "")  # before the work, not after it
    probe.unlink()
    weak = {
        f"{plan.scenario.setting_title}: {line}": None
        for plan in plans
        for line in plan.scenario.weaknesses(plan.sizes[-1])
    }
    for line in weak:
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    start = time.monotonic()
    study, found = run_study(plans, size=size, workers=workers, console=console)
    files = write_study(study, found, folder)
    files += _write_page(study, folder, files)
    seconds = time.monotonic() - start
    uri, problem = _track(study, files, runs_dir, tracking_uri, seconds)
    _print_outcome(console, study, files[-1], uri, problem)
    total = time.monotonic() - start
    console.print(f"{seconds:.1f} s, with MLflow {total:.1f} s", highlight=False)
    if as_json:
        record = {"slopes": slope_records(study), "files": [str(path) for path in files]}
        json.dump(record, sys.stdout, indent=1)
        print()
    return 0


def run_study(
    plans: Sequence[Plan], *, size: str, workers: int, console: Console
) -> tuple[Study, list[Errors]]:
    """Returns a suite's study, and the errors of each of its fits, with a bar while it works."""
    jobs: list[Callable[[], object]] = [partial(run_task, task) for task in tasks_of(plans, SEED)]
    if size != WITHOUT_LAYER:
        # First: loading what it needs takes longer than any fit.
        jobs.insert(0, show_identities)
    with _progress(console, len(jobs)) as advance:
        results = run_jobs(jobs, workers=workers, done=advance)
    found = [result for result in results if isinstance(result, Errors)]
    identities = results[0] if size != WITHOUT_LAYER else ()
    assert isinstance(identities, tuple)
    return replace(summarise(found, size=size, seed=SEED), identities=identities), found


@contextlib.contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[object], None]]:
    """Shows a bar of the finished jobs; nothing where the output is no terminal."""
    if not console.is_terminal:
        console.print(f"{total} jobs", highlight=False)
        yield lambda result: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("fits"), BarColumn(bar_width=24), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("fits", total=total)
        yield lambda result: bar.advance(task)


def _write_page(study: Study, folder: Path, others: Sequence[Path]) -> list[Path]:
    """Writes the slopes as Markdown and the page, which names the other files."""
    from harness.records.files import write_text
    from harness.report.render import to_markdown
    from harness.report.theory import slope_table, theory_page

    table, page = folder / "slopes.md", folder / "index.html"
    write_text(table, to_markdown(slope_table(study)))
    write_text(page, theory_page(study, [path.name for path in (*others, table)]))
    return [table, page]


def _track(
    study: Study, files: Sequence[Path], runs_dir: Path, option: str | None, seconds: float
) -> tuple[str, str | None]:
    """Logs one run; returns the store's URI, and what went wrong where it could not be reached."""
    from harness.tracking.study import log_study, study_uri

    uri = study_uri(runs_dir, option)
    metrics = {"seconds": seconds}
    for record in slope_records(study):
        for name in ("slope", "low", "high"):
            value = record[name]
            assert isinstance(value, float)
            metrics[f"{record['scenario']}/{record['quantity']}/{name}"] = value
    try:
        log_study(
            uri,
            runs_dir,
            experiment=FOLDER,
            name=f"{FOLDER}-{study.size}",
            params={
                "size": study.size,
                "seed": study.seed,
                "n": ", ".join(map(str, study.sizes)),
                "repetitions": study.repetitions,
                "settings": len(study.efforts),
            },
            metrics=metrics,
            files=files,
        )
    except TrackingError as fault:
        return uri, str(fault)
    return uri, None


def _print_outcome(
    console: Console, study: Study, page: Path, uri: str, problem: str | None
) -> None:
    from harness.tracking.uri import hide_password

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    _print_slopes(console, study)
    for line in statements(study):
        say(f"- {line}")
    say("\nWhat may not be read from it:")
    for line in cautions(study):
        say(f"- {line}")
    say("")
    for found in study.identities:
        say(
            f"{found.method}, layer {found.layer} of the demo model as a mixture of experts: sum "
            f"{found.total:.6f}, model {found.output:.6f}; largest difference in the layer "
            f"{found.largest_difference:.1e}"
        )
    if not study.identities:
        say(f"The layer of the demo model as a mixture of experts is left out of '{study.size}'.")
    say(f"\nPage:    {page}")
    say(f"Tables and figure: {page.parent}")
    if problem is None:
        say(f"MLflow:  {hide_password(uri)}, experiment {FOLDER}")
    else:
        say(f"warning: {problem}; the files above are whole")


def _print_slopes(console: Console, study: Study) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "error of"):
        table.add_column(column)
    for column in ("expected", "slope, 95% interval", "bound", "interval"):
        table.add_column(column, justify="right", no_wrap=True)
    truth = ""
    for row in study.rows:
        if row.expected is None:
            continue
        if row.scenario.setting_title != truth:
            truth = row.scenario.setting_title
            table.add_row(Text(truth, style="bold"))
        table.add_row(
            Text(f"  {row.scenario.model_title}"),
            Text(row.title),
            exponent_text(row.expected.exponent),
            Text(slope_text(row.slope)),
            "–" if row.predicted is None else number_text(row.predicted),
            verdict(row.slope, row.expected.exponent),
        )
    console.print(table)
    console.print(
        "expected: exponent of n in the limit; bound: slope of the Cramér–Rao bound over these n; "
        "steeper is faster",
        style="dim", highlight=False,
    )  # fmt: skip
