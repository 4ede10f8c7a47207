"""Reading tensors from outside: safetensors by their header, without torch, and PyTorch's .pth.

What a header claims is held against the file's size before anything is loaded.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from harness.errors import one_line, printable, shortened
from harness.readers.files import Unreadable, check_file, unreadable
from harness.readers.json_files import parse_json

if TYPE_CHECKING:
    from torch import Tensor

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of a number, by its type in a safetensors header."""
WEIGHT_TYPES = ("F64", "F32", "F16", "BF16")
"""Types of weights that are not quantised."""
MAX_HEADER_BYTES = 32 * 2**20
"""Of a safetensors file: a name takes about 150, and a large model has some thousand."""
MAX_PTH_BYTES = 2 * 2**30
"""Of a .pth, unpacked: LLaMA-Adapter's have 5 MB, those with an encoder of images 0.4 GB."""
MAX_DIMENSIONS = 64
"""Of a tensor: what torch can hold."""
LONGEST_NAME = 200
"""Characters of a tensor's name that a message shows."""

Header = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each tensor of a file, by its name."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def tensor_header(path: Path) -> Header:
    """Type (safetensors' word, as `F32`) and shape of each tensor of a safetensors file.

    Needs neither torch nor numpy.

    Raises:
        Unreadable: it cannot be read, is no safetensors file, or is not whole.
    """
    size = check_file(path)
    content, begin = _header(path, size)
    places = {name: _entry(path, name, entry) for name, entry in content.items()}
    end = 0
    for name, (_, _, start, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
        if start != end:
            said = f"{shown_name(name)} begins at byte {start:,} of the data, not at {end:,}"
            raise Unreadable(path, "damaged", said)
        end = stop
    if size < begin + end:
        raise _cut(path, begin + end, size)
    if size > begin + end:
        said = f"has {size - begin - end:,} bytes more than its header says"
        raise Unreadable(path, "damaged", said)
    return {name: (kind, shape) for name, (kind, shape, _, _) in places.items()}


def check_weight_types(path: Path, header: Header) -> None:
    """Refuses tensors of other than plain floating-point numbers.

    Raises:
        Unreadable: there are some; the first is named.
    """
    for name, (kind, _) in header.items():
        if kind not in WEIGHT_TYPES:
            said = f"{shown_name(name)} is of type {kind}; weights are {', '.join(WEIGHT_TYPES)}"
            raise Unreadable(path, "no weights", said)


def check_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuses tensors that are other than plain, finite floating-point numbers in memory.

    Raises:
        Unreadable: there are some; the first is named.
    """
    _check_plain(path, tensors)
    check_finite(path, tensors)


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuses tensors with NaN or infinite numbers.

    Raises:
        Unreadable: there are some; the first is named.
    """
    for name, tensor in tensors.items():
        bad = tensor.numel() - int(tensor.isfinite().sum())
        if bad:
            count = "the only number" if tensor.numel() == 1 else f"{bad} of {tensor.numel()}"
            said = f"{shown_name(name)} holds NaN or infinite numbers ({count})"
            raise Unreadable(path, "no weights", said)


def read_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of a dictionary that `torch.save` wrote, on the CPU; nothing in it is executed.

    Each is of floating-point numbers, all finite, and together they have no more bytes than the
    file.

    Raises:
        Unreadable: it cannot be read, or is anything else.
    """
    import torch

    held = _unpacked_size(path, check_file(path, max_bytes=MAX_PTH_BYTES))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:  # pickle, zip, torch and Python itself raise many kinds
        said = (
            "is no file of tensors alone, or damaged; nothing else is read, because unpickling can "
            "run code"
        )
        raise Unreadable(path, "damaged", said) from fault
    entries = content.items() if isinstance(content, dict) else ()
    named = [isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in entries]
    if not named or not all(named):
        raise Unreadable(path, "content", "holds no dictionary of tensors alone")
    _check_plain(path, content)
    claimed = sum(value.numel() * value.element_size() for value in content.values())
    if claimed > held:
        largest = max(content, key=lambda name: content[name].numel())
        said = (
            f"its tensors claim {claimed:,} bytes, of which it holds at most {held:,}; the largest "
            f"is {shown_name(largest)}, {'x'.join(map(str, content[largest].shape))}"
        )
        raise Unreadable(path, "no weights", said)
    check_finite(path, content)
    return {name: value.detach() for name, value in content.items()}


def shown_name(name: str) -> str:
    """A tensor's name as a message shows it: printable, and not longer than a line bears."""
    return shortened(name, LONGEST_NAME)


def _header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """What a header says of each tensor, and where the data begins."""
    try:
        with path.open("rb") as file:
            begin = file.read(8)
            length = int.from_bytes(begin, "little")
            text = file.read(length) if length <= MAX_HEADER_BYTES else b""
    except OSError as fault:
        raise unreadable(path, fault) from fault
    # A header of 640 bytes begins as a pickle does; what follows its length tells them apart.
    if begin.startswith(_PICKLES) and not text.startswith(b"{"):
        raise Unreadable(path, "other format", "is a file of PyTorch (pickle), not safetensors")
    if length > MAX_HEADER_BYTES:
        said = f"is no safetensors file (its header would have {length:,} bytes)"
        raise Unreadable(path, "damaged", said)
    if len(text) < length:
        raise _cut(path, 8 + length, size)
    try:
        content = parse_json(text.decode("utf-8"), path)
    except (UnicodeDecodeError, Unreadable) as fault:
        said = "is no safetensors file (its header is no JSON)"
        raise Unreadable(path, "damaged", said) from fault
    if not isinstance(content, dict):
        raise Unreadable(path, "damaged", "is no safetensors file (its header is no JSON object)")
    content.pop("__metadata__", None)
    return content, 8 + length


def _cut(path: Path, due: int, size: int) -> Unreadable:
    return Unreadable(path, "cut off", f"has {size:,} bytes, its header says {due:,}")


def _entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, and first and last byte of a tensor in the data."""
    said_of: dict[str, Any] = entry if isinstance(entry, dict) else {}
    kind, shape, place = map(said_of.get, ("dtype", "shape", "data_offsets"))
    if not (isinstance(kind, str) and _sizes(shape) and _sizes(place) and len(place) == 2):
        said = f"its header says of {shown_name(name)}: {printable(json.dumps(entry))[:100]}"
        raise Unreadable(path, "damaged", said)
    if kind not in BITS:
        said = f"{shown_name(name)} is of an unknown type, {printable(kind)[:20]}"
        raise Unreadable(path, "damaged", said)
    if place[1] - place[0] != (bits := math.prod(shape) * BITS[kind]) // 8 or bits % 8:
        said = (
            f"{shown_name(name)} has {place[1] - place[0]:,} bytes, which is no "
            f"{'x'.join(map(str, shape)) or 'scalar'} of {kind}"
        )
        raise Unreadable(path, "damaged", said)
    return kind, tuple(shape), place[0], place[1]


def _sizes(values: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers that could be sizes."""
    if not isinstance(values, list) or len(values) > MAX_DIMENSIONS:
        return False
    return all(type(value) is int and 0 <= value < 2**62 for value in values)


def _unpacked_size(path: Path, size: int) -> int:
    """The bytes of a .pth once unpacked; those of the file where it is no archive.

    Raises:
        Unreadable: they are too many.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return size
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except OSError as fault:
        raise unreadable(path, fault) from fault
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as fault:
        said = f"begins as an archive of torch.save and is none ({one_line(fault)})"
        raise Unreadable(path, "damaged", said) from fault
    if size > MAX_PTH_BYTES:
        said = f"unpacks to {size / 2**20:,.0f} MiB, at most {MAX_PTH_BYTES / 2**20:,.0f} are read"
        raise Unreadable(path, "too large", said)
    return size


def _check_plain(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if (why := _no_weights(tensor)) is not None:
            raise Unreadable(path, "no weights", f"{shown_name(name)} {why}")


def _no_weights(tensor: Tensor) -> str | None:
    """Why a tensor cannot be used as weights; None where it can."""
    import torch

    if tensor.is_meta:
        return f"has no values (it is on the device {tensor.device})"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return "is sparse, quantised or nested, not a plain tensor"
    if not tensor.is_floating_point():
        return f"is of type {tensor.dtype}; weights are floating-point numbers"
    return None
