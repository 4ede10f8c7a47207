"""The tracking server and the hub: whether they answer, know us, and agree on the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from harness.errors import TrackingError, UsageError, ZbenchError, mask_secrets, one_line
from harness.evaluation.task_data import is_offline
from harness.grid.inputs import inputs_of_cells
from harness.prepare.doctor.finding import SECONDS, Context, Finding
from harness.prepare.doctor.storage import MOST_CLOCK_SECONDS
from harness.prepare.listing import HubFault, list_repository
from harness.prepare.offline import has_no_network, missing_needs
from harness.prepare.wants import find_wants
from harness.records.prefetched import is_prefetched
from harness.tracking.address import is_own, resolve_uri
from harness.tracking.faults import store_errors

MOST_NAMES = 5


def check_tracking(context: Context) -> Iterator[Finding]:
    """Whether the MLflow store answers, and the grid's experiment can be written."""
    spec = None if context.grid is None else context.grid.spec
    try:
        uri = resolve_uri(spec, context.runs_dir, context.tracking_uri)
    except UsageError as fault:
        yield Finding("tracking", "error", one_line(fault), "correct the address")
        return
    if uri is None:
        yield Finding("tracking", "ok", "nothing is logged (none); results are in the runs folder")
        return
    shown = mask_secrets(uri)
    if is_own(uri, context.runs_dir) and not (context.runs_dir / "mlflow.db").exists():
        yield Finding("tracking", "ok", f"{shown}: is made with the first run")
        return
    try:
        said = _ask_store(uri, context)
    except (TrackingError, ZbenchError) as fault:
        advice = "training goes on without it, and `zbench sync` logs afterwards"
        yield Finding("tracking", "error", one_line(fault), advice)
        return
    yield Finding("tracking", "ok", f"{shown}: {said}")


def _ask_store(uri: str, context: Context) -> str:
    """What a store says: its version, and that the grid's experiment takes a tag."""
    from harness.tracking.store import Store

    said = "answers"
    if uri.startswith("http"):
        version, _ = _get(f"{uri.rstrip('/')}/version")
        said = f"MLflow {version.strip()[:20]}" if version else "answers"
    with store_errors(uri):
        if context.grid is None:
            Store(uri, context.runs_dir, write=False).client.search_experiments(max_results=1)
            return said
        spec = context.grid.spec
        store, name = Store(uri, context.runs_dir), spec.tracking.experiment or spec.name
        experiment = store.experiment_id(name)
        store.client.set_experiment_tag(experiment, "zbench.doctor", "was here")
    return f"{said}; experiment '{name}' can be written"


def _get(address: str) -> tuple[str, float | None]:
    """What an address answers, and by how many seconds its clock is ahead."""
    try:
        with urlopen(Request(address), timeout=SECONDS / 2) as answer:
            return answer.read(1000).decode(errors="replace"), _ahead(answer.headers.get("Date"))
    except HTTPError as fault:
        return "", _ahead(fault.headers.get("Date"))
    except (OSError, ValueError):
        return "", None


def _ahead(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError):
        return None


def check_clocks(context: Context) -> Iterator[Finding]:
    """The clocks of the tracking server and the hub, against this machine's."""
    from huggingface_hub import constants

    places = [] if is_offline() else [constants.ENDPOINT]
    spec = None if context.grid is None else context.grid.spec
    try:
        uri = resolve_uri(spec, context.runs_dir, context.tracking_uri)
        places += [uri] if uri is not None and uri.startswith("http") else []
    except UsageError:
        pass  # told by the check of the tracking server
    for place in places:
        _, ahead = _get(place)
        host = urlsplit(place).hostname
        if ahead is not None and abs(ahead) > MOST_CLOCK_SECONDS + 1:  # a date has whole seconds
            said = f"the clock of {host} differs from this machine's by {abs(ahead):,.0f} s"
            yield Finding("clock", "warning", said, "have this machine's clock set by NTP")


def check_hub(context: Context) -> Iterator[Finding]:
    """Whether the hub answers, and knows the token."""
    from huggingface_hub import HfApi, constants, get_token

    if is_prefetched(context.data_root):
        said = f"{context.data_root} stands for it: prefetched, no network is asked"
        yield Finding("hub", "ok", said)
        return
    if is_offline():
        yield Finding("hub", "ok", "not asked: the network is switched off (HF_HUB_OFFLINE)")
        return
    token = get_token()
    try:
        name = HfApi(token=token).whoami()["name"] if token else None
        if token is None:
            _, ahead = _get(constants.ENDPOINT)
            if ahead is None:
                raise ConnectionError
    except Exception as fault:  # of the hub's client and its HTTP library, of many kinds
        status = getattr(getattr(fault, "response", None), "status_code", None)
        if status in (401, 403):
            advice = "make a new one at the hub, and set HF_TOKEN or run `hf auth login`"
            yield Finding("hub", "error", f"{constants.ENDPOINT} does not know the token", advice)
            return
        why = one_line(mask_secrets(str(fault)))[:80]
        said = f"{constants.ENDPOINT}: no answer{f' ({why})' if why else ''}"
        advice = "see to network and proxy, or `zbench prefetch` elsewhere and give --data-root"
        yield Finding("hub", "warning", said, advice)
        return
    known = f"the token is that of {one_line(name)}" if name else "no token (HF_TOKEN)"
    yield Finding("hub", "ok", f"{constants.ENDPOINT} answers; {known}")


def check_access(context: Context) -> Iterator[Finding]:
    """Whether the hub has what the grid reads of it, and lets us have it."""
    if context.grid is None or is_offline() or is_prefetched(context.data_root):
        return
    wants = find_wants(inputs_of_cells(context.grid.cells), context.data_root)
    told = []
    for repository in wants.repositories:
        try:
            found = list_repository(repository)
        except HubFault as fault:
            said = str(fault)
            if "does not answer" in said:
                yield Finding("access", "unknown", "the hub does not answer, so nobody knows")
                return
            yield Finding("access", "error", said, "else the cells that read it fail")
            continue
        told.append(f"{repository.name}{' (gated)' if found.gate else ''}")
    if told:
        more = f" and {len(told) - MOST_NAMES} more" if len(told) > MOST_NAMES else ""
        yield Finding("access", "ok", f"may read {', '.join(told[:MOST_NAMES])}{more}")


def check_caches(context: Context) -> Iterator[Finding]:
    """What the grid reads and this machine has not."""
    if context.grid is None:
        return
    missing = missing_needs(context.grid.expected, context.data_root)
    if not missing:
        yield Finding("models and data", "ok", "all that the grid reads is here")
        return
    more = f" and {len(missing) - MOST_NAMES} more" if len(missing) > MOST_NAMES else ""
    said = f"not here: {', '.join(missing[:MOST_NAMES])}{more}"
    command = f"`zbench prefetch {context.grid.argument} --to DIR` where there is network"
    if has_no_network(context.executor) or is_offline():
        yield Finding("models and data", "error", said, f"{command}, then --data-root DIR")
    else:
        yield Finding("models and data", "warning", f"{said}; fetched when it runs", command)
