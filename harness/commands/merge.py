"""`zbench merge`: finished cells of other runs folders, copied into one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from harness.commands.display import console, print_json, print_line, print_warnings, size_text
from harness.grid.merging import Merged, merge_cells, merge_rest

TOLD = {
    "copied": "copied",
    "there": "there already",
    "running": "running",
    "unfinished": "not finished",
    "kept": "not copied",
}
"""What the closing line calls them."""


def merge_command(
    sources: Sequence[Path],
    target: Path,
    ids: Collection[str] | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Copies finished cells, and says what was copied and what was not.

    Args:
        ids: of the cells to copy; None for all.

    Returns:
        1 where another result is in the target, or a cell is not what was written, else 0.
    """
    screen = console(quiet=as_json)
    cells: list[Merged] = []
    rest: dict[tuple[str, str], Merged] = {}
    before: dict[str, Path] = {}
    for source in {folder.resolve(): folder for folder in reversed(sources)}.values():
        for one in merge_cells(source, target, ids, dry_run=dry_run, before=before):
            cells.append(one)
            if one.size_bytes and not as_json:
                what = ": answers" if one.kind == "there" else ""
                print_line(screen, f"{size_text(one.size_bytes):>9}  {one.label}{what}")
        for one in merge_rest(source, target, dry_run=dry_run):
            rest.setdefault((one.source.parent.name, one.label), one)
    left = [f"{one.label}: {one.text}" for one in cells if one.kind in ("running", "kept")]
    print_warnings(screen, [*left, *(one.text for one in rest.values() if one.text)])
    size = sum(one.size_bytes for one in (*cells, *rest.values()))
    if as_json:
        listed = [
            {
                "id": one.source.name.rpartition("--")[2],
                "label": one.label,
                "from": str(one.source),
                "what": one.kind,
                "bytes": one.size_bytes,
                "text": one.text,
            }
            for one in cells
        ]
        print_json({"dry_run": dry_run, "bytes": size, "cells": listed})
    else:
        counts = {kind: sum(one.kind == kind for one in cells) for kind in TOLD}
        told = ", ".join(f"{counts[kind]} {name}" for kind, name in TOLD.items() if counts[kind])
        would = "would be done: " if dry_run else ""
        print_line(screen, f"{would}{told or 'no cell'}; {size_text(size)} to {target}")
        if counts["copied"] and not dry_run:
            print_line(screen, f"`zbench sync GRID --runs-dir {target}` logs them to MLflow")
    return 1 if any(one.kind == "kept" for one in cells) else 0
