"""Builds and loads `shim.cpp`, the CUDA device guard and hooks that do nothing.

torch asks for its hooks once in a process, so that they must be loaded before it is imported:
modules that need them import `before_torch` first.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().with_name("shim.cpp")
COMPILER = "g++"


def missing() -> str | None:
    """Why nothing can be rehearsed here, in one line; None where it can."""
    if _path().exists() or shutil.which(COMPILER):
        return None
    return f"no C++ compiler: the GPU rehearsal needs {COMPILER} (apt install g++)"


def load() -> None:
    """Loads the shim, and builds it where that has not been done for this torch and this source.

    Raises:
        ImportError: torch is imported already, or there is no compiler.
        subprocess.CalledProcessError: the compiler refuses the source; it says why on stderr.
    """
    if "torch" in sys.modules:
        raise ImportError(
            "tests.gpu_rehearsal.before_torch must be imported before torch, which asks for CUDA "
            "once in a process"
        )
    if (reason := missing()) is not None:
        raise ImportError(reason)
    path = _path()
    if not path.exists():
        _build(path)
    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _path() -> Path:
    """The shim's place in the user's cache folder, by torch's version and the source's content."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = importlib.metadata.version("torch")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    return cache / "zbench-gpu-rehearsal" / f"torch-{version}-{digest}.so"


def _build(path: Path) -> None:
    """Compiles in about 3 s; several processes may do so at once, and one of them stays."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    torch = Path(spec.origin).parent
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    subprocess.run(
        [
            *(COMPILER, "-std=c++20", "-O1", "-fPIC", "-shared", str(SOURCE), "-o", str(temporary)),
            *(f"-I{torch / 'include'}", f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}"),
            *("-lc10", "-ltorch_cpu"),
        ],
        check=True,
    )
    temporary.replace(path)
