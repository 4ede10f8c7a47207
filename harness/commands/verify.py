"""`zbench verify`: whether the files of a runs folder are those that were written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from harness.commands.display import console, print_json, print_line
from harness.errors import UsageError
from harness.grid.folders import cell_folder, cell_folders
from harness.grid.schema import Cell
from harness.grid.upkeep import verify_cell, verify_rest


def verify_command(runs_dir: Path, cells: list[Cell] | None, *, as_json: bool) -> int:
    """Reads all files of the cells anew, and tells what is damaged and what becomes of it.

    Args:
        cells: those of a grid; None for all of the runs folder, and what lies beside them.

    Returns:
        1 where anything is damaged, else 0.
    """
    if not runs_dir.is_dir():
        raise UsageError(f"{runs_dir}: no such folder; name the one to look at with --runs-dir")
    known = cell_folders(runs_dir)
    folders = sorted(known.values())
    if cells is not None:
        begun = (cell_folder(runs_dir, cell, known) for cell in cells)
        folders = [folder for folder in begun if folder.is_dir()]
    found = [finding for folder in folders for finding in verify_cell(folder)]
    found += verify_rest(runs_dir) if cells is None else ()
    counts = Counter(finding.kind for finding in found)
    if as_json:
        findings = [{"kind": f.kind, "path": str(f.path), "text": f.text} for f in found]
        print_json({"cells": len(folders), "damaged": counts["damaged"], "findings": findings})
    else:
        screen = console()
        for finding in found:
            print_line(screen, str(finding))
        told = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        cells_told = f"{len(folders)} cell{'' if len(folders) == 1 else 's'} looked at"
        print_line(screen, f"{cells_told}: {told or 'all is as it was written'}")
    return 1 if counts["damaged"] else 0
