"""Pictures on their way into a model: features of a frozen encoder, projected for one pass.

LLaMA-Adapter (arXiv 2303.16199, section 3.3): a frozen image encoder gives a picture's features of
several scales, whose concatenation, F numbers, a trained projection takes to I_p, D numbers; I_p is
added to every row of the prompt of every adapted layer. Features are computed once per distinct
picture (`image_encoder.py`); what is projected is told to the attention layers beside a pass, as
the keyword argument `pictures`, as `packing` is.

Shapes: N pictures, F features, D hidden size of the language model, P distinct pictures of a pass,
R its rows: the sequences of a batch, (B,), or the tokens of a packed row, (N,).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

PROJECTION = "image_projection"
"""Name of the module that projects features, inside the decoder. It is called with features (P, F)
and gives I_p of the active adapter, (P, D); `takes_pictures` of it says whether that has one."""


PROJECTION_PREFIX = "prompt_image_"
"""Begins the names of its parameters, after its own."""


@dataclass(frozen=True)
class PictureFeatures:
    """Features of distinct pictures, on the CPU in fp32."""

    names: tuple[str, ...]
    """The pictures' SHA-256."""
    features_NF: Tensor

    @cached_property
    def _row_of(self) -> Mapping[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def select(self, names: Sequence[str]) -> Tensor:
        """The features of pictures by name, (P, F)."""
        return self.features_NF[[self._row_of[name] for name in names]]


@dataclass(frozen=True)
class PassPictures:
    """The pictures of one forward pass, as attention layers are told of them."""

    projected_PD: Tensor
    """I_p of each distinct picture, in fp32, and behind them a row of zeros: no picture."""
    row_R: Tensor
    """For each sequence of a batch, or token of a packed row, its row of `projected_PD`."""
    adapter: str | None = None
    """Name of the adapter that projected them: another one has a projection of its own."""


_current: ContextVar[PassPictures | None] = ContextVar("pictures", default=None)


@contextlib.contextmanager
def using_pictures(pictures: PassPictures | None) -> Iterator[None]:
    """Conditions the passes inside on pictures, where no argument can be handed down, as to
    `generate`. Training hands them down: a layer that is computed again in the backward pass, by
    gradient checkpointing, does not run inside.
    """
    token = _current.set(pictures)
    try:
        yield
    finally:
        _current.reset(token)


def current_pictures() -> PassPictures | None:
    """Those of `using_pictures`; None outside of it."""
    return _current.get()


def takes_pictures(model: Any) -> bool:
    """Whether the active adapter of a model is conditioned on pictures."""
    projection = getattr(_decoder(model), PROJECTION, None)
    return projection is not None and bool(projection.takes_pictures)


def is_of_projection(name: str) -> bool:
    """Whether a parameter's name is of a projection of pictures."""
    return any(part.startswith(PROJECTION_PREFIX) for part in name.split("."))


def project(model: Any, features_PF: Tensor, row_R: Tensor) -> PassPictures:
    """The pictures of a pass, projected by the active adapter; gradients reach its projection.

    Args:
        features_PF: of the distinct pictures of the pass.
        row_R: the picture of each sequence or token, P for none.
    """
    projection = getattr(_decoder(model), PROJECTION)
    device = row_R.device
    projected_PD = projection(features_PF.to(device))
    none_1D = projected_PD.new_zeros(1, projected_PD.shape[1])
    return PassPictures(
        torch.cat([projected_PD, none_1D]), row_R, getattr(projection, "active", None)
    )


def no_picture(model: Any) -> Tensor:
    """Zero, whose gradient in the active adapter's projection is zero too, and is there.

    Added to the loss of a pass without pictures: DDP waits for a gradient of every trained tensor
    from every rank, and an optimizer takes a zero otherwise than none.
    """
    trained = [
        one for one in getattr(_decoder(model), PROJECTION).parameters() if one.requires_grad
    ]
    return torch.stack([one.flatten()[:0].sum() for one in trained]).sum()


def pictures_of_rows(
    model: Any, features: PictureFeatures, names_R: Sequence[str | None], device: torch.device
) -> PassPictures | None:
    """The pictures of a batch whose sequences are given one each, by name, or none.

    None where no sequence has a picture, or the active adapter takes none.
    """
    names = list(dict.fromkeys(name for name in names_R if name is not None))
    if not names or not takes_pictures(model):
        return None
    places = {name: place for place, name in enumerate(names)}
    rows = [len(names) if name is None else places[name] for name in names_R]
    return project(model, features.select(names), torch.tensor(rows, device=device))


def _decoder(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.get_decoder()
