"""What goes wrong with an MLflow store, in one line that says what to do."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from harness.errors import TrackingError, mask_secrets, printable

LONGEST = 300
SIGN_IN = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to a "
    "user that may write there"
)
PACKAGES = {
    "psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"
}  # fmt: skip
"""A driver's module -> the package that brings it whole."""
NO_SERVER = "what answers there is no MLflow server; correct the address"
KNOWN: tuple[tuple[str, str], ...] = (
    (r"error code 40[13]\b|\b40[13] (?:client|unauthorized|forbidden)", f"refuses you; {SIGN_IN}"),
    (r"error code 404 != 200|error code 30\d\b|exceeded 30 redirects", NO_SERVER),
    (r"(?:in|not) (?:in )?a valid json|expecting value|failed to parse|jsondecode", NO_SERVER),
    (r"badstatusline|remote end closed|protocol error|incompleteread|badzipfile", NO_SERVER),
    (r"too many 5\d\d|error code 5\d\d|response body: '?internal server error",
     "fails (an error of the server); look into its log"),
    (r"error code 413", "takes no request of this size; raise its limit"),
    (r"too many 429|error code 429", "asks to be left alone for a while (429)"),
    (r"certificate verify|wrong.version.number|ssl(?:error|v3|\])",
     "no secure connection; correct http or https, or its certificate"),
    (r"name or service not known|failed to resolve|name resolution|nodename nor servname"
     r"|could not translate host|no address associated", "no answer (no such host)"),
    (r"connection refused", "no answer (Connection refused)"),
    (r"timed? ?out", "no answer (timed out)"),
    (r"no route to host|network is unreachable", "no answer (no route to the host)"),
    (r"connection (?:aborted|reset|was closed)|server closed the connection|broken pipe",
     "no answer (it closed the connection)"),
    (r"max retries exceeded|failed to establish", "no answer"),
    (r"password authentication failed|access denied for user|no password supplied",
     "refuses the user and password of the address; correct them"),
    (r"database \"?[\w-]*\"? does not exist|unknown database", "has no such database; create it"),
    (r"database (?:table )?is locked",
     "is locked by another program; end that, or try later"),
    (r"readonly database|attempt to write a readonly|read-only file system",
     "may only be read; give yourself the right to write to it, or another --runs-dir"),
    (r"no space left|database or disk is full|disk quota exceeded|\[errno 122\]",
     "the disk is full; free space"),
    (r"disk i/o error|input/output error", "its disk cannot be read or written; see to the disk"),
    (r"unable to open database file|permission denied",
     "cannot be opened or written; give yourself the right to"),
    (r"out-of-date database schema|can't locate revision",
     "is of another version of MLflow; bring it up to date with `mlflow db upgrade`"),
)  # fmt: skip
"""What a library says -> what that means and what to do; the first that is found."""
CLASS_NAME = re.compile(r"\(?\b(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Warning)\b\)?:? ?")


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns what goes wrong with a store into a TrackingError that names it, in one line."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as fault:  # MLflow, SQLAlchemy, requests and drivers raise of many kinds
        raise TrackingError(f"MLflow at {mask_secrets(uri)}: {explained(fault, uri)}") from fault


def explained(fault: BaseException, uri: str) -> str:
    """What an error means, with advice where that is known; nothing of it is secret."""
    if isinstance(fault, ModuleNotFoundError) and fault.name:
        package = PACKAGES.get(fault.name, fault.name)
        return f"needs a package that is not here; `pip install {package}`"
    said = " ".join(str(fault).split()) or type(fault).__name__
    for pattern, meaning in KNOWN:
        if re.search(pattern, said, re.IGNORECASE):
            return meaning
    text = re.split(r" ?\[SQL: | ?\(Background on this error| Response body: ", said)[0]
    text = CLASS_NAME.sub("", printable(mask_secrets(text, uri)))[:LONGEST].strip(" :")
    return text or "fails without a reason"
