"""The files that hold what a cell trained, and whether they are still what was written.

Needs neither torch nor PEFT.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.errors import ModelError
from harness.models.adapter_folder import CONFIG_FILE, WEIGHTS_FILE, advising
from harness.readers.files import Unreadable, check_file, unreadable
from harness.records.files import fresh_sha256_of_file

TRAINED_FILE = "trained.safetensors"
"""What is trained, where it is no adapter of PEFT."""
TRAIN_AGAIN = "to train the cell again, remove its folder and run the same command"


def trained_sha256(folder: Path) -> str:
    """The SHA-256 of the `<sha256>  <name>` lines of a trained cell's files, read anew.

    Raises:
        Unreadable: one of them cannot be read, or none is there.
    """
    names = [name for name in (CONFIG_FILE, WEIGHTS_FILE, TRAINED_FILE) if (folder / name).exists()]
    if not names:
        raise Unreadable(folder, "missing", "holds no trained weights", TRAIN_AGAIN)
    lines = []
    for name in names:
        with advising(f"bring the folder back from a copy, or {TRAIN_AGAIN}"):
            check_file(folder / name)
        try:
            lines.append(f"{fresh_sha256_of_file(folder / name)}  {name}\n")
        except OSError as fault:
            raise unreadable(folder / name, fault) from fault
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def damaged_tensors(folder: Path, expected: str | None) -> str | None:
    """What is wrong with a trained cell's files: None where they are those that were written.

    Args:
        folder: the cell's adapter folder.
        expected: `TrainResult.weights_sha256`; None, in results of older versions, says nothing.
    """
    if expected is None:
        return None
    try:
        found = trained_sha256(folder)
    except Unreadable as fault:
        return str(fault)
    if found == expected:
        return None
    return (
        f"{folder}: the trained weights are damaged or were changed (SHA-256 {found[:12]}, "
        f"{expected[:12]} was written); bring the folder back from a copy, or {TRAIN_AGAIN}"
    )


def check_undamaged(folder: Path, expected: str | None) -> None:
    """Refuses a trained cell's files that are not those that were written.

    Raises:
        ModelError: they are not.
    """
    if (fault := damaged_tensors(folder, expected)) is not None:
        raise ModelError(fault)
