"""Where features of pictures are kept: one file per encoder and set of pictures, by their content.

No torch here: looking after a runs folder imports this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records.files import atomic_file, sha256_of_json

if TYPE_CHECKING:
    import numpy as np

FOLDER = "pictures"
"""Under the runs folder."""
DIGITS = 32
FEATURES, SEAL = "features", "sha256"
"""Names of the tensors in a file: (N, F) in fp32 by the pictures' sorted SHA-256, and its hash."""


class DamagedFeatures(Exception):
    """A file of features that is cut off, changed, or no such file."""


def features_file(runs_dir: Path, encoder: Mapping[str, Any], names: Sequence[str]) -> Path:
    """The file of pictures' features.

    Args:
        runs_dir: the runs folder.
        encoder: what decides the features that the image encoder gives.
        names: the SHA-256 of the pictures, in any order.
    """
    key = sha256_of_json({"encoder": dict(encoder), "pictures": sorted(names)})
    return runs_dir / FOLDER / f"{key[:DIGITS]}.safetensors"


def read_features(file: Path) -> np.ndarray | None:
    """The features in a file, (N, F) in fp32; None where there is no file.

    Raises:
        DamagedFeatures: they are not what was written.
        OSError: the file cannot be read.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(file.read_bytes())
        features_NF, seal = found[FEATURES], found[SEAL]
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, ValueError, TypeError) as fault:
        raise DamagedFeatures(f"{file}: holds no features of pictures") from fault
    right = features_NF.dtype == np.float32 and features_NF.ndim == 2
    if not right or seal.tobytes() != _seal(features_NF):
        raise DamagedFeatures(f"{file}: its content is not what was written")
    return features_NF


def write_features(file: Path, features_NF: np.ndarray) -> None:
    """Writes features, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save

    seal = np.frombuffer(_seal(features_NF), np.uint8)
    content = save({FEATURES: np.ascontiguousarray(features_NF), SEAL: seal})
    with atomic_file(file) as temporary:
        temporary.write_bytes(content)


def _seal(features_NF: np.ndarray) -> bytes:
    return hashlib.sha256(features_NF.tobytes()).digest()
