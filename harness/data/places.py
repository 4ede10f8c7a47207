"""Where the files of a training set lie: a file, a folder (also of `save_to_disk`), or a glob."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.data.spec import DataSpec, data_file, data_places, is_glob, is_there
from harness.errors import DataError, UsageError, did_you_mean
from harness.readers.files import Unreadable, unreadable
from harness.readers.json_files import read_json_object
from harness.records.files import known_sha256_of_file, sha256_of_file

MOST_FILES = 10_000
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Splits, and the words in names of files and folders that mean them, as `datasets` reads them."""
_NO_ROWS = re.compile(
    r"[._].*|readme.*|licen[sc]e.*|dataset_infos?\.json|state\.json|.*\.(md|py|lock|sha256|yaml)",
    re.IGNORECASE,
)
"""Files beside the rows."""


def data_files(spec: DataSpec, data_root: Path | None) -> tuple[Path, ...]:
    """The files that a set is read from, in order; none where the hub is read.

    Raises:
        ZbenchError: there is none, or it cannot be told which split is meant.
    """
    place = data_file(spec, data_root)
    if place is None:
        return ()
    if is_glob(place):
        matches = glob.glob(str(place), recursive=True)
        found = sorted(path for path in map(Path, matches) if path.is_file())
        if not found:
            raise DataError(f"{place}: no file matches; correct the path")
    elif place.is_dir():
        found = _of_folder(place, spec)
    else:
        found = [place]
    if not place.is_dir():
        if spec.subset is not None:
            raise DataError(f"{place}: `subset` names a folder of a local set, and this is none")
        if spec.split is not None:
            found = _of_split(found, spec.split, place)
    if len(found) > MOST_FILES:
        raise DataError(f"{place}: has {len(found):,} files, at most {MOST_FILES:,} are read")
    return tuple(found)


def _of_folder(folder: Path, spec: DataSpec) -> list[Path]:
    try:
        if spec.subset is not None:
            subsets = [path.name for path in folder.iterdir() if path.is_dir()]
            if spec.subset not in subsets:
                known = did_you_mean(spec.subset, sorted(subsets))
                raise DataError(f"{folder}: has no folder for the subset '{spec.subset}'{known}")
            folder /= spec.subset
        if (folder / "dataset_dict.json").is_file():
            folder /= _saved_split(folder, spec.split)
        if (folder / "state.json").is_file():
            return _saved_files(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError as fault:
        raise unreadable(folder, fault) from fault
    files = [p for p in files if not any(map(_NO_ROWS.fullmatch, p.relative_to(folder).parts))]
    if not files:
        raise DataError(f"{folder}: has no file of rows; name a folder that has")
    return _of_split(files, spec.split, folder)


def _saved_split(folder: Path, wanted: str | None) -> str:
    """The folder of a split that `save_to_disk` wrote."""
    splits = read_json_object(folder / "dataset_dict.json").get("splits")
    names = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
    split = wanted or ("train" if "train" in names or len(names) != 1 else names[0])
    if split not in names:
        said = f"has no split '{split}'{did_you_mean(split, names)}; say which by `split`"
        raise DataError(f"{folder}: {said}")
    return split


def _saved_files(folder: Path) -> list[Path]:
    """The files of a set that `save_to_disk` wrote, in the order of its rows."""
    entries = read_json_object(folder / "state.json").get("_data_files")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Unreadable(folder / "state.json", "content", "names no `_data_files`")
    return [folder / Path(str(entry.get("filename"))).name for entry in entries]


def _of_split(files: list[Path], wanted: str | None, place: Path) -> list[Path]:
    """The files whose names, or those of their folders, say that they are of a split."""
    base = place if place.is_dir() else place.parent
    split_of = {path: _split_in(path, base) for path in files}
    names = sorted({split for split in split_of.values() if split is not None})
    if (wanted is None and len({*split_of.values()}) < 2) or (wanted == "train" and not names):
        return files  # all of one split, or of none, which is `train` then
    if wanted is None and None in split_of.values():
        other = next(path for path, split in split_of.items() if split is None)
        raise DataError(
            f"{place}: has files of split {' and '.join(names)}, and {other.relative_to(base)} "
            "whose name says none; say which by `split`, or name the files by a glob"
        )
    split = wanted or "train"
    meant = next((name for name, words in SPLITS.items() if split in words), split)
    chosen = [p for p in files if split_of[p] == meant] or [
        p for p in files if split in re.split(r"[^A-Za-z0-9_]+", p.relative_to(base).as_posix())
    ]
    if not chosen:
        known = f" (it has {', '.join(names)})" if names else ""
        raise DataError(f"{place}: no file's name says that it is of split '{split}'{known}")
    return chosen


def _split_in(path: Path, base: Path) -> str | None:
    try:
        parts = path.relative_to(base).parts
    except ValueError:
        parts = (path.name,)
    for part in reversed(parts):
        words = re.split(r"[^a-z]+", part.lower())
        for split, meant in SPLITS.items():
            if any(word in meant for word in words):
                return split
    return None


def is_here(spec: DataSpec, data_root: Path | None) -> bool:
    """Whether a set is read from files that are there."""
    place = data_file(spec, data_root)
    return place is not None and is_there(place)


def sha256_of_data(files: Sequence[Path]) -> str:
    """The SHA-256 of a file's content; of several files, that of theirs in order.

    Raises:
        OSError: one cannot be read.
    """
    return _together(files, sha256_of_file) or ""


def known_sha256_of_data(files: Sequence[Path]) -> str | None:
    """The same where that takes no long reading, else None."""
    return _together(files, known_sha256_of_file) if files else None


def _together(files: Sequence[Path], of: Callable[[Path], str | None]) -> str | None:
    found = [of(file) for file in files]
    if None in found:
        return None
    lines = json.dumps(found).encode()
    return found[0] if len(found) == 1 else hashlib.sha256(lines).hexdigest()


def check_place(spec: DataSpec, data_root: Path | None) -> None:
    """Refuses a relative path that stands for two different things.

    Raises:
        UsageError: other data lie beside the grid file than under the data root.
    """
    beside, under = data_places(spec, data_root)
    if beside is None or under is None or not (is_there(beside) and is_there(under)):
        return
    here, there = (spec.model_copy(update={"path": str(place)}) for place in (beside, under))
    both = data_files(here, None), data_files(there, None)
    if both[0] != both[1] and sha256_of_data(both[0]) != sha256_of_data(both[1]):
        raise UsageError(
            f"{beside} and {under} hold different data, and `{spec.path}` may mean either; write "
            "the whole path"
        )
