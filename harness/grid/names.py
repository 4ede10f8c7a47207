"""What a grid and its models may be called: names become parts of files, labels and addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.errors import shortened

LONGEST_NAME = 80
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,\[\]+-]*")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""What some systems take for a device, whatever its ending."""


def model_name_pattern() -> str:
    """What a model's name matches, whole."""
    return f"^{_MODEL.pattern}$"


def grid_name_fault(name: str) -> str | None:
    """Why a grid cannot have a name, of which the folder of its report is made."""
    if name.casefold().strip(" .") == "theory":
        return "'theory' is the name of `zbench theory`'s own report; take another"
    if _DEVICE.fullmatch(name) or name != name.rstrip(" ."):
        return f"no folder can be called '{name}' everywhere; take another name"
    return None


def model_name_faults(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields each name that a model cannot have, and why; and each that would share files."""
    files: dict[str, str] = {}
    for name in names:
        if not _MODEL.fullmatch(name):
            said = "a model's name has letters (a to z), digits and . _ - = , + [ ], nothing else"
            source = " (a hub repository's name stands in its `source`)" if "/" in name else ""
            yield name, f"{said}, and begins with a letter or digit; name it otherwise{source}"
        elif len(name) > LONGEST_NAME:
            yield name, f"a model's name has at most {LONGEST_NAME} characters, not {len(name)}"
        elif (other := files.setdefault(file_name(name).casefold(), name)) != name:
            yield name, f"would share its files with '{shortened(other)}'; rename one"


def file_name(name: str) -> str:
    """A name as a part of a file's name, as the report's figures have it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def slug_of(label: str) -> str:
    """A label as a part of a folder's name."""
    return file_name(label.replace("%", "pct")).strip("-")


def label_of(
    model_name: str,
    method_label: str,
    fraction: float | None,
    seed: int | None,
    data_name: str | None = None,
    *,
    fixed_seeds: str = "",
    repeat: int | None = None,
) -> str:
    """The label of a cell; fraction and seed are None where nothing is trained.

    A set of the grid's `datasets` stands in it: `llama-7b/lora@chats/10%/seed0`; so do
    seeds that differ from the cell's, and the number of a repeated training:
    `llama-7b/lora/10%/seed1/order0+subset0`, `llama-7b/lora/10%/seed0/repeat1`.
    """
    if fraction is None:
        return f"{model_name}/{method_label}"
    drawn, again = f"/{fixed_seeds}" * bool(fixed_seeds), f"/repeat{repeat}" * (repeat is not None)
    of = "" if data_name is None else f"@{data_name}"
    return f"{model_name}/{method_label}{of}/{100 * fraction:g}%/seed{seed}{drawn}{again}"


def data_place(name: str | None) -> str:
    """Where a grid file says what a set is, such as `datasets.chats`."""
    return "data" if name is None else f"datasets.{name}"


def method_key(entry: Mapping[str, Any]) -> str | None:
    """The method of an entry that says it by a key of its own: `adapter`, `peft`."""
    return next((key for key in ("adapter", "peft") if key in entry), None)
