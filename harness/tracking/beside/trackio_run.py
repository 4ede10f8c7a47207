"""Trackio: a local database in `<runs>/trackio/`, or where TRACKIO_DIR or TRACKIO_SPACE_ID say."""

from __future__ import annotations

import contextvars
import os
import re
from collections.abc import Mapping

from harness.tracking.beside.run import Begun, RunInfo


class TrackioRun:
    """The run of one cell; see `BesideRun`."""

    def __init__(self, info: RunInfo, begun: Begun) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(info.runs_dir.resolve() / "trackio"))
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        # In a context of its own: else it would end the run that was begun before.
        self.run = contextvars.copy_context().run(
            trackio.init,
            project=re.sub(r"[^\w.-]", "-", info.project),
            name=info.name,
            group=info.group,
            config=dict(info.config),
            resume="never" if begun == "fresh" else "allow",
            auto_log_gpu=False,
            auto_log_cpu=False,
            embed=False,
        )
        logs = SQLiteStorage.get_logs(self.run.project, self.run.name, run_id=self.run.id)
        self.held = {(key, log["step"]) for log in logs for key in log}
        """Metric and step of the points that the run holds: those that come again are left out."""
        self.last_step = max((int(log["step"]) for log in logs), default=0)

    def log(self, values: Mapping[str, float], *, step: int, time_ms: int) -> None:
        """Logs the metrics of a step."""
        self.last_step = max(self.last_step, step)
        new = {key: value for key, value in values.items() if (key, step) not in self.held}
        if new:
            self.run.log(new, step=step)

    def log_epoch(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Logs what is measured once an epoch; its step is the epoch."""
        last = self.last_step
        self.log(values, step=epoch, time_ms=0)
        self.last_step = last

    def finish(self, values: Mapping[str, float], error: str | None) -> None:
        """Logs scores and costs, or why the cell failed, and ends the run."""
        if values:
            self.run.log(dict(values), step=self.last_step)
        if error is not None:
            self.run.alert("failed", error)
        self.run.finish()

    def leave(self) -> None:
        """Writes what waits."""
        self.run.finish()


def open_run(info: RunInfo, begun: Begun) -> TrackioRun:
    """The run of a cell."""
    return TrackioRun(info, begun)


def note(runs_dir: str) -> str:
    """How to see the runs."""
    place = os.environ.get("TRACKIO_DIR", f"{runs_dir}/trackio")
    return f"`TRACKIO_DIR={place} trackio show` opens it"
