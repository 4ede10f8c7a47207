"""Which torch is installed, and what it was built for, read from its files without an import."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TorchBuild:
    """An installed torch."""

    version: str
    cuda: str | None
    """The CUDA that it was built for, such as `12.8`; None for a build without it."""
    hip: str | None
    """AMD's, likewise."""


def torch_build() -> TorchBuild | None:
    """The torch that an import would find; None where there is none, or its file is not known."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = dict(re.findall(r"^(__version__|cuda|hip)\b[^=\n]*=\s*'([^']*)'", text, re.MULTILINE))
    if "__version__" not in found:
        return None
    return TorchBuild(found["__version__"], found.get("cuda"), found.get("hip"))
