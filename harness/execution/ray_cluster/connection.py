"""Reaching a Ray cluster, and what is refused before anything is submitted to it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import __version__
from harness.errors import UsageError, one_line, shortened
from harness.execution.ray_cluster.node_task import NodeReport, look_from_node
from harness.execution.scheduling import devices_needed
from harness.grid.shared_folder import FolderProbe, begin_probe, end_probe
from harness.grid.status import CellState

CONNECT_SECONDS = 30.0
"""How long a cluster may take to answer. Ray itself tries for many minutes."""
PROBE_SECONDS = 120.0
"""How long a node may take to start a process and look at the folders."""
ADDRESS_VARIABLE = "RAY_ADDRESS"


@dataclass(frozen=True)
class Node:
    """A node of the cluster that lives."""

    id: str
    host: str
    cpus: float
    gpus: float


def connect() -> None:
    """Connects this process to the cluster of RAY_ADDRESS, or the one of this machine.

    Raises:
        UsageError: Ray is not installed, no cluster answers, or it is of another version.
    """
    # Ray reads them when it is imported. A raylet that dies would print its last lines on stdout,
    # whatever `log_to_driver` says; the others stand for a warning, and for a report to its makers.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as fault:
        raise UsageError(
            f"--executor ray: Ray cannot be imported ({one_line(fault)}); pip install 'zbench[ray]'"
        ) from fault
    if ray.is_initialized():
        return
    address = os.environ.get(ADDRESS_VARIABLE) or "auto"
    _check_address(address)
    faults: list[Exception] = []

    def init() -> None:
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as fault:
            faults.append(fault)

    # In a thread, since it may take minutes where nobody answers. It would put handlers of its own
    # on the signals, which abort the process.
    with _kept_handlers(), _no_native_output():
        thread = threading.Thread(target=init, daemon=True)
        thread.start()
        thread.join(CONNECT_SECONDS)
    if thread.is_alive():
        raise _silent(address, f"no answer in {CONNECT_SECONDS:.0f} s")
    if faults:
        text = str(faults[0])
        raise version_fault(text) or _silent(address, one_line(text)) from faults[0]


def _check_address(address: str) -> None:
    """Refuses what is no address of a cluster, or where nobody listens."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"{ADDRESS_VARIABLE}={shortened(address)}: is no address of a cluster; give the head's "
            "host and port, as `ray start --head` prints them: 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as fault:
        raise _silent(address, fault.strerror or one_line(fault)) from fault


def _silent(address: str, why: str) -> UsageError:
    where = (
        "on this machine" if address == "auto" else f"at {ADDRESS_VARIABLE}={shortened(address)}"
    )
    return UsageError(
        f"--executor ray: no Ray cluster {where} ({shortened(why, 200)}); start one with `ray "
        f"start --head`, or set {ADDRESS_VARIABLE} to the host and port of a head"
    )


def version_fault(text: str) -> UsageError | None:
    """The refusal for Ray's own message that versions differ; None for another message."""
    found = re.findall(r"Ray: (\S+)\s+Python: (\S+)", text)
    if len(found) != 2:
        return None
    (ray_there, python_there), (ray_here, python_here) = found
    return UsageError(
        f"--executor ray: the cluster has Ray {ray_there} on Python {python_there}, and this is "
        f"Ray {ray_here} on Python {python_here}; use the same environment on all machines"
    )


@contextlib.contextmanager
def _kept_handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _no_native_output() -> Iterator[None]:
    """Silences what Ray's own code writes for developers while it tries to connect."""
    sys.stderr.flush()
    kept, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def live_nodes() -> list[Node]:
    """The nodes that live, the largest first."""
    import ray

    found = [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: (-node.gpus, -node.cpus, node.id))


def resources(needed: int, device: str) -> dict[str, float]:
    """What a cell asks of Ray: a GPU, or a core, per process; all of them are on one node."""
    cores = {"num_cpus": float(needed)}
    return cores | {"num_gpus": float(needed)} if device == "cuda" else cores


def fits(node: Node, needed: int, device: str) -> bool:
    """Whether a node could run a cell once nothing else runs there."""
    asked = resources(needed, device)
    return node.cpus >= asked["num_cpus"] and node.gpus >= asked.get("num_gpus", 0)


def check_sizes(states: Sequence[CellState], nodes: Sequence[Node], device: str) -> None:
    """Refuses cells that no node could take: Ray would let them wait for ever.

    Raises:
        UsageError: a cell is larger; the message names the first and counts the others.
    """
    large = [
        state
        for state in states
        if not any(fits(node, devices_needed(state), device) for node in nodes)
    ]
    if not large:
        return
    needed = devices_needed(large[0])
    cpus, gpus = (max((getattr(n, kind) for n in nodes), default=0.0) for kind in ("cpus", "gpus"))
    most = f"{gpus:g} GPUs and {cpus:g} CPUs" if device == "cuda" else f"{cpus:g} CPUs"
    asked = f"{needed} GPUs and as many CPUs" if device == "cuda" else f"{needed} CPUs"
    more = f" ({len(large) - 1} more cells likewise)" if len(large) > 1 else ""
    raise UsageError(
        f"{large[0].cell.label}: needs {asked} on one node, and the Ray cluster's {len(nodes)} "
        f"nodes have at most {most}{more}; lower gpus_per_cell in the grid, add a larger node, or "
        "choose other cells with --only"
    )


def check_folders(nodes: Sequence[Node], runs_dir: Path, data_root: Path | None) -> None:
    """Has a task on each node answer a probe file in the runs folder.

    Raises:
        UsageError: a node does not see the folders, has another version of zbench, or is silent.
    """
    with contextlib.ExitStack() as stack:
        probes = {node: stack.enter_context(begin_probe(runs_dir)) for node in nodes}
        for node, report in _reports(probes, data_root):
            where = f"--executor ray: node {report.host}"
            if report.zbench != __version__:
                raise UsageError(
                    f"{where} has zbench {report.zbench}, and this is {__version__}; use the same "
                    "environment on all machines"
                )
            if report.fault is not None:
                raise UsageError(f"{where}: {report.fault}")
            end_probe(probes[node])  # which keeps how far the folder's locks reach


def _reports(
    probes: Mapping[Node, FolderProbe], data_root: Path | None
) -> Iterator[tuple[Node, NodeReport]]:
    """What the nodes tell; one that is lost meanwhile tells nothing."""
    import ray
    from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(look_from_node)
    asked: dict[Any, Node] = {}
    for node, probe in probes.items():
        here = NodeAffinitySchedulingStrategy(node.id, soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": here}
        asked[look.options(**options).remote(probe.path, data_root)] = node
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
    for answer in done:
        node = asked[answer]
        try:
            yield node, ray.get(answer)
        except (NodeDiedError, TaskUnschedulableError):
            continue
        except RayError as fault:
            cause = getattr(fault, "cause", None) or str(fault).strip().splitlines()[-1]
            raise UsageError(
                f"--executor ray: node {node.host} cannot run zbench ({one_line(cause)}); use the "
                "same environment on all machines"
            ) from fault
    if silent:
        raise UsageError(
            f"--executor ray: node {asked[silent[0]].host} started nothing in {PROBE_SECONDS:.0f} "
            "s; see its raylet's log (/tmp/ray/session_latest/logs)"
        )
