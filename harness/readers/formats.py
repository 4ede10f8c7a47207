"""Which format a file has, by its content: what a name says may be wrong."""

from __future__ import annotations

import json
from pathlib import Path

from harness.readers.files import check_file, unreadable

HEAD_BYTES = 64 * 1024

MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "parquet"),
    (b"PARE", "encrypted parquet"),
    (b"ARROW1", "an Arrow file (Feather)"),
    (b"\xff\xff\xff\xff", "an Arrow stream"),
    (b"FEA1", "an Arrow file (Feather, version 1)"),
    (b"ORC", "ORC"),
    (b"Obj\x01", "Avro"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89HDF", "HDF5"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
)
"""What files of a format begin with."""


def format_of(path: Path) -> str:
    """What the content of a file is, in words: `parquet`, `JSON Lines`, `CSV`, ...

    Raises:
        Unreadable: it cannot be read, or is empty.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as fault:
        raise unreadable(path, fault) from fault
    return format_of_head(head)


def format_of_head(head: bytes) -> str:
    """What a content is that begins with these bytes."""
    for magic, name in MAGIC:
        if head.startswith(magic):
            return name
    # A cut last character is no fault of the text.
    text = head.decode("utf-8-sig", errors="replace").rstrip("\ufffd")
    if "\0" in text or text.count("\ufffd") > len(text) / 10:
        return "no known format"
    return _format_of_text(text)


def _format_of_text(text: str) -> str:
    lines = [line for line in text.lstrip().splitlines() if line.strip()]
    first = lines[0].strip() if lines else ""
    if first.startswith("{"):
        return "JSON Lines" if len(lines) > 1 and _is_json(first) else "JSON"
    if first.startswith("["):
        return "JSON"
    if first.startswith("<"):
        return "a web page" if "<html" in text.lower() else "XML"
    for separator, name in ((",", "CSV"), ("\t", "TSV"), (";", "CSV"), ("|", "CSV")):
        if separator in first:
            return name
    return "text" if first else "blank text"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
