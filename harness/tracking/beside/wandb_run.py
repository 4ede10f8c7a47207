"""Weights & Biases: online where there is a key and a network, else files in `<runs>/wandb/`."""

from __future__ import annotations

import netrc
import os
import re
import socket
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.errors import StorageError
from harness.records.files import write_text
from harness.tracking.beside.run import Begun, RunInfo

REACH_SECONDS = 3.0
EPOCH_METRICS = ("validation/epoch_loss", "train/epoch_loss")


class WandbRun:
    """The run of one cell; see `BesideRun`."""

    def __init__(self, info: RunInfo, begun: Begun) -> None:
        import wandb

        # Same metrics as in MLflow, and nothing of the machine.
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, save_code=False,
            x_disable_stats=True, init_timeout=30.0,
        )  # fmt: skip
        arguments: dict[str, Any] = {
            "project": re.sub(r"[/\\#?%:\s]", "-", info.project),
            "name": info.name,
            "group": info.group,
            "id": _run_id(info, begun),
            "resume": "allow",
            "config": dict(info.config),
            "dir": os.environ.get("WANDB_DIR") or str(info.runs_dir),
            "reinit": "create_new",
            "settings": settings,
        }
        try:
            self.run = wandb.init(**arguments, **_mode())
        except wandb.errors.CommError:  # no answer in time
            self.run = wandb.init(mode="offline", **arguments)
        for key in EPOCH_METRICS:
            self.run.define_metric(key, step_metric="epoch")

    def log(self, values: Mapping[str, float], *, step: int, time_ms: int) -> None:
        """Logs the metrics of a step; of a resumed run those that the server has not."""
        if step >= self.run.step:
            self.run.log({**values, "_timestamp": time_ms / 1000}, step=step)

    def log_epoch(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Logs what is measured once an epoch, on an axis of epochs."""
        self.run.log({**values, "epoch": epoch})

    def finish(self, values: Mapping[str, float], error: str | None) -> None:
        """Puts scores and costs, or why the cell failed, into the run's summary, and ends it."""
        self.run.summary.update(dict(values) | ({} if error is None else {"error": error}))
        self.run.finish(exit_code=0 if error is None else 1)

    def leave(self) -> None:
        """Writes what waits."""
        self.run.finish(exit_code=1)


def open_run(info: RunInfo, begun: Begun) -> WandbRun:
    """The run of a cell."""
    return WandbRun(info, begun)


def note(runs_dir: str) -> str | None:
    """How to upload the runs, where they are files only."""
    if not _mode() and os.environ.get("WANDB_MODE") != "offline":
        return None
    place = os.environ.get("WANDB_DIR") or runs_dir
    return f"offline; `wandb sync {place}/wandb/offline-run-*` uploads it"


def _run_id(info: RunInfo, begun: Begun) -> str:
    """The run's id: kept in the runs folder, so that a resumed training goes on in its run."""
    place = info.runs_dir / "wandb" / "ids" / f"{info.cell_id}.{info.group}"
    if begun != "fresh":
        try:
            return place.read_text(encoding="utf-8").strip() or uuid.uuid4().hex[:16]
        except OSError:  # its first run
            pass
    made = uuid.uuid4().hex[:16]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, made)
    except (OSError, StorageError):  # a later resume begins a run of its own
        pass
    return made


@cache
def _mode() -> dict[str, Any]:
    """`offline` where there is no key or no network; nothing where W&B's own settings decide."""
    if os.environ.get("WANDB_MODE"):
        return {}
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    return {} if _has_key(host) and _answers(host, port) else {"mode": "offline"}


def _has_key(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    place = os.environ.get("NETRC") or Path.home() / ".netrc"
    try:
        return netrc.netrc(place).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=REACH_SECONDS):
            return True
    except OSError:
        return False
