"""The address of an MLflow store: which one is meant, how it is shown, and the file it names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from harness.errors import UsageError, mask_secrets
from harness.grid.schema import GridSpec
from harness.grid.tracking_uri import NOWHERE, SERVERS, uri_fault

DATABASE_FILE = "mlflow.db"
"""The database of a runs folder."""
ARTIFACTS_FOLDER = "artifacts"
"""Where a runs folder keeps the files of its MLflow runs, by the run's id."""


def default_uri(runs_dir: Path) -> str:
    """The tracking URI of a runs folder: `sqlite:///<runs>/mlflow.db`."""
    return sqlite_uri((runs_dir / DATABASE_FILE).resolve())


def sqlite_uri(path: Path) -> str:
    """The URI of a database file."""
    text = str(path)
    if not {"%", "?"} & set(text):
        return f"sqlite:///{text}"
    # With the driver's name MLflow does not make the folder of the name as it is written here.
    return "sqlite+pysqlite:///" + text.replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """The database file that a URI names; None for a server."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]*)(?:\?.*)?", uri, re.DOTALL | re.IGNORECASE)
    if found is None:
        return None
    literal = Path(found[1])
    if found[1].startswith("~"):
        return Path(unquote(found[1])).expanduser()
    # A folder such as a%20b that is there is meant as it is written, by one who knows no URIs.
    plain = uri.startswith("sqlite:///") and literal.parent.is_dir()
    return literal if plain else Path(unquote(found[1]))


def is_own(uri: str, runs_dir: Path) -> bool:
    """Whether a URI names the runs folder's own database, which knows nothing that is not there."""
    path = sqlite_path(uri)
    return path is not None and path.resolve() == (runs_dir / DATABASE_FILE).resolve()


def is_server(uri: str) -> bool:
    """Whether a URI names a server, which takes what many processes log at once."""
    return uri.partition("://")[0].lower() in SERVERS


def resolve_uri(grid: GridSpec | None, runs_dir: Path, option: str | None) -> str | None:
    """The URI of the option, else of MLFLOW_TRACKING_URI, of the grid, or the default.

    None where the first of them is `none`: nothing is logged or looked for.

    Raises:
        UsageError: no MLflow store can have it.
    """
    given = {
        "--tracking-uri": option,
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI"),
        "tracking.uri": None if grid is None else grid.tracking.uri,
    }
    for place, uri in given.items():
        if uri is None or (not uri and place != "--tracking-uri"):
            continue
        if fault := uri_fault(uri):
            raise UsageError(f"{place}: {mask_secrets(uri)!r} {fault}")
        if uri == NOWHERE:
            return None
        path, query = sqlite_path(uri), uri.partition("?")[1:]
        return uri if path is None else sqlite_uri(path.resolve()) + "".join(query)
    return default_uri(runs_dir)


def shown_uri(uri: str | None, runs_dir: Path) -> str:
    """The URI for a page that others read: no secret, and no folder above `runs_dir`."""
    if uri is None:
        return NOWHERE
    if is_own(uri, runs_dir) and not runs_dir.is_absolute():
        return sqlite_uri(runs_dir / DATABASE_FILE)
    return mask_secrets(uri)
