"""The address of an MLflow store as a text: what can be wrong with it before anything is asked."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import field_validator

from harness.spec import Spec

SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
NOWHERE = "none"
"""What stands for an address where nothing is logged."""
FORMS = "http://HOST:PORT, sqlite:///PATH/mlflow.db or postgresql://HOST/NAME"
"""What an address may look like, for those who gave another; `none` logs nowhere."""


def uri_fault(uri: str) -> str | None:
    """What is wrong with the address of an MLflow store and what to do, or None."""
    if not uri.strip():
        return f"is empty; write {FORMS}"
    if not uri.isprintable():
        return f"holds control characters; write {FORMS}"
    if uri in (NOWHERE, "databricks", "databricks-uc", "uc"):
        return None
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return _no_scheme(uri)
    kind = scheme.lower().partition("+")[0]
    if kind == "sqlite":
        return _sqlite_fault(rest)
    if kind in SERVERS or kind in DATABASES:
        return _host_fault(uri, needs_host=kind in SERVERS)
    if kind == "databricks" or scheme in _plug_ins():
        return None
    return f"names no kind of MLflow store that is known here ({scheme}); write {FORMS}"


def _no_scheme(uri: str) -> str:
    host = re.match(r"(?:[^\s/@]*@)?((?:[\w-]+\.)*[\w-]+:\d+)(?:/|$)", uri)
    if host:
        return f"has no scheme; write http://{uri}"
    if re.match(r"(https?|sqlite|postgresql|mysql)\b", uri, re.IGNORECASE):
        return f"lacks :// after its scheme; write {FORMS}"
    return (
        "names a folder, a file store, which is not written to; write sqlite:///PATH/mlflow.db, "
        "the address of a server, or none to log nowhere"
    )


def _sqlite_fault(rest: str) -> str | None:
    path = rest.partition("?")[0]
    if not path.startswith("/"):
        return "has a host, and a database file has none; write sqlite:///PATH/mlflow.db"
    if path.strip("/") in ("", ":memory:"):
        return "names no file; write sqlite:///PATH/mlflow.db"
    if path.endswith("/"):
        return "names a folder; write the path of a file in it"
    return None


def _host_fault(uri: str, *, needs_host: bool) -> str | None:
    advice = "write @ : / ? # of a user or password as %40 %3A %2F %3F %23"
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"has no host and port that can be read; correct them, or {advice}"
    if not host and needs_host:
        return f"names no host; write {parts.scheme}://HOST:PORT"
    if host and not re.fullmatch(r"[\w.:%-]+", host):
        return f"has no host that can be read; correct it, or {advice}"
    return None


def _plug_ins() -> set[str]:
    """The schemes that installed packages add to MLflow."""
    return {found.name for found in importlib.metadata.entry_points(group="mlflow.tracking_store")}


BesideName = Literal["wandb", "trackio", "tensorboard"]
"""Trackers that may stand beside MLflow; see `harness.tracking.beside`."""


class TrackingSpec(Spec):
    """Where runs are logged. None of it is part of a cell's identity."""

    experiment: str | None = None
    """MLflow experiment; the grid's name where absent."""
    uri: str | None = None
    """MLflow tracking URI, or `none`: nothing is logged. `--tracking-uri` and MLFLOW_TRACKING_URI
    take precedence over it."""

    also: tuple[BesideName, ...] = ()
    """Trackers that get the same metrics beside MLflow; each is an extra: `zbench[wandb]`."""

    @field_validator("also", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if isinstance(value, str):
            return (value,)
        return tuple(dict.fromkeys(value)) if isinstance(value, list) else value

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str | None) -> str | None:
        if uri is not None and (fault := uri_fault(uri)):
            raise ValueError(fault)
        return uri
