"""Runs a function in several processes that train together, as the executor starts them."""

from __future__ import annotations

import io
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from harness.distributed import GroupMember, joined


def run_ranks(function: Callable[..., Any], folder: Path, *args: Any, size: int = 2) -> list[Any]:
    """Returns what `function(rank, *args)` returns on each rank; it stands in a module.

    Raises:
        AssertionError: a rank failed; its traceback is told.
    """
    context = multiprocessing.get_context("spawn")
    store = folder / "store"
    store.unlink(missing_ok=True)
    pipes, processes = [], []
    for rank in range(size):
        here, there = context.Pipe()
        member = GroupMember(rank, size, str(store), silence_seconds=60)
        process = context.Process(target=_run, args=(there, member, function, args), daemon=True)
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    answers = [_answer(pipe) for pipe in pipes]
    for process in processes:
        process.join(timeout=20)
        process.kill()
    faults = [answer for kind, answer in answers if kind == "fault"]
    assert not faults, "\n".join(faults)
    return [answer for _, answer in answers]


def _answer(pipe: Connection) -> tuple[str, Any]:
    try:
        if not pipe.poll(240):
            return "fault", "a rank does not answer"
        return torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)
    except EOFError:
        return "fault", "a rank died"


def _send(pipe: Connection, answer: tuple[str, Any]) -> None:
    """Sends an answer whole: tensors in a pipe are only references to the process' memory."""
    text = io.BytesIO()
    torch.save(answer, text)
    pipe.send_bytes(text.getvalue())


def _run(
    pipe: Connection, member: GroupMember, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.update(member.environment)
    torch.set_num_threads(1)
    try:
        with joined(member, "cpu"):
            answer = function(member.rank, *args)
        _send(pipe, ("done", answer))
    except Exception:
        _send(pipe, ("fault", f"rank {member.rank}: {traceback.format_exc()}"))
