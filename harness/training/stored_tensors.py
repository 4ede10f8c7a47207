"""The tensors of a safetensors file, of which only what is used is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

if TYPE_CHECKING:
    from torch import Tensor


class StoredTensors(Mapping[str, "Tensor"]):
    """A safetensors file as a mapping, whose tensors are mapped into memory when asked for.

    The system reads the pages of a mapped tensor that are used: a rank that takes some rows of it
    reads those alone, and they take no memory that the system could not have back. They are not to
    be written to.

    Raises:
        OSError, SafetensorError: the file cannot be opened, or its header is damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened: Any = None
        self._names = frozenset(self._open().keys())

    def _open(self) -> Any:
        if self._opened is None:
            self._opened = safe_open(self._file, "pt", backend="mmap")
        return self._opened

    def close(self) -> None:
        """Leaves the file, so that its space is free once it is removed; it may be asked again."""
        self._opened = None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._open().get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)
