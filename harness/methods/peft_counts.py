"""Parameters of types that would have to decompose a model's weights to be counted: by formula."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.models.shape import ModelShape

_BY_LAYER = ("layers_to_transform", "layers_pattern", "exclude_modules", "rank_pattern")


def known_count(shape: ModelShape, kind: str, settings: Mapping[str, Any]) -> int | None:
    """The parameters that FROD or AdaMSS trains in a model; None where no formula holds.

    FRoD: of each matrix a scale per input, and `sparse_rate` of the square of its inputs. AdaMSS of
    subspace rank 1: of each matrix `num_subspaces` rows of size `r`, and a number per output.
    """
    targets = settings.get("target_modules", ["q_proj", "v_proj"])
    plain = isinstance(targets, list) and set(targets) <= set(shape.linear_layers)
    if not plain or any(settings.get(name) for name in _BY_LAYER):
        return None
    sizes = [shape.linear_layers[name] for name in targets]
    if kind == "FROD":
        rate = settings.get("sparse_rate", 0.01)
        per_layer = sum(inputs + _entries(inputs, rate) for inputs, _ in sizes)
    elif kind == "ADAMSS" and settings.get("subspace_rank", 1) == 1:
        if settings.get("use_dynamic_rank"):
            return None
        rank, spaces = settings.get("r", 100), settings.get("num_subspaces", 5)
        per_layer = sum(
            min(spaces, outputs) * min(rank, inputs, outputs) + outputs for inputs, outputs in sizes
        )
    else:
        return None
    return int(shape.num_hidden_layers * per_layer)


def _entries(inputs: int, rate: float) -> int:
    """Entries of FRoD's sparse matrix, none of them on the diagonal."""
    most = inputs * inputs - inputs
    found = min(int(inputs * inputs * rate), most)
    return max(1, found) if rate > 0 and most > 0 else found
