"""The URI of an MLflow store: which one a run logs to, and how it is shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.errors import TrackingError
from harness.grid.schema import GridSpec


def default_uri(runs_dir: Path) -> str:
    """The tracking URI of a runs folder: `sqlite:///<runs>/mlflow.db`."""
    return f"sqlite:///{(runs_dir / 'mlflow.db').resolve()}"


def resolve_uri(grid: GridSpec, runs_dir: Path, option: str | None) -> str:
    """The URI of the option, else of MLFLOW_TRACKING_URI, of the grid, or the default."""
    chosen = option or os.environ.get("MLFLOW_TRACKING_URI") or grid.tracking.uri
    return chosen or default_uri(runs_dir)


def hide_password(uri: str) -> str:
    """The URI without the user and password that it may carry."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    path = re.sub(r"(password=)[^&]*", r"\1***", path)
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def shown_uri(uri: str, runs_dir: Path) -> str:
    """The URI for a page that others read: no password, and no folder above `runs_dir`."""
    if uri == default_uri(runs_dir) and not runs_dir.is_absolute():
        return f"sqlite:///{runs_dir / 'mlflow.db'}"
    return hide_password(uri)


def tracking_error(uri: str, fault: Exception) -> TrackingError:
    """What went wrong with the store at `uri`, in one line, without its password."""
    text = " ".join(str(fault).split()) or type(fault).__name__
    silence = re.search(r"\[Errno -?\d+\] ([A-Z][a-z ]+)|(timed out)", text)
    if silence and uri.startswith("http"):
        said = f"no answer ({silence[1] or silence[2]})"
    else:
        said = text.replace(uri, hide_password(uri))[:300]
    return TrackingError(f"MLflow at {hide_password(uri)}: {said}")
