"""What of a grid can be read where a method of it is not installed here, or its adapter is not.

For commands that show results and run nothing: whoever reports a grid need not have its plug-ins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import MethodError, UsageError, did_you_mean
from harness.grid.folders import Runs
from harness.grid.gone import adapter_folder, stored_adapter
from harness.grid.names import method_key
from harness.methods import METHODS


def without_absent_methods(
    raw: Any, *, place: str, folder: Path, results: Runs
) -> tuple[Any, tuple[str, ...]]:
    """A parsed grid without the entries of methods that are not here, and a line for each.

    Args:
        raw: what the file holds, faulty or not.
        place: the file's name, the beginning of every line.
        folder: what the paths of `adapter` are relative to.
        results: the runs folders, whose cells know adapters that are gone.

    Returns:
        `raw` itself and no line, where nothing is absent or nothing would be left.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("blocks"), list):
        return raw, ()
    named = raw["methods"] if isinstance(raw.get("methods"), Mapping) else {}
    absent = {
        label: why
        for label, entry in named.items()
        if (why := _why_absent(entry, label, folder, results)) is not None
    }
    lines = [f"{place}: methods.{label}: {why}" for label, why in absent.items()]
    blocks = []
    for index, block in enumerate(raw["blocks"]):
        entries = block.get("methods") if isinstance(block, Mapping) else None
        if not isinstance(entries, list):
            blocks.append(block)
            continue
        kept, gone = [], []
        for number, entry in enumerate(entries):
            if isinstance(entry, str) and entry in named:
                why = absent.get(entry)
            elif (why := _why_absent(entry, None, folder, results)) is not None:
                lines.append(f"{place}: blocks[{index}].methods[{number}]: {why}")
            if why is None:
                kept.append(entry)
            else:
                gone.append(_label_of(entry))
        if kept:
            blocks.append({**block, "methods": kept} | _tuned_without(block, gone))
    if not blocks or not lines:
        return raw, ()
    rest = {**raw, "blocks": blocks}
    if absent:
        rest["methods"] = {label: entry for label, entry in named.items() if label not in absent}
    return rest, tuple(f"{line}; its cells are left out here" for line in lines)


def _label_of(entry: Any) -> Any:
    """An entry's label; where it has none, the name that its label begins with."""
    return entry.get("label", entry.get("method")) if isinstance(entry, Mapping) else entry


def _tuned_without(block: Mapping[str, Any], gone: Sequence[Any]) -> dict[str, Any]:
    """The block's `tune` without the spaces of methods that are left out."""
    tune = block.get("tune")
    if not gone or not isinstance(tune, Mapping) or not isinstance(tune.get("space"), Mapping):
        return {}
    left = {
        label: space
        for label, space in tune["space"].items()
        if not any(label == one or str(label).startswith(f"{one}[") for one in gone)
    }
    return {"tune": {**tune, "space": left}} if left else {"tune": None}


def _why_absent(entry: Any, label: Any, folder: Path, results: Runs) -> str | None:
    """Why an entry's method cannot be had here; None where it can, or is wrong in another way."""
    name = entry
    if isinstance(entry, Mapping):
        name = entry.get("method", method_key(entry) or entry.get("label", label))
        if name == "adapter":
            return _why_no_folder(entry, label, folder, results)
    if not isinstance(name, str):
        return None
    if name not in METHODS:
        return f"no such method '{name}'{did_you_mean(name, METHODS)}"
    try:
        METHODS[name]
    except MethodError as fault:
        return str(fault)
    return None


def _why_no_folder(entry: Mapping[str, Any], label: Any, folder: Path, results: Runs) -> str | None:
    """Why an adapter cannot be had; None where its folder is, or a cell scored with it."""
    adapter = entry.get("adapter")
    if not isinstance(adapter, str):
        return None
    try:
        found, own = adapter_folder(adapter, folder)
        gone = not found.exists()
    except (UsageError, OSError, RuntimeError):  # told where the grid is resolved
        return None
    known = gone and stored_adapter(results, found, str(entry.get("label", label) or own))
    return f"adapter: {found}: no such folder" if gone and not known else None
