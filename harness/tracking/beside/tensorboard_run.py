"""TensorBoard: event files in `<runs>/tensorboard/<cell>/`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from harness.tracking.beside.run import Begun, RunInfo


class TensorboardRun:
    """The event file of one cell; see `BesideRun`."""

    def __init__(self, info: RunInfo, begun: Begun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # All steps come again: what is in an earlier file of the cell is not shown twice.
        purge = None if begun == "scores" else 0
        folder = info.runs_dir / "tensorboard" / info.folder
        self.writer = SummaryWriter(str(folder), purge_step=purge)
        if begun != "scores":
            text = json.dumps(dict(info.config), indent=1)
            self.writer.add_text("params", f"```\n{text}\n```")

    def log(self, values: Mapping[str, float], *, step: int, time_ms: int) -> None:
        """Logs the metrics of a step."""
        for key, value in values.items():
            self.writer.add_scalar(key, value, step, walltime=time_ms / 1000)

    def log_epoch(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Logs what is measured once an epoch."""
        for key, value in values.items():
            self.writer.add_scalar(key, value, epoch)

    def finish(self, values: Mapping[str, float], error: str | None) -> None:
        """Logs scores and costs, or why the cell failed, and ends the run."""
        self.log_epoch(values, epoch=0)
        if error is not None:
            self.writer.add_text("error", error)
        self.writer.close()

    def leave(self) -> None:
        """Closes the file."""
        self.writer.close()


def open_run(info: RunInfo, begun: Begun) -> TensorboardRun:
    """The event file of a cell."""
    return TensorboardRun(info, begun)


def note(runs_dir: str) -> str:
    """How to see the runs."""
    return f"`tensorboard --logdir {runs_dir}/tensorboard` opens it"
