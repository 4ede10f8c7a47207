"""Refuses a run whose machines have no network and lack something, before anything is submitted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.estimate.needs import Need, find_needs
from harness.evaluation.task_data import is_offline
from harness.grid.status import CellState
from harness.readers.files import Unreadable
from harness.records.prefetched import is_prefetched, read_manifest

MOST_NAMES = 4
OFF = ("0", "OFF", "NO", "FALSE")


def missing_needs(states: Sequence[CellState], data_root: Path | None) -> list[str]:
    """What the cells that are to do read and this machine lacks, in words.

    Of a prefetched data root also what was begun and is not whole.
    """
    needs = find_needs(states, data_root)
    begun = _begun(data_root)
    return [
        f"{need.kind} {need.name}" + (" (not whole)" if need.here else "")
        for need in needs
        if not need.here or _source(need) in begun
    ]


def _begun(data_root: Path | None) -> set[str]:
    """The repositories of a prefetched folder that are not whole."""
    if data_root is None or not is_prefetched(data_root):
        return set()
    try:
        entries = read_manifest(data_root).get("repositories", {}).values()
        return {str(one["name"]) for one in entries if not one["complete"]}
    except (Unreadable, KeyError, TypeError, AttributeError) as fault:
        raise UsageError(
            f"{data_root}: its manifest is damaged ({fault}); prefetch again"
        ) from None


def _source(need: Need) -> str:
    return need.name.split("@")[0]


def has_no_network(executor: str) -> bool:
    """Whether the machines that run cells are taken to have no network.

    Here that is so where the user says it (HF_HUB_OFFLINE); on the nodes of a cluster unless the
    user says that they have one (HF_HUB_OFFLINE=0).
    """
    if executor == "local" or is_offline():
        return is_offline()
    return os.environ.get("HF_HUB_OFFLINE", "").upper() not in OFF


def refuse_missing(
    states: Sequence[CellState], data_root: Path | None, *, executor: str, grid: str
) -> None:
    """Stops before anything runs or is submitted that would end for want of a file.

    Args:
        executor: who places the cells.
        grid: what the user called the grid, for the command that fetches.

    Raises:
        UsageError: something is missing; one line says what, and how to fetch it.
    """
    if not has_no_network(executor):
        return
    missing = missing_needs(states, data_root)
    if not missing:
        return
    more = f" and {len(missing) - MOST_NAMES} more" if len(missing) > MOST_NAMES else ""
    folder = str(data_root) if is_prefetched(data_root) else "DIR"
    command = f"zbench prefetch {shlex.quote(grid)} --to {folder}"
    where, have = "on this machine", ""
    if not is_offline():
        where, have = "here", " (if its nodes have network: HF_HUB_OFFLINE=0)"
    give = "" if is_prefetched(data_root) else f", then give --data-root {folder}"
    raise UsageError(
        f"not {where}, and there is no network to fetch it: {', '.join(missing[:MOST_NAMES])}"
        f"{more}; where there is network, run `{command}`{give}{have}"
    )
